"""Nats of tokens by how often the token before them was read in training: what a model knows of rare characters.

A picture tells a model something of a character that it has hardly read; a code or a fresh row of a table tells
nothing. What is scored is the token after the rare one, whose vector the model has to make sense of.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from eval.studies.common.losses import finite, over_seeds
from frozen_glyph.statistics import paired_bootstrap
from frozen_glyph.text.loss import batches, tokens_at_once, window_losses, windows_of

MOST_READ = (0, 1, 3, 10, 30)  # times in training
WINDOWS = 8  # at a time


def times_read(windows: Any, order: list[int], vocab_size: int) -> np.ndarray:
    """How often each token stood before another one in the windows numbered ``order``: int64 [V]."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for index in order:
        counts += np.bincount(windows[index]["input_ids"][:-1].numpy(), minlength=vocab_size)
    return counts


@torch.no_grad()
def score_text(
    model: Any, tokenizer: Any, text: str, context_length: int, read_V: np.ndarray, known: bool = False
) -> dict[str, Any]:
    """The loss of ``text``, as ``text_loss`` scores it, and the part of it that follows tokens read seldom.

    Blocks are windows: ``nats``, ``characters``, ``documents`` [blocks], and ``tokens`` in all. ``rare`` has for each
    limit of ``MOST_READ`` what follows tokens that were read so often at most, ``nats`` and ``tokens`` of those
    documents that have any, by document; with ``known`` only tokens that were read themselves.
    """
    windows = windows_of(text, tokenizer, context_length)
    nats = np.zeros(len(windows))
    rare_nats: list[dict[int, float]] = [{} for _ in MOST_READ]
    rare_tokens: list[dict[int, int]] = [{} for _ in MOST_READ]
    model.eval()
    for places in batches(windows, WINDOWS, tokens_at_once(model)):
        losses_BT = window_losses(model, [windows[place] for place in places]).double().numpy()
        for place, losses_T in zip(places, losses_BT, strict=True):
            window = windows[place]
            scored = slice(window.first_scored - 1, len(window.input_ids) - 1)
            losses_T = losses_T[scored]
            nats[place] = losses_T.sum()
            left_T, right_T = (read_V[ids[scored]] for ids in (window.input_ids[:-1], window.input_ids[1:]))
            for number, most in enumerate(MOST_READ):
                chosen_T = (left_T <= most) & ((right_T > 0) | (not known))
                if count := int(chosen_T.sum()):
                    found, counts, document = rare_nats[number], rare_tokens[number], window.document
                    found[document] = found.get(document, 0.0) + float(losses_T[chosen_T].sum())
                    counts[document] = counts.get(document, 0) + count
    rare = {
        str(most): {"documents": list(found), "nats": list(found.values()), "tokens": list(counts.values())}
        for most, found, counts in zip(MOST_READ, rare_nats, rare_tokens, strict=True)
    }
    return {
        "nats": nats.tolist(),
        "characters": [window.characters for window in windows],
        "documents": [window.document for window in windows],
        "tokens": sum(len(window.input_ids) - window.first_scored for window in windows),
        "rare": rare,
    }


def curve_of(arms: dict[str, dict[int, dict[str, Any]]], kind: str, base: str) -> list[dict[str, Any]]:
    """``kind`` minus ``base`` in nats a token, by language and by how often the token before was read at most.

    ``arms`` has the runs of each arm by seed; compared are the seeds that both have.
    """
    seeds = sorted(arms.get(kind, {}).keys() & arms.get(base, {}).keys())
    rows = []
    for language in arms[kind][seeds[0]]["texts"] if seeds else ():
        for most in map(str, MOST_READ):
            rare_S = [[arms[name][seed]["texts"][language]["rare"][most] for seed in seeds] for name in (base, kind)]
            documents = sorted({document for rare in rare_S[0] for document in rare["documents"]})
            if not documents:
                continue
            place = {document: number for number, document in enumerate(documents)}
            nats = np.zeros((2, len(seeds), len(documents)))
            tokens = np.zeros((len(seeds), len(documents)))
            for arm, rares in enumerate(rare_S):
                for seed, rare in enumerate(rares):
                    chosen = [place[document] for document in rare["documents"]]
                    nats[arm, seed, chosen], tokens[seed, chosen] = rare["nats"], rare["tokens"]
            found = paired_bootstrap(*nats.mean(axis=1), tokens.mean(axis=0), units=documents)
            by_seed = (nats[1] - nats[0]).sum(axis=1) / tokens.sum(axis=1)
            row = {"kind": kind, "baseline": base, "language": language, "read_at_most": int(most)}
            row |= {"tokens": int(tokens.sum()), "loss": float(nats[1].sum() / tokens.sum())}
            rows.append(row | finite(asdict(found)) | over_seeds(by_seed[np.isfinite(by_seed)].tolist()))
    return rows

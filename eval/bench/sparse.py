"""Tokens of N merged experts of which only those run that the text is of, beside one expert and beside all running.

    python -m eval.bench.sparse --experts 3 6 --out eval/results/bench-sparse.json

Experts of no training, whose predictions are sure ones, each write a text of their own, which no other knows. One text
is of the first expert; the other passes to the next expert with every paragraph. Both are read token by token after a
prompt, as they would be written, by one expert, by all, and sparsely, in turns; the latter with all the numbers of
tokens ``--catch-up`` after which who rests reads at once. A loss is that under the rule fixed_share: what sparse
reading adds to the dense one's is the price of what it leaves out. No text tells less of who writes next: each token
of a paragraph's writer surprises the others, and nothing announces the next paragraph. What real text costs measures
``eval.studies.composition``. ``drafted``: greedy decoding of all experts with the leading one as draft
(``draft_expert=True``) beside the same without, in turns; these experts' texts have one writer each, so that drafts are
right nearly always: the most that drafting saves. The processor's time says more on a busy machine.
"""

import argparse
import functools
from statistics import median
from typing import Any

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, circumstances, write_report
from eval.bench.generate import build_merged
from eval.bench.models import build_model
from eval.bench.timing import Clock, Seconds, alternate, over, timed
from frozen_glyph.model import scheduling_frozen_glyph
from frozen_glyph.model.generation_frozen_glyph import CACHE

PROMPT_TOKENS, PARAGRAPH_TOKENS = 32, 80
GOALS = {"one expert's text": {3: 1.3, 6: 1.5}, "a text that switches": {3: 1.6, 6: 1.6}}  # of the time of one expert


def main() -> None:
    arguments = parse_arguments()
    about = circumstances()
    settings = {
        "prompt_tokens": PROMPT_TOKENS,
        "paragraph_tokens": PARAGRAPH_TOKENS,
        "paragraphs": arguments.paragraphs,
    }
    shape = {name: getattr(arguments, name) for name in ("layers", "width", "vocab", "repeats")}
    measured = [measure(arguments, count) for count in arguments.experts]
    write_report({**about, **settings, **shape, "goals": GOALS, "measured": measured}, arguments.out)


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--layers", type=int, default=4, help="blocks of an expert (default: 4)")
    parser.add_argument("--experts", type=int, nargs="+", default=[3, 6], help="experts (default: 3 6)")
    parser.add_argument("--catch-up", type=int, nargs="+", default=[32, 128, 512], help="default: 32 128 512")
    parser.add_argument("--paragraphs", type=int, default=3, help="paragraphs of a text (default: 3)")
    add_shape_arguments(parser, width=256, batch=1, context=512, vocab=16384)
    return parser.parse_args()


@torch.no_grad()
def measure(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    """Time and loss of ``count`` experts on both texts."""
    expert = build_model(arguments, arguments.layers).eval()
    merged = build_merged(expert, count).eval()
    merged.config.rule = "fixed_share"
    merged.lm_head.weight.mul_(40)  # sure of what they predict
    expert.lm_head.weight.mul_(40)
    pages = {"one expert's text": [0] * arguments.paragraphs, "a text that switches": range(arguments.paragraphs)}
    found: dict[str, Any] = {"experts": count}
    for name, writers in pages.items():
        ids = write(merged, [writer % count for writer in writers])
        turns = {"one": functools.partial(read_timed, expert, ids)}
        turns["dense"] = functools.partial(read_with, merged, None, 0, ids)
        turns |= {at: functools.partial(read_with, merged, 1, at, ids) for at in arguments.catch_up}
        taken = alternate(turns, arguments.repeats)
        loss = taken["dense"][0][1]
        found[name] = {
            **{f"dense_{key}": value for key, value in over_one(taken, "dense").items()},
            "dense_loss": round(loss, 4),
            "sparse_by_catch_up": {
                at: over_one(taken, at) | {"minus_dense_loss": round(taken[at][0][1] - loss, 4)}
                for at in arguments.catch_up
            },
        }
    return found | {"drafted": drafted(merged, ids[:, :PROMPT_TOKENS], arguments.repeats)}


def drafted(merged: Any, prompt: torch.Tensor, repeats: int) -> dict[str, Any]:
    """A paragraph written with the leading expert as draft beside one without: time, and whether it is the same."""
    merged.config.active_experts, merged.generation_config.eos_token_id = None, None
    settings = {"max_new_tokens": PARAGRAPH_TOKENS, "do_sample": False, "use_cache": True, "pad_token_id": 0}
    turns = {
        name: functools.partial(merged.generate, prompt, draft_expert=name == "drafted", **settings)
        for name in ("plain", "drafted")
    }
    texts = [turn() for turn in turns.values()]
    seconds = alternate({name: timed(turn) for name, turn in turns.items()}, repeats)
    return {"same_text": torch.equal(*texts), **over(seconds["drafted"], seconds["plain"], "plain")}


def over_one(taken: dict[Any, list[tuple[Seconds, float]]], key: Any) -> dict[str, float]:
    """The time of ``key`` over that of one expert in the same round, the median."""
    pairs = list(zip(taken[key], taken["one"], strict=True))
    return {
        f"over_one{suffix}": round(median(getattr(own, kind) / getattr(one, kind) for (own, _), (one, _) in pairs), 3)
        for suffix, kind in (("", "wall"), ("_cpu", "cpu"))
    }


def write(merged: Any, writers: list[int]) -> torch.Tensor:
    """A prompt, and a paragraph that each of ``writers`` has drawn alone from what it predicts: ids [1, T]."""
    torch.manual_seed(1)
    weights, rule = merged.config.expert_weights, merged.config.rule
    merged.config.rule, ids = "probability", torch.randint(merged.config.vocab_size, (1, 1))
    for place, writer in enumerate(writers):
        merged.config.expert_weights = [float(expert == writer) for expert in range(len(weights))]
        new = PARAGRAPH_TOKENS + (PROMPT_TOKENS - 1 if place == 0 else 0)
        ids = merged.generate(ids, max_new_tokens=new, do_sample=True, top_k=0, use_cache=True, pad_token_id=0)
    merged.config.expert_weights, merged.config.rule = weights, rule
    return ids


def read_with(merged: Any, active: int | None, catch_up: int, ids: torch.Tensor) -> tuple[Seconds, float]:
    merged.config.active_experts, scheduling_frozen_glyph.CATCH_UP_TOKENS = active, catch_up
    return read_timed(merged, ids)


def read_timed(model: Any, ids: torch.Tensor) -> tuple[Seconds, float]:
    clock = Clock()
    loss = read(model, ids)
    return clock.read(), loss


@torch.no_grad()
def read(model: Any, ids: torch.Tensor) -> float:
    """Mean loss of the tokens behind the prompt, read one by one."""
    output, loss = model(ids[:, :PROMPT_TOKENS], use_cache=True, logits_to_keep=1), 0.0
    for column in range(PROMPT_TOKENS, ids.shape[1]):
        loss -= float(output.logits[0, -1].log_softmax(-1)[ids[0, column]])
        cache = {CACHE: getattr(output, CACHE)}
        output = model(ids[:, column : column + 1], use_cache=True, logits_to_keep=1, **cache)
    return loss / (ids.shape[1] - PROMPT_TOKENS)


if __name__ == "__main__":
    main()

"""Who speaks in a text: the expert of a merged model that predicts each token, or the depth at which a grown model's
prediction of it settles.

Shapes: T tokens, N names, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.candidates import find_candidates
from frozen_glyph.model.generation_frozen_glyph import CACHE
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.text.loss import AS_TEXT, MAX_CONTEXT, window_bounds

SHOWN_RULE = "evidence"  # of a merged model whose own rule weighs its experts alike at every token
PIECE_TOKENS = 128  # tokens whose logits exist at one time


@dataclass(frozen=True)
class Attribution:
    """A text in ``pieces``, which joined are the text, and for each piece the share of each of ``names``.

    Shares sum to 1 (under the rule ``weighted`` they may be negative); they are empty where nothing was predicted, as
    of the first token of a model that begins without a mark. ``ordered``: the names are steps, not kinds.

    Example: ``Attribution("weights", ["ru", "zh"], ["Москва ", "北京"], [[0.9, 0.1], [0.2, 0.8]])``
    """

    title: str
    names: Sequence[str]
    pieces: Sequence[str]
    shares: Sequence[Sequence[float]]
    ordered: bool = False

    def summary(self) -> list[tuple[str, int, float]]:
        """Of each name: in how many pieces its share is the largest, and its mean share."""
        told = [shares for shares in self.shares if shares]
        leading = [max(range(len(shares)), key=shares.__getitem__) for shares in told]
        return [
            (name, leading.count(place), sum(shares[place] for shares in told) / max(1, len(told)))
            for place, name in enumerate(self.names)
        ]


def attribute_checkpoint(word: str, text: str, rule: str | None = None, device: str | None = None) -> Attribution:
    """``attribute`` of a checkpoint by name: a folder or Hub id, ``NAME@STAGE``.

    Args:
        rule: of a merged model; None takes its own, or ``SHOWN_RULE`` where that weighs all tokens alike.

    Raises:
        FrozenGlyphError: there is no such model, stage or rule, or ``attribute`` refuses.
    """
    candidate = find_candidates([word], [] if rule is None else [rule], every_stage=False)[0]
    if rule is not None and candidate.rule is None:
        raise FrozenGlyphError(f"model {word!r} is not merged and has no rule; leave rule={rule!r} out")
    if rule is None and candidate.rule is not None and not RULES[candidate.rule].reads_tokens:
        candidate = find_candidates([word], [SHOWN_RULE], every_stage=False)[0]
    return attribute(*candidate.load(candidate.stages[-1], device), text)


@torch.no_grad()
def attribute(model: Any, tokenizer: Any, text: str) -> Attribution:
    """Read ``text``, of one document, in windows of the model's context that overlap by half.

    A merged model: the weight of each expert in the prediction of each token. A grown one: the first of its stages, or
    blocks where nothing was grown, from which on the best next token under the last norm and head stays the same.

    Raises:
        FrozenGlyphError: the text has no token or cannot be written as UTF-8, or the model is of another kind.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FrozenGlyphError(f"{text[:40]!r} is no Unicode text: it holds half of a character; give UTF-8") from None
    config = model.config
    if not str(config.model_type).startswith("frozen_glyph"):
        raise FrozenGlyphError(f"a {config.model_type!r} model has neither experts nor stages; give one of ours")
    encoded = tokenizer(text, **AS_TEXT, return_offsets_mapping=True)
    if not encoded["input_ids"]:
        raise FrozenGlyphError("the text has no token; give one that is not empty")
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    prefix = [] if start is None else [start]
    ids = prefix + encoded["input_ids"]
    merged = hasattr(model, "expert_weights")
    depths = [] if merged else exits(config)
    shares: list[Sequence[float]] = [] if prefix else [()]
    for begin, first, end in window_bounds(len(ids), min(config.max_position_embeddings, MAX_CONTEXT)):
        window = torch.tensor([ids[begin:end]], device=model.device)
        read = weights_in(model, window) if merged else depths_in(model, window, depths)
        shares += read[first - 1 : end - begin - 1].tolist()
    if merged:
        title, names = f"weight of each expert under {config.rule}", list(config.expert_names)
    else:
        title, names = "depth at which the prediction of a token settles", [name for name, _ in depths]
    ends = [end for _, end in encoded["offset_mapping"]]
    return Attribution(title, names, *in_pieces(text, ends, shares), ordered=not merged)


def exits(config: Any) -> list[tuple[str, int]]:
    """What the depths are called at which a prediction is looked at, and how many blocks each has."""
    stages = sorted(set(config.ladder or range(1, config.num_hidden_layers + 1)))
    what = "stage" if config.ladder else "block"
    return [(f"{what} {number}", blocks) for number, blocks in enumerate(stages, start=1)]


def weights_in(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What each expert counts after each token of ``ids`` [1, T]: [T, N]."""
    return model.expert_weights(model(ids, use_cache=True, logits_to_keep=1)[CACHE])[0]


def depths_in(model: Any, ids: torch.Tensor, depths: Sequence[tuple[str, int]]) -> torch.Tensor:
    """After each token of ``ids`` [1, T] 1 at the first of ``depths`` that predicts as all later ones: [T, N]."""
    base = model.base_model
    states = base(ids, use_cache=False, output_hidden_states=True).hidden_states
    last = len(base.layers)
    chosen = torch.stack(
        [
            best_tokens(model.lm_head, (states[blocks] if blocks == last else base.norm(states[blocks]))[0])
            for _, blocks in depths
        ]
    )
    differ = (chosen != chosen[-1]).long()
    settled = differ.flip(0).cumsum(0).eq(0).sum(0)  # how many of the last depths agree
    return torch.nn.functional.one_hot(len(depths) - settled, len(depths)).float()


def best_tokens(head: Any, states: torch.Tensor) -> torch.Tensor:
    """The likeliest next token [T] after each of ``states`` [T, D]."""
    return torch.cat([head(piece).argmax(-1) for piece in states.split(PIECE_TOKENS)])


def in_pieces(
    text: str, ends: Sequence[int], shares: Sequence[Sequence[float]]
) -> tuple[list[str], list[Sequence[float]]]:
    """Cut ``text`` behind each token; several tokens of one character are one piece, with the shares of the last."""
    pieces: list[str] = []
    told: list[Sequence[float]] = []
    read = 0
    for end, own in zip(ends, shares, strict=True):
        if end > read:
            pieces.append(text[read:end])
            told.append(own)
            read = end
        elif told:
            told[-1] = own
    if read < len(text):
        pieces.append(text[read:])
        told.append(())
    return pieces, told

"""One answer of a model: what it reads, how it chooses tokens, and its text while it comes."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.attribution import Attribution
from frozen_glyph.talk.listening import Listener, listening
from frozen_glyph.talk.speakers import Speaker
from frozen_glyph.text.loss import AS_TEXT

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer gives for bytes of a character that is not whole yet


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    tokens: the most that are written. temperature: 0 takes the best token always. top_k: choose among so many, 0 among
    all. top_p: among the best that have this much probability together. repetition_penalty: above 1, what stands there
    already is less likely. seed: of the choice; a random one where None is given.

    >>> Sampling(temperature=-1)
    Traceback (most recent call last):
    frozen_glyph.errors.FrozenGlyphError: temperature=-1 must be at least 0, where 0 takes the best token always
    """

    tokens: int = 100
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = field(default_factory=lambda: secrets.randbelow(2**31))

    def __post_init__(self) -> None:
        for name, allowed, right in (
            ("tokens", "at least 1", self.tokens >= 1),
            ("temperature", "at least 0, where 0 takes the best token always", 0 <= self.temperature < float("inf")),
            ("top_k", "at least 0, where 0 leaves all tokens", self.top_k >= 0),
            ("top_p", "above 0 and at most 1", 0 < self.top_p <= 1),
            ("repetition_penalty", "above 0, where 1 is none", 0 < self.repetition_penalty < float("inf")),
            ("seed", "from 0 to 2**63 - 1", 0 <= self.seed < 2**63),
        ):
            if not right:
                raise FrozenGlyphError(f"{name}={getattr(self, name)!r} must be {allowed}")

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``generate`` takes."""
        chosen: dict[str, Any] = {"do_sample": self.temperature > 0}
        if self.temperature > 0:
            chosen |= {"temperature": float(self.temperature), "top_k": self.top_k, "top_p": self.top_p}
        return chosen | {"repetition_penalty": self.repetition_penalty, "num_beams": 1}


@dataclass(frozen=True)
class Answer:
    """What a model wrote: ``text``, its ``ids``, and whether it ended by itself; ``read`` ids came before."""

    text: str
    ids: list[int]
    ended: bool
    read: list[int]


@dataclass(frozen=True)
class Piece:
    """The next characters of an answer, the ids that make them, and who speaks in them where somebody listens."""

    text: str
    ids: list[int]
    heard: Attribution | None = None


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text that is to be continued, behind the start of a document where the tokenizer has one.

    Raises:
        FrozenGlyphError: there is nothing to continue.
    """
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [*([] if start is None else [start]), *tokenizer(text, **AS_TEXT)["input_ids"]]
    if not ids:
        raise FrozenGlyphError("the prompt is empty, and the tokenizer has no mark for the start of a text; give one")
    return ids


def chat_ids(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """The ids of a conversation up to where the assistant is to speak; ``FrozenGlyphError`` without a template."""
    if tokenizer.chat_template is None:
        raise FrozenGlyphError("the tokenizer has no chat template, so there is no conversation; complete text instead")
    encoded = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
    return list(encoded["input_ids"])


def fitting(ids: list[int], tokens: int, positions: int | None) -> tuple[list[int], int]:
    """The last of ``ids`` and how many tokens can follow, so that a model of ``positions`` reads both.

    At most half of the context goes to what follows, where both are too long.

    >>> fitting(list(range(100)), 60, 64)[1], len(fitting(list(range(100)), 60, 64)[0])
    (32, 32)
    """
    if positions is None or len(ids) + tokens <= positions:
        return ids, tokens
    kept = ids[-max(positions - tokens, positions // 2, 1) :]
    return kept, max(1, min(tokens, positions - len(kept)))


class Streamer:
    """What ``generate`` calls with ids; calls ``on_piece`` as soon as they make whole characters."""

    def __init__(
        self, tokenizer: Any, on_piece: Callable[[Piece], object] | None, listener: Listener | None = None
    ) -> None:
        self.tokenizer, self.on_piece, self.listener = tokenizer, on_piece, listener
        self.ids: list[int] = []
        self.text, self.told, self.waiting = "", 0, 0
        self.prompt_passed = False

    def put(self, value: Any) -> None:
        if not self.prompt_passed:  # the first call brings the prompt
            self.prompt_passed = True
            return
        self.ids += value.flatten().tolist()
        self.text = self.tokenizer.decode(self.ids, skip_special_tokens=True)
        if not self.text.endswith(UNFINISHED):
            self.tell()

    def end(self) -> None:
        self.tell()

    def tell(self) -> None:
        fresh, ids = self.text[self.told :], self.ids[self.waiting :]
        if fresh:
            self.told, self.waiting = len(self.text), len(self.ids)
            if self.on_piece is not None:
                self.on_piece(Piece(fresh, ids, None if self.listener is None else self.listener.hear(fresh)))


def speak(
    speaker: Speaker,
    ids: list[int],
    sampling: Sampling,
    on_piece: Callable[[Piece], object] | None = None,
    listen: bool = False,
) -> Answer:
    """Let ``speaker`` go on from ``ids``; ``on_piece`` is called with its text while it comes.

    ``listen``: pieces say who speaks in them, which costs a look through the head for each growth stage.

    Where ids and answer are longer than the context, the first ids are left out. Other random numbers of the process
    stay what they are.
    """
    import torch

    read, tokens = fitting(ids, sampling.tokens, speaker.positions)
    inputs = torch.tensor([read], device=speaker.model.device)
    with torch.inference_mode(), torch.random.fork_rng(), listening(speaker) if listen else nullcontext() as listener:
        streamer = Streamer(speaker.tokenizer, on_piece, listener)
        torch.manual_seed(sampling.seed)
        written = speaker.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=tokens,
            streamer=streamer,
            **sampling.arguments,
            **(listener.arguments if listener else {}),
        )[0, len(read) :].tolist()
    ends = speaker.model.generation_config.eos_token_id
    ended = bool(written) and written[-1] in (ends if isinstance(ends, list) else [ends])
    return Answer(streamer.text, written, ended, read)

"""A talk: what was said so far, who answers and how; lines that begin with a slash change it.

Nothing here reads or prints: ``frozen-glyph chat`` gives lines and shows what comes.
"""

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.talk.speakers import Speaker
from frozen_glyph.talk.speaking import Answer, Piece, Sampling, chat_ids, prompt_ids, speak

HELP = {
    "stage": ("K", "the growth stage that answers, from 1 on"),
    "rule": ("NAME [W,W]", "the merge rule, and the experts' weights"),
    "expert": ("NAME", "only this expert of a merged model"),
    "model": ("NUMBER|NAME", "which of the models of the command answers"),
    "compare": ("", "all answer side by side: the models given; of one the first and last stage, or each expert"),
    "set": ("OPTION VALUE", "tokens, temperature, top_k, top_p, repetition_penalty, seed"),
    "system": ("TEXT", "what a chat begins with; forgets what was said"),
    "chat": ("", "messages and answers, by the tokenizer's chat template"),
    "complete": ("", "every line is a text to go on with; an empty line goes on with the last"),
    "new": ("", "forget what was said"),
    "info": ("", "who answers, and how"),
    "help": ("", "this list; a line that begins with // is text with one slash"),
    "quit": ("", "end, as Ctrl-D does"),
}
OnPiece = Callable[[int, Piece], object]


class Ended(Exception):
    """The talk is over."""


@dataclass(frozen=True)
class Voice:
    """Who answers: a model as it is, or at a growth stage, under a merge rule, with one expert alone."""

    speaker: Speaker
    stage: int | None = None
    rule: str | None = None
    expert: str | None = None

    def ready(self) -> Speaker:
        """The model, at that stage, under that rule, with that expert."""
        if self.stage is not None:
            self.speaker.load(self.stage)
        if self.rule is not None:
            self.speaker.set_rule(self.rule)
        if self.expert is not None:
            self.speaker.hear(self.expert)
        return self.speaker


class Session:
    """A talk with ``speakers``, of which one answers, or with ``compare`` all.

    Args:
        chat: messages and answers, or texts that are completed; None: chat where the first was made to answer messages.
        listen: answers come with who speaks in them.

    Raises:
        FrozenGlyphError: there is nobody to talk to, nothing to compare, or ``chat`` without a chat template.
    """

    def __init__(
        self,
        speakers: Sequence[Speaker],
        sampling: Sampling,
        chat: bool | None = None,
        compare: bool = False,
        system: str | None = None,
        listen: bool = False,
    ) -> None:
        if not speakers:
            raise FrozenGlyphError("no model given; name at least one checkpoint folder or Hub id")
        self.speakers, self.sampling, self.system, self.listen = list(speakers), sampling, system, listen
        self.active = 0
        self.compared: list[Voice] = []
        self.histories: dict[int, list[dict[str, str]]] = {}
        self.text, self.turns = "", 0
        self.chat = self.speaker.chats if chat is None else chat
        if self.chat:
            self.do_chat("")
        if compare:
            self.do_compare("")

    @property
    def speaker(self) -> Speaker:
        """Who answers where one does."""
        return self.speakers[self.active]

    @property
    def voices(self) -> list[Voice]:
        """Who answers the next line."""
        return self.compared or [Voice(self.speaker)]

    def labels(self) -> list[str]:
        """What those who answer are called."""
        return [voice.ready().label for voice in self.voices]

    def handle(self, line: str, on_piece: OnPiece | None = None) -> list[Answer] | str:
        """What a line brings: the answers of all who answer, or in words what a slash changed.

        ``on_piece`` gets the number of who answers, and what it says while it does.

        Raises:
            FrozenGlyphError: an unknown command, or a value that is not possible; the talk stays as it was.
            Ended: the line ends the talk.
        """
        if line.startswith("/") and not line.startswith("//"):
            name, _, rest = line[1:].strip().partition(" ")
            if name not in HELP:
                raise FrozenGlyphError(f"/{name} is no command.{nearest(name, HELP)} /help lists them")
            return getattr(self, f"do_{name}")(rest.strip())
        return self.answer(line[1:] if line.startswith("//") else line, on_piece)

    def answer(self, line: str, on_piece: OnPiece | None = None) -> list[Answer]:
        """The answers to a message, or what goes on from a text; an interrupted one leaves nothing behind."""
        prompt = line if self.chat or line else self.text
        sampling = dataclasses.replace(self.sampling, seed=self.sampling.seed + self.turns)
        answers = []
        for number, voice in enumerate(self.voices):
            speaker = voice.ready()
            ids = self.conversation(number, line, speaker) if self.chat else prompt_ids(speaker.tokenizer, prompt)
            tell = None if on_piece is None else (lambda piece, number=number: on_piece(number, piece))
            answers.append(speak(speaker, ids, sampling, tell, self.listen))
        self.text, self.turns = prompt + answers[0].text, self.turns + 1
        if self.chat:
            for number, answer in enumerate(answers):
                said = [{"role": "user", "content": line}, {"role": "assistant", "content": answer.text}]
                self.histories.setdefault(number, []).extend(said)
        return answers

    def conversation(self, number: int, line: str, speaker: Speaker) -> list[int]:
        """The ids of what was said so far and ``line``; the oldest turns are left out where the context is full."""
        begin = [] if self.system is None else [{"role": "system", "content": self.system}]
        turns = [*self.histories.get(number, []), {"role": "user", "content": line}]
        while True:
            ids = chat_ids(speaker.tokenizer, [*begin, *turns])
            room = (speaker.positions or len(ids) + 1) - min(self.sampling.tokens, (speaker.positions or 2) // 2)
            if len(ids) <= room or len(turns) == 1:
                return ids
            turns = turns[2:]

    def do_stage(self, value: str) -> str:
        if not value.isdecimal():
            raise FrozenGlyphError(f"/stage {value!r} must be a number, from 1 to {self.speaker.stages}")
        self.speaker.load(int(value))
        return self.alone()

    def do_rule(self, value: str) -> str:
        name, _, weights = value.partition(" ")
        self.speaker.set_rule(name, numbers("weights", weights) if weights else None)
        return self.alone()

    def do_expert(self, value: str) -> str:
        self.speaker.hear(value)
        return self.alone()

    def do_model(self, value: str) -> str:
        places = {str(place): place - 1 for place in range(1, len(self.speakers) + 1)}
        for place, own in enumerate(self.speakers):
            places |= {own.source.name: place, str(own.source): place}
        if value not in places:
            known = ", ".join(f"{place} {own.label}" for place, own in enumerate(self.speakers, start=1))
            raise FrozenGlyphError(f"/model {value!r} must be one of: {known}")
        if self.active != places[value]:
            self.active = places[value]
            self.do_new("")
        return self.alone()

    def do_compare(self, _: str) -> str:
        own = self.speaker
        if len(self.speakers) > 1:
            self.compared = [Voice(speaker) for speaker in self.speakers]
        elif own.experts:
            self.compared = [Voice(own, expert=name) for name in own.experts]
        elif own.stages > 1:
            self.compared = [Voice(own, stage=1), Voice(own, stage=own.stages)]
        else:
            raise FrozenGlyphError(f"{own.label!r} has neither stages nor experts to compare; name two models")
        return f"side by side: {', '.join(self.labels())}"

    def do_set(self, value: str) -> str:
        name, _, number = value.partition(" ")
        kinds: dict[str, Any] = {option.name: option.type for option in dataclasses.fields(Sampling)}
        if name not in kinds:
            raise FrozenGlyphError(f"/set {name!r} is no option.{nearest(name, kinds)} They are {', '.join(kinds)}")
        try:
            read = kinds[name](number)
        except ValueError:
            kind = "whole number" if kinds[name] is int else "number"
            raise FrozenGlyphError(f"/set {name} {number!r} must be a {kind}") from None
        self.sampling = dataclasses.replace(self.sampling, **{name: read})
        return f"{name} {getattr(self.sampling, name)}"

    def do_system(self, value: str) -> str:
        self.system = value or None
        self.do_new("")
        return f"a chat begins with {value!r}" if value else "a chat begins with nothing"

    def do_chat(self, _: str) -> str:
        if self.speaker.tokenizer.chat_template is None:
            raise FrozenGlyphError(f"{self.speaker.label!r} has no chat template; it completes texts")
        self.chat = True
        return "chat: messages and answers"

    def do_complete(self, _: str) -> str:
        self.chat = False
        return "every line is completed"

    def do_new(self, _: str) -> str:
        self.histories, self.text = {}, ""
        return "what was said is forgotten"

    def do_info(self, _: str) -> str:
        options = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(self.sampling).items())
        return f"{', '.join(self.labels())}; {'chat' if self.chat else 'completion'}; {options}"

    def do_help(self, _: str) -> str:
        rows = [(f"/{name} {takes}".rstrip(), does) for name, (takes, does) in HELP.items()]
        return "\n".join(f"{command:<22}{does}" for command, does in rows)

    def do_quit(self, _: str) -> str:
        raise Ended

    def alone(self) -> str:
        """End a comparison; say who answers now."""
        self.compared = []
        return self.speaker.label


def numbers(what: str, text: str) -> list[float]:
    """The numbers of a list with commas.

    >>> numbers("weights", "0.7,0.3")
    [0.7, 0.3]

    Raises:
        FrozenGlyphError: one is no number.
    """
    try:
        return [float(part) for part in shlex.split(text.replace(",", " "))]
    except ValueError:
        raise FrozenGlyphError(f"{what} {text!r} must be numbers, with commas between them, as in 0.7,0.3") from None

"""Which ids of a vocabulary are reserved: the marks of a chat, and ids that wait for a name.

A frozen table cannot grow, so a learnt vocabulary has special tokens that no text is made of. The first are the marks
of ``chat_template.jinja``, drawn by their names; the others are named when they are needed (see ``naming``), and
their vectors are codes.
"""

import re
from pathlib import Path

from frozen_glyph.substrate.glyphs import Token

CHAT_MARKS = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|tools|>", "<|tool_call|>")
RESERVED = "<|reserved_{number}|>"
RESERVED_NAME = re.compile(r"<\|reserved_\d+\|>")
RESERVED_IDS = 64  # of a compact vocabulary where these are at most a sixteenth of its ids
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def reserved_names(count: int) -> list[str]:
    """Names of ``count`` reserved ids, the chat marks first.

    >>> reserved_names(8)[5:]
    ['<|tool_call|>', '<|reserved_0|>', '<|reserved_1|>']
    """
    return [*CHAT_MARKS, *(RESERVED.format(number=number) for number in range(count - len(CHAT_MARKS)))][:count]


def is_reserved(token: Token) -> bool:
    """Whether a token waits for a name."""
    return token.kind == "special" and RESERVED_NAME.fullmatch(token.text) is not None


def chat_template() -> str:
    """The chat template over ``CHAT_MARKS``."""
    return CHAT_TEMPLATE.read_text("utf-8")

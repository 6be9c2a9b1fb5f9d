"""How large a study is: the sizes that all studies name alike. A study adds its own fields and its own defaults."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scale:
    """Of every model and every training of a study."""

    hidden_size: int = 192
    heads: int = 6
    vocab_size: int = 4096
    context_length: int = 256
    batch_tokens: int = 2048
    learning_rate: float = 2e-3
    shown: int = 4_000  # characters of each reported document that are scored, from its beginning
    development: int = 40_000  # and of each development document


# What ``--smoke`` makes of these: seconds a run, to see that everything runs.
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "heads": 2,
    "vocab_size": 600,
    "context_length": 32,
    "batch_tokens": 128,
    "shown": 200,
    "development": 500,
}

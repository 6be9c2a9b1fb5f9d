"""What fields of a configuration may hold: sizes and numbers within limits, activations and rotary scalings by name.

Every check raises ``ValueError`` in one line: field, value, what is allowed, the nearest name. torch and transformers
are imported only by the checks that ask them, so that the plain fields of a recipe are checked without them.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, get_args

from .rules_frozen_glyph import MOST_RATES

Class = TypeVar("Class", bound=type)

MOST_LAYERS = 10_000
MOST_POSITIONS = 2**31 - 1
LIMITS: dict[str, tuple[float, float]] = {
    "vocab_size": (1, 2**24),
    "hidden_size": (1, 2**20),
    "embedding_size": (1, 2**20),
    "intermediate_size": (1, 2**22),
    "num_hidden_layers": (0, MOST_LAYERS),
    "num_shared_layers": (0, MOST_LAYERS),
    "max_position_embeddings": (1, MOST_POSITIONS),
    "evidence_window": (1, MOST_POSITIONS),
    "prompt_sample": (1, MOST_POSITIONS),
    "initializer_range": (0, 100),
    "layer_norm_eps": (0, 1),
    "attention_dropout": (0, 1),
}
ROPE_NEEDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
ROPE_LEAST = {  # numbers, and whether they may be that least one
    "rope_theta": (0, False),
    "factor": (1, True),
    "attention_factor": (0, True),
    "beta_fast": (0, False),
    "beta_slow": (0, False),
    "low_freq_factor": (0, False),
    "high_freq_factor": (0, False),
    "original_max_position_embeddings": (1, True),
}


def refused_with_value_error(configuration: Class) -> Class:
    """Let a ``strict`` dataclass refuse its fields with a ``ValueError`` of one line, which its own error is not."""
    from huggingface_hub.errors import StrictDataclassError, StrictDataclassFieldValidationError

    def plain(method: Callable[..., None]) -> Callable[..., None]:
        @wraps(method)
        def wrapped(*args: Any, **kwargs: Any) -> None:
            try:
                method(*args, **kwargs)
            except StrictDataclassFieldValidationError as error:
                field = re.search(r"field '(\w+)'", str(error))
                said = " ".join(str(error.__cause__ or error).split())
                raise ValueError(f"{field[1]}: {said}" if field else said) from None
            except StrictDataclassError as error:
                raise ValueError(" ".join(str(error.__cause__ or error).split())) from None

        return wrapped

    for name in ("__init__", "validate"):
        setattr(configuration, name, plain(getattr(configuration, name)))
    return configuration


def nearest_of(name: Any, allowed: Iterable[str]) -> str:
    """The end of an error that suggests the closest of ``allowed``, or an empty text when none is close."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_limits(config: Any) -> None:
    """Sizes and numbers of ``config`` lie within ``LIMITS``; token ids within the vocabulary."""
    kinds = getattr(type(config), "__annotations__", {})
    for name, kind in kinds.items():  # older versions of the Hub's client take True for 1
        value = getattr(config, name, None)
        found = any(isinstance(each, bool) for each in (value if isinstance(value, list) else [value]))
        if found and bool not in (kind, *get_args(kind)):
            raise ValueError(f"{name}: Field {name!r} with value {value!r} holds True or False; give a number")
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name, None)
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name}={value!r} must be from {least} to {most}")
    for name in [name for name in vars(config) if name.endswith("_token_id")]:  # transformers takes any of that name
        value = getattr(config, name)
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is not None and not (is_whole(token_id) and 0 <= token_id < config.vocab_size):
                raise ValueError(
                    f"{name}={value!r} must lie in the vocabulary, 0 to {config.vocab_size - 1} (vocab_size="
                    f"{config.vocab_size})"
                )


def check_heads(config: Any) -> None:
    """Every attention head has an even share of ``hidden_size``."""
    if config.num_attention_heads < 1 or config.hidden_size % (2 * config.num_attention_heads):
        raise ValueError(
            f"hidden_size={config.hidden_size} must be an even multiple of num_attention_heads="
            f"{config.num_attention_heads}: rotary embedding needs an even head size; change either"
        )


def check_substrate(config: Any) -> None:
    """The bits of a token, projected or repeated, make a vector of ``hidden_size`` numbers."""
    if config.substrate_bits <= 0 or config.substrate_bits % 8:
        raise ValueError(f"substrate_bits={config.substrate_bits} must be a positive multiple of 8")
    if config.substrate_bits < config.hidden_size and config.hidden_size % config.substrate_bits:
        raise ValueError(
            f"substrate_bits={config.substrate_bits} below hidden_size={config.hidden_size} must divide it, "
            "because each bit is repeated; choose a divisor"
        )
    if config.substrate_rotated and config.substrate_bits > config.hidden_size:
        raise ValueError(
            f"substrate_rotated=True needs substrate_bits={config.substrate_bits} to be at most hidden_size="
            f"{config.hidden_size}: more bits are always projected; leave it out"
        )
    if config.substrate_whitened and not (config.substrate_rotated or config.substrate_bits > config.hidden_size):
        raise ValueError(
            f"substrate_whitened=True needs a projection: substrate_bits={config.substrate_bits} above hidden_size="
            f"{config.hidden_size}, or substrate_rotated=True; set either"
        )


def check_dtype(name: Any) -> None:
    """``name`` is None, or a dtype of torch or its name."""
    import torch

    if isinstance(name, str) and not isinstance(getattr(torch, name, None), torch.dtype):
        raise ValueError(f"dtype={name!r} must be one of float32, bfloat16, float16 or another dtype of torch")


def check_activation(name: str) -> None:
    """``name`` is one of transformers' activation functions."""
    from transformers.activations import ACT2CLS

    if name not in ACT2CLS:
        raise ValueError(f"hidden_act={name!r} must be one of {', '.join(ACT2CLS)}{nearest_of(name, ACT2CLS)}")


def check_rope(rope: dict[str, Any], head_size: int) -> None:
    """``rope`` is of a known kind, has the fields that this kind needs, and holds numbers in them."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind, kinds = rope.get("rope_type"), ("default", *ROPE_INIT_FUNCTIONS)
    if not isinstance(kind, str) or kind not in kinds:
        allowed = f"{', '.join(kinds)}{nearest_of(kind, kinds)}"
        raise ValueError(f"rope_parameters.rope_type={kind!r} must be one of {allowed}")
    for name in ROPE_NEEDS.get(kind, ()):
        if rope.get(name) is None:
            raise ValueError(
                f"rope_parameters.{name} is missing; rope_type={kind!r} needs {', '.join(ROPE_NEEDS[kind])}"
                f"{nearest_of(name, [key for key in rope if key not in ('rope_type', *ROPE_LEAST)])}"
            )
    for name, (least, included) in ROPE_LEAST.items():
        value = rope.get(name)
        if value is not None and not (is_number(value) and (value > least or (included and value == least))):
            raise ValueError(f"rope_parameters.{name}={value!r} must be a number {at_least(least, included)}")
    for name in ("short_factor", "long_factor"):
        value = rope.get(name)
        listed = isinstance(value, list) and len(value) == head_size // 2 and all(is_number(n) and n > 0 for n in value)
        if value is not None and not listed:
            raise ValueError(
                f"rope_parameters.{name}={value!r} must be a list of {head_size // 2} numbers above 0, half the head "
                "size"
            )
    low, high = rope.get("low_freq_factor"), rope.get("high_freq_factor")
    if low is not None and high is not None and high <= low:
        raise ValueError(f"rope_parameters.high_freq_factor={high!r} must be above low_freq_factor={low!r}")
    partial = rope.get("partial_rotary_factor")
    if partial not in (None, 1) and kind != "proportional":
        raise ValueError(f"rope_parameters.partial_rotary_factor={partial!r} must be 1: all of a head is rotated")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def at_least(least: float, included: bool) -> str:
    return f"of at least {least}" if included else f"above {least}"


def check_ladder(ladder: list[int]) -> None:
    """Blocks after each stage: whole numbers that never fall."""
    counts = [0, *ladder]
    if any(not below <= blocks <= MOST_LAYERS for below, blocks in zip(counts, ladder, strict=False)) or 0 in ladder:
        raise ValueError(f"ladder={ladder} must hold numbers of blocks from 1 to {MOST_LAYERS} that never fall")


def check_rates(rates: list[float]) -> None:
    """Probabilities of a switch: at least one."""
    if not 1 <= len(rates) <= MOST_RATES or not all(is_number(rate) and 0 <= rate <= 1 for rate in rates):
        raise ValueError(f"switching_rates={rates} must hold 1 to {MOST_RATES} numbers from 0 to 1")

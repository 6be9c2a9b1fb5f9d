"""Numbers of one floating type as those of another, from bytes to bytes, rounded as torch rounds; without torch."""

import numpy as np

from frozen_glyph.errors import FrozenGlyphError

STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # what torch and recipes call a type -> what files do
NAMES = {"F64": "float64", **{stored: name for name, stored in STORED.items()}}
ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
INTEGERS = ("U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "BOOL")  # bits of a substrate: never converted
QUIET_NAN = 0x7FC0


def convert(raw: np.ndarray, source: str, target: str) -> np.ndarray:
    """Numbers of type ``source``, uint8 [rows, bytes], as type ``target``, uint8 [rows, other bytes].

    Rounded to nearest, ties to even, by way of float32; infinities and not-a-numbers stay what they are.

    Raises:
        FrozenGlyphError: a finite number is beyond ``target``.
    """
    with np.errstate(over="ignore"):
        single = to_single(raw, source)
        found = from_single(single, target)
    given = raw.view(np.float64) if source == "F64" else single
    if (beyond := np.isfinite(given) & np.isinf(to_single(found, target))).any():
        raise FrozenGlyphError(f"{float(given[beyond][0])!r} is beyond {NAMES[target]}; choose another dtype")
    return found


def holds_nan(raw: np.ndarray, dtype: str) -> bool:
    """Whether something among numbers of type ``dtype``, uint8 [rows, bytes], is no number; of others it cannot be.

    It costs a twentieth of hashing them.
    """
    if not raw.size:
        return False
    if dtype in ("F32", "F64"):
        return bool(np.isnan(raw.view(np.float32 if dtype == "F32" else np.float64).max()))
    infinity = {"BF16": 0x7F80, "F16": 0x7C00}.get(dtype)
    return infinity is not None and bool((raw.view(np.uint16) & np.uint16(0x7FFF)).max() > infinity)


def to_single(raw: np.ndarray, source: str) -> np.ndarray:
    """float32 [rows, numbers]."""
    if source == "BF16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return raw.view({"F64": np.float64, "F32": np.float32, "F16": np.float16}[source]).astype(np.float32)


def from_single(single: np.ndarray, target: str) -> np.ndarray:
    """uint8 [rows, bytes] of float32 [rows, numbers]."""
    if target == "BF16":
        bits = single.view(np.uint32)
        rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
        return np.where(np.isnan(single), np.uint16(QUIET_NAN), rounded).view(np.uint8)
    return single.astype({"F32": np.float32, "F16": np.float16}[target]).view(np.uint8)

"""Substrates that are codes, not pictures: the token's id in binary, or random bits (arXiv 2507.04886, 2605.09751).

With a centre of one half, a bit becomes -1 or +1 in the vector before normalisation.

Shapes: V vocabulary, S substrate bits.
"""

import hashlib

import numpy as np


def binary_bits(vocab_size: int) -> int:
    """Bits that number ``vocab_size`` ids, in whole bytes: 16 for 65,536."""
    return max(8, -(-(vocab_size - 1).bit_length() // 8) * 8)


def binary_code(vocab_size: int, bits: int) -> np.ndarray:
    """Each id in binary, most significant bit first, uint8 [V, S // 8]."""
    ids = np.arange(vocab_size, dtype=">u8").view(np.uint8).reshape(vocab_size, 8)
    leading = np.zeros((vocab_size, max(0, bits // 8 - 8)), dtype=np.uint8)
    return np.concatenate([leading, ids], axis=1)[:, -(bits // 8) :]


def random_code(vocab_size: int, bits: int, seed: int) -> np.ndarray:
    """Bits that follow from ``seed`` alone, the same on every machine, uint8 [V, S // 8]."""
    stream = hashlib.shake_256(f"frozen_glyph random code {seed}".encode()).digest(vocab_size * bits // 8)
    return np.frombuffer(bytearray(stream), dtype=np.uint8).reshape(vocab_size, bits // 8)

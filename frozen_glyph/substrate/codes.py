"""Substrates that are codes, not pictures: the token's id in binary, or random bits (arXiv 2507.04886, 2605.09751).

With a centre of one half, a bit becomes -1 or +1 in the vector before normalisation. A rotation makes numbers of any
size of them and changes no distance. The published ``float`` codes are such bits turned to their principal components:
bits drawn at random have none but by chance, and all 65,536 codes of 16 bits have none at all, so here chance alone, by
the seed, chooses the rotation.

Shapes: V vocabulary, S substrate bits.
"""

import hashlib

import numpy as np
import torch

from frozen_glyph.substrate.choices import binary_bits
from frozen_glyph.substrate.projection import one_thread


def binary_code(vocab_size: int, bits: int, seed: int = 0) -> np.ndarray:
    """Each id in binary, most significant bit first, uint8 [V, S // 8]; ``seed`` changes nothing."""
    ids = np.arange(vocab_size, dtype=">u8").view(np.uint8).reshape(vocab_size, 8)
    leading = np.zeros((vocab_size, max(0, bits // 8 - 8)), dtype=np.uint8)
    return np.concatenate([leading, ids], axis=1)[:, -(bits // 8) :]


def random_code(vocab_size: int, bits: int, seed: int) -> np.ndarray:
    """Bits that follow from ``seed`` alone, the same on every machine, uint8 [V, S // 8]."""
    stream = hashlib.shake_256(f"frozen_glyph random code {seed}".encode()).digest(vocab_size * bits // 8)
    return np.frombuffer(bytearray(stream), dtype=np.uint8).reshape(vocab_size, bits // 8)


def named_code(name: str, bits: int) -> np.ndarray:
    """Bits that follow from ``name`` alone, far from those of any other name, uint8 [S // 8]."""
    return np.frombuffer(
        hashlib.shake_256(f"frozen_glyph named code {name}".encode()).digest(bits // 8), dtype=np.uint8
    )


def float_code(vocab_size: int, bits: int, seed: int) -> np.ndarray:
    """The bits that layout ``float`` rotates: random, or the id in binary where they are too few to be unique else."""
    return random_code(vocab_size, bits, seed) if bits > binary_bits(vocab_size) else binary_code(vocab_size, bits)


def random_rotation(bits: int, seed: int) -> torch.Tensor:
    """An orthogonal matrix that follows from ``seed`` alone, float64 [S, S]: the Q of a random matrix's QR."""
    stream = hashlib.shake_256(f"frozen_glyph random rotation {seed}".encode()).digest(bits * bits)
    numbers = torch.frombuffer(bytearray(stream), dtype=torch.int8).reshape(bits, bits).double()
    with one_thread():
        rotation, triangle = torch.linalg.qr(numbers)
    return rotation * triangle.diagonal().sign()  # the QR is then the only one

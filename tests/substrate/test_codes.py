"""Codes: the id in binary and seeded random bits, through to vectors."""

import hashlib

import numpy as np
import pytest
import torch

from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.codes import binary_bits, binary_code, random_code


@pytest.mark.parametrize(("vocab_size", "bits"), [(2, 8), (256, 8), (257, 16), (65_536, 16), (65_537, 24)])
def test_bits_that_number_a_vocabulary(vocab_size, bits):
    assert binary_bits(vocab_size) == bits


@pytest.mark.parametrize("bits", [16, 24, 128])
def test_binary_code_is_the_id(bits):
    rows = binary_code(700, bits)
    assert rows.shape == (700, bits // 8)
    assert [int.from_bytes(row.tobytes(), "big") for row in rows] == list(range(700))


def test_random_code_follows_from_its_seed():
    rows = random_code(300, 64, seed=1)
    np.testing.assert_array_equal(rows[:100], random_code(100, 64, seed=1))
    assert not np.array_equal(rows, random_code(300, 64, seed=2))
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "13d5921acc476891"
    assert abs(np.unpackbits(rows).mean() - 0.5) < 0.02


def test_binary_vectors_are_repeated_signs(tokenizer, tmp_path):
    substrate = GlyphSubstrate.build(tokenizer, width=64, layout="binary")
    assert (substrate.bits, substrate.width, substrate.provenance["font"]) == (16, 64, None)
    vectors = substrate.as_embedding()(torch.arange(380))
    signs = torch.tensor(
        [[1.0 if token_id >> bit & 1 else -1.0 for bit in range(15, -1, -1)] for token_id in range(380)]
    )
    assert torch.equal(vectors, signs.repeat_interleave(4, dim=1) / 8)
    assert substrate.provenance["smallest_distance"] == 0.5
    substrate.save_pretrained(tmp_path)
    loaded = GlyphSubstrate.from_pretrained(tmp_path)
    assert loaded.width == 64 and loaded.fingerprint == substrate.fingerprint
    assert torch.equal(loaded.as_embedding().weight, vectors)


def test_random_vectors_are_signs_or_projected(tokenizer):
    full = GlyphSubstrate.build(tokenizer, layout="random", seed=3)
    assert (full.as_embedding().weight.abs() == 1 / 32).all()
    assert full.provenance["seed"] == 3 and full.provenance["collisions"]["remaining"] == 0
    other = GlyphSubstrate.build(tokenizer, layout="random", seed=4)
    assert other.fingerprint != full.fingerprint
    narrow = GlyphSubstrate.build(tokenizer, width=64, layout="random", seed=3)
    assert narrow.projection.shape == (1024, 64)
    np.testing.assert_allclose(narrow.as_embedding().weight, narrow.reference_vectors(np.arange(380)), atol=1e-7)

"""Codes: the id in binary and seeded random bits, through to vectors."""

import hashlib

import numpy as np
import pytest
import torch

from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.choices import binary_bits
from frozen_glyph.substrate.codes import binary_code, random_code, random_rotation
from frozen_glyph.substrate.projection import to_int8


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


@pytest.mark.parametrize("bits", [16, 64])
def test_float_vectors_are_rotated_codes(tokenizer, tmp_path, bits):
    substrate = GlyphSubstrate.build(tokenizer, width=128, layout="float", bits=bits, seed=3)
    code = GlyphSubstrate.build(tokenizer, width=128, layout="random" if bits == 64 else "binary", bits=bits, seed=3)
    assert torch.equal(substrate.packed_bits, code.packed_bits)
    assert (substrate.rotated, substrate.width, substrate.projection.shape) == (True, 128, (bits, bits))
    vectors = substrate.as_embedding()(torch.arange(380))
    np.testing.assert_allclose(vectors, substrate.reference_vectors(np.arange(380)), atol=1e-7)
    assert torch.equal(vectors, vectors[:, :: 128 // bits].repeat_interleave(128 // bits, dim=1))
    assert len(vectors.unique()) > 100  # where signs have two values
    signs = code.as_embedding()(torch.arange(380))
    torch.testing.assert_close(vectors @ vectors.T, signs @ signs.T, atol=0.02, rtol=0)
    substrate.save_pretrained(tmp_path)
    loaded = GlyphSubstrate.from_pretrained(tmp_path)
    assert (loaded.width, loaded.rotated, loaded.fingerprint) == (128, True, substrate.fingerprint)
    assert torch.equal(loaded.as_embedding().weight, vectors)
    other = GlyphSubstrate.build(tokenizer, width=128, layout="float", bits=bits, seed=4)
    assert other.fingerprint != substrate.fingerprint


def test_float_vectors_narrower_than_their_bits(tokenizer):
    narrow = GlyphSubstrate.build(tokenizer, width=64, layout="float", seed=3)
    assert (narrow.rotated, narrow.width, narrow.projection.shape) == (False, 64, (1024, 64))


def test_a_rotation_follows_from_its_seed():
    rotation = random_rotation(64, seed=1)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(64, dtype=torch.float64))
    assert torch.equal(rotation, random_rotation(64, seed=1))
    assert not torch.equal(rotation, random_rotation(64, seed=2))
    assert hashlib.sha256(to_int8(rotation).numpy().tobytes()).hexdigest()[:16] == "8eece1d1dd43c669"

"""Integer projection against numpy: centre, principal directions, exactness, distinctness."""

import numpy as np
import pytest
import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding
from frozen_glyph.substrate import projection as P


@pytest.fixture
def bits():
    generator = np.random.default_rng(0)
    blocks = generator.random((40, 8, 8)) < 0.4  # correlated bits, so that the leading directions are well apart
    mixed = blocks[generator.integers(40, size=700)].repeat(2, axis=1).reshape(700, 128)
    return mixed ^ (generator.random((700, 128)) < np.linspace(0.01, 0.3, 128))


@pytest.fixture
def packed(bits):
    return torch.from_numpy(np.packbits(bits, axis=1))


def test_center_and_covariance_equal_numpys(bits, packed):
    np.testing.assert_array_equal(P.bit_center(packed).numpy(), np.round(16 * bits.mean(axis=0)))
    np.testing.assert_allclose(P.bit_covariance(packed).numpy(), np.cov(bits.T, bias=True), atol=1e-12)


def test_chunks_do_not_matter(packed, monkeypatch):
    center, covariance = P.bit_center(packed), P.bit_covariance(packed)
    monkeypatch.setattr(P, "CHUNK", 33)
    monkeypatch.setattr(P, "BLOCK", 33)
    assert torch.equal(P.bit_center(packed), center) and torch.equal(P.bit_covariance(packed), covariance)


def test_directions_are_those_of_a_singular_value_decomposition(bits, packed):
    directions = P.principal_directions(P.bit_covariance(packed))[0].numpy()
    np.testing.assert_allclose(directions.T @ directions, np.eye(128), atol=1e-9)
    _, _, rows = np.linalg.svd(bits - bits.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs((directions[:, :8] * rows[:8].T).sum(axis=0)), 1, atol=1e-6)
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(128)]
    assert (largest > 0).all()


def test_directions_without_variance_are_zero(packed):
    few = packed[:10]
    directions = P.principal_directions(P.bit_covariance(few))[0]
    assert (directions[:, 9:] == 0).all() and (directions[:, :9].norm(dim=0) > 0.99).all()


def test_int8_projection_keeps_the_directions(packed):
    directions = P.principal_directions(P.bit_covariance(packed))[0][:, :16]
    rounded = P.to_int8(directions)
    assert rounded.dtype == torch.int8 and rounded.abs().max() == 127
    cosines = torch.nn.functional.cosine_similarity(rounded.double(), directions, dim=0)
    assert (cosines > 0.999).all()


def test_sums_that_float32_cannot_hold_are_refused():
    center = torch.zeros(2**14, dtype=torch.uint8)
    P.check_exact(center, None)
    P.check_exact(center[:1024], torch.full((1024, 8), -127, dtype=torch.int8))
    with pytest.raises(FrozenGlyphError, match="exact float32"):
        P.check_exact(center, torch.full((2**14, 1), 127, dtype=torch.int8))


def embedding_of(packed):
    embedding = FrozenGlyphEmbedding(len(packed), 128, 128)
    embedding.packed_bits, embedding.center = packed, P.bit_center(packed)
    return embedding


def test_repeated_vectors_are_found(packed):
    unique = torch.unique(packed, dim=0)
    assert P.first_repeat(embedding_of(unique)) is None
    assert P.first_repeat(embedding_of(torch.cat([unique, unique[5:6]]))) == (5, len(unique))


@pytest.fixture
def projected(packed):
    """16 whitened numbers of distinct tokens, of which the last one repeats the bits of token 5."""
    unique = torch.unique(packed, dim=0)
    embedding = embedding_of(torch.cat([unique, unique[5:6]]))
    directions, variances = P.principal_directions(P.bit_covariance(embedding.packed_bits))
    embedding.projection, embedding.gain = P.whitened(directions[:, :16], variances, power=1.0)
    embedding.embedding_dim = 16
    return embedding


def test_first_numbers_are_those_of_the_vectors(projected, monkeypatch):
    """Tabulated by byte they are the same integers, gains apart, however many of them there are."""
    ids = torch.tensor([3, 0, 5])
    expected = projected.integers(ids) / projected.gain
    assert torch.equal(P.first_numbers(projected, ids), expected)
    monkeypatch.setattr(P, "FIRST", 9)
    assert torch.equal(P.first_numbers(projected, ids), expected[:, :9])


def test_first_numbers_rule_out_no_repeat(projected):
    """Only vectors whose first numbers are nearly in the same ratio are compared: all that are equal are among them."""
    last = projected.num_embeddings - 1
    alike = P.alike_at_first(projected, torch.arange(last + 1)).tolist()
    assert {5, last} <= set(alike) and len(alike) < last / 2
    assert P.first_repeat(projected) == (5, last)


def test_vectors_of_one_direction_are_found_where_their_integers_differ(projected):
    """Lengths are made equal, so numbers twice as large are the same float32 vector."""
    projected.center = torch.zeros(128, dtype=torch.uint8)
    rows = torch.zeros(3, 128, dtype=torch.uint8)
    rows[0, :1], rows[1, :2], rows[2, 64:65] = 1, 1, 1
    projected.packed_bits = torch.from_numpy(np.packbits(rows.numpy(), axis=1))
    projected.num_embeddings = 3
    projected.projection[:2] = projected.projection[0]
    assert P.first_repeat(projected) == (0, 1)


def test_large_vocabularies_are_whitened_by_an_even_sample(packed, monkeypatch):
    assert P.sampled(packed) is packed
    monkeypatch.setattr(P, "SAMPLE", 100)
    assert torch.equal(P.sampled(packed), packed[::7])


def test_repeats_are_looked_for_among_the_given_ids(packed):
    unique = torch.unique(packed, dim=0)
    embedding = embedding_of(torch.cat([unique, unique[5:6]]))
    assert P.first_repeat(embedding, torch.arange(len(unique))) is None


def test_smallest_distance_tells_what_float32_cannot():
    """Two pairs whose float32 cosines are both 1: only the second is really the nearest."""
    angles = torch.tensor([0.0, 1.5e-4, 1.0, 1.0 + 1e-4], dtype=torch.float64)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1).float()
    exact = np.linalg.norm(vectors[2].double() - vectors[3].double())
    assert P.smallest_distance(vectors) == pytest.approx(exact, rel=1e-2)


def test_smallest_distance_against_all_pairs(packed, monkeypatch):
    vectors = embedding_of(torch.unique(packed, dim=0)).weight
    nearest = min(float((vectors[:row] - vectors[row]).double().norm(dim=1).min()) for row in range(1, len(vectors)))
    monkeypatch.setattr(P, "BLOCK", 100)
    assert P.smallest_distance(vectors) == pytest.approx(nearest, abs=1e-5)

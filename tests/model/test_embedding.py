"""The frozen substrate in the model: the vectors of the definition, the same bits in every batch, dtype and file."""

import numpy as np
import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding

BUFFERS = ("packed_bits", "center", "projection")
# Of vectors made from 32 bits: their width, and whether as many numbers are made of the bits first.
KINDS = {"repeated": (128, False), "identity": (32, False), "projected": (24, False)}
KINDS |= {"rotated": (32, True), "rotated and repeated": (128, True)}


def made_up_substrate(hidden_size: int, rotated: bool = False) -> FrozenGlyphEmbedding:
    generator = torch.Generator().manual_seed(hidden_size)
    embedding = FrozenGlyphEmbedding(50, hidden_size, 32, rotated)
    for buffer, low, high in (
        (embedding.packed_bits, 0, 256),
        (embedding.center, 0, 17),
        (embedding.projection, -127, 128),
    ):
        if buffer is not None:
            buffer.copy_(torch.randint(low, high, buffer.shape, generator=generator))
    return embedding


def vector_by_definition(embedding: FrozenGlyphEmbedding, token_id: int) -> list[float]:
    """One vector, bit by bit, in Python numbers."""
    byte_values = embedding.packed_bits[token_id].tolist()
    bits = [int(digit) for value in byte_values for digit in f"{value:08b}"]
    y = [16 * bit - center for bit, center in zip(bits, embedding.center.tolist(), strict=True)]
    if embedding.projection is not None:
        columns = embedding.projection.T.tolist()
        y = [sum(a * b for a, b in zip(y, column, strict=True)) for column in columns]
    y = [value for value in y for _ in range(max(1, embedding.embedding_dim // len(y)))]
    length = sum(value * value for value in y) ** 0.5
    return [value / length for value in y]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_follow_the_definition(kind):
    embedding = made_up_substrate(*KINDS[kind])
    expected = torch.tensor([vector_by_definition(embedding, token_id) for token_id in range(50)])
    torch.testing.assert_close(embedding(torch.arange(50)), expected, atol=1e-6, rtol=0)


def test_vectors_equal_those_of_the_artifact(substrate, build_model):
    ids = np.arange(substrate.vocab_size)
    vectors = build_model().substrate(torch.from_numpy(ids))
    assert vectors.dtype == torch.float32
    np.testing.assert_allclose(vectors.numpy(), substrate.reference_vectors(ids), atol=1e-7)


@pytest.mark.parametrize("shape", [(1,), (340,), (20, 17), (2, 5, 34), (340, 1)])
def test_same_bits_in_every_batch(build_model, shape):
    embedding = build_model().substrate
    one_by_one = torch.cat([embedding(torch.tensor([token_id])) for token_id in range(int(np.prod(shape)))])
    batch = embedding(torch.arange(len(one_by_one)).reshape(shape))
    assert batch.shape == (*shape, embedding.embedding_dim)
    assert torch.equal(batch.flatten(0, -2), one_by_one)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_changes_no_bit(kind):
    embedding, ids = made_up_substrate(*KINDS[kind]), torch.arange(50)
    expected = embedding(ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedding(ids), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("materialized", [False, True])
def test_casting_the_model_changes_no_bit(build_model, token_ids, dtype, materialized):
    model, ids = build_model(), token_ids(2, 9)
    before, vectors = {name: getattr(model.substrate, name).clone() for name in BUFFERS}, model.substrate(ids)
    if materialized:
        model.substrate.materialize()
    model.to(dtype)
    for name in BUFFERS:
        stored = getattr(model.substrate, name)
        assert stored.dtype == before[name].dtype
        assert torch.equal(stored, before[name])
    assert torch.equal(model.substrate(ids), vectors)
    assert model(ids).logits.dtype == dtype


def test_half_and_double_change_no_bit(build_model):
    model = build_model()
    before = model.substrate.fingerprint(None)
    assert model.half().double().float().substrate.fingerprint(None) == before


def test_materialised_equals_computed(build_model, token_ids):
    model, ids = build_model(), token_ids(3, 11)
    computed, logits, weight = model.substrate(ids), model(ids).logits, model.substrate.weight
    model.substrate.materialize()
    assert torch.equal(model.substrate(ids), computed)
    assert torch.equal(model.substrate.weight, weight)
    assert torch.equal(model(ids).logits, logits)
    assert "model.embed_tokens.table" not in model.state_dict()


def test_no_two_tokens_share_a_vector(build_model, substrate):
    vectors = build_model().substrate.weight
    assert len({row.tobytes() for row in vectors.numpy()}) == len(vectors)
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((len(vectors),), substrate.scale))


def test_same_bits_after_saving_and_loading(build_model, tmp_path):
    model = build_model()
    model.save_pretrained(tmp_path)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        loaded = FrozenGlyphForCausalLM.from_pretrained(tmp_path, dtype=dtype)
        assert loaded.dtype == dtype
        for name in BUFFERS:
            assert torch.equal(getattr(loaded.substrate, name), getattr(model.substrate, name))


def test_the_fingerprint_sees_every_part():
    embedding = made_up_substrate(24)
    seen = {embedding.fingerprint(None), embedding.fingerprint("another tokenizer")}
    for name in BUFFERS:
        changed = made_up_substrate(24)
        getattr(changed, name).view(-1)[7] ^= 1
        seen.add(changed.fingerprint(None))
    assert len(seen) == 5
    assert made_up_substrate(24).fingerprint(None) == embedding.fingerprint(None)

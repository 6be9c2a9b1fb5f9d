"""Whitened pictures: equal variances, equal lengths, and everything that a frozen substrate promises."""

import numpy as np
import pytest
import torch

from frozen_glyph import (
    FrozenGlyphConfig,
    FrozenGlyphForCausalLM,
    FrozenGlyphMoEForCausalLM,
    GlyphSubstrate,
    extract_expert,
    merge_experts,
)
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding
from frozen_glyph.substrate import load_font
from frozen_glyph.substrate import projection as P
from frozen_glyph.substrate.choices import LAYOUTS, choose_whitening

WIDTH = 48


@pytest.fixture(scope="module")
def font(font_file):
    return load_font(font_file)


@pytest.fixture(scope="module")
def whitened(tokenizer, font):
    return GlyphSubstrate.build(tokenizer, WIDTH, font=font, whiten="full", scale=4)


def make_model(substrate: GlyphSubstrate, seed: int) -> FrozenGlyphForCausalLM:
    """One block on ``substrate``."""
    torch.manual_seed(seed)
    config = FrozenGlyphConfig(
        vocab_size=substrate.vocab_size, hidden_size=substrate.width, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=8, substrate_bits=substrate.bits, **substrate.geometry,
        substrate_fingerprint=substrate.fingerprint, tokenizer_sha256=substrate.provenance["tokenizer_sha256"],
    )  # fmt: skip
    model = FrozenGlyphForCausalLM(config)
    model.substrate.load_state_dict(substrate.as_embedding().state_dict())
    return model.eval()


def component_spread(substrate: GlyphSubstrate) -> float:
    """Largest over smallest deviation of the components, before lengths are made equal."""
    deviations = substrate.as_embedding().integers(torch.arange(substrate.vocab_size)).std(dim=0)
    return float(deviations.max() / deviations.min())


def test_components_are_divided_by_their_deviation(tokenizer, font, whitened):
    plain, partial = (GlyphSubstrate.build(tokenizer, WIDTH, font=font, whiten=power) for power in ("none", "partial"))
    assert component_spread(whitened) < 1.1
    assert component_spread(partial) == pytest.approx(component_spread(plain) ** 0.5, rel=0.1)
    assert torch.equal(whitened.packed_bits, plain.packed_bits)  # the pictures are the same


def test_vectors_are_those_of_the_definition_and_as_long_as_asked(whitened):
    ids = np.arange(whitened.vocab_size)
    vectors = whitened.as_embedding()(torch.from_numpy(ids))
    np.testing.assert_allclose(vectors.numpy(), whitened.reference_vectors(ids), atol=1e-6)
    np.testing.assert_allclose(vectors.norm(dim=1).numpy(), 4, rtol=1e-6)


def test_gains_are_powers_of_two_and_bounded():
    """A direction that hardly varies is drawn by few tokens: its gain over the first one's ends at a limit."""
    variances = torch.tensor([100.0, 1.0, 1e-6, 0.0], dtype=torch.float64)
    directions = torch.eye(4, dtype=torch.float64) * (variances > 0)
    projection, gain = P.whitened(directions, variances, power=1.0)
    assert projection.dtype == torch.int8 and gain.dtype == torch.int32
    assert gain.log2().frac().eq(0).all() and (projection[:, 3] == 0).all()
    reached = projection.double().diagonal() * gain
    assert reached[1] / reached[0] == pytest.approx(10, rel=0.01)
    assert reached[2] / reached[0] == pytest.approx(P.LARGEST_GAIN, rel=0.01)


def test_same_bits_in_every_batch_dtype_and_order(whitened):
    embedding = whitened.as_embedding()
    expected = embedding.compute(torch.arange(whitened.vocab_size))
    one_by_one = torch.cat([embedding.compute(torch.tensor([token])) for token in range(50)])
    assert torch.equal(one_by_one, expected[:50])
    assert torch.equal(embedding.to(torch.bfloat16).to(torch.float32).weight, expected)
    integers = embedding.integers(torch.arange(whitened.vocab_size)).double()
    assert torch.equal(integers.flip(1).square().sum(1), integers.square().sum(1))


def test_no_squares_exceed_their_bound(whitened, tokenizer, font):
    """What is refused is a bound of them, which few vectors come near."""
    for substrate in (whitened, GlyphSubstrate.build(tokenizer, 2048, font=font, bits=1024)):
        embedding = substrate.as_embedding()
        largest = embedding.integers(torch.arange(substrate.vocab_size)).double().square().sum(-1).max()
        assert largest <= P.largest_squares(embedding) < P.EXACT_SQUARES


def test_the_published_size_stays_small():
    """65,536 tokens of 1,024 numbers in 9.5 MB; as float32 they take 268."""
    with torch.device("meta"):
        embedding = FrozenGlyphEmbedding(0x10000, 1024, 1024, rotated=True, whitened=True)
    assert sum(buffer.nbytes for buffer in embedding.buffers()) <= 9.5e6


def test_pictures_of_1024_bits_are_whitened_unless_asked_otherwise():
    assert choose_whitening("grid", None, 1024) == "full"
    assert choose_whitening("grid", None, 4096) == choose_whitening("grid", "none", 1024) == "none"
    assert {choose_whitening(layout, None, 1024) for layout in LAYOUTS if layout != "grid"} == {"none"}


def test_squares_that_float64_cannot_hold_are_refused(whitened):
    embedding = whitened.as_embedding()
    embedding.gain *= 2**20
    with pytest.raises(FrozenGlyphError, match=r"squares of substrate vectors reach .* less than 2\*\*53"):
        P.check_squares(embedding)


def test_geometry_is_part_of_the_identity(tokenizer, font, whitened):
    others = [{"whiten": "full"}, {"whiten": "partial", "scale": 4}, {"whiten": "none", "scale": 4}, {"whiten": "none"}]
    built = [GlyphSubstrate.build(tokenizer, WIDTH, font=font, **other) for other in others]
    assert len({whitened.fingerprint, *(other.fingerprint for other in built)}) == 5


@pytest.mark.parametrize("width", [WIDTH, 1024, 2048])
def test_a_model_keeps_it_through_its_folder(tokenizer, font, tmp_path, width):
    """Projected, rotated and repeated."""
    substrate = GlyphSubstrate.build(tokenizer, width, font=font, whiten="full")
    substrate.save_pretrained(tmp_path / "glyphs")
    assert GlyphSubstrate.from_pretrained(tmp_path / "glyphs").fingerprint == substrate.fingerprint
    make_model(substrate, seed=0).save_pretrained(tmp_path / "model")
    loaded = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "model")  # which checks the fingerprint
    assert torch.equal(loaded.substrate.weight, substrate.as_embedding().weight)


def test_experts_on_it_merge_and_come_apart(whitened, tmp_path):
    models = [make_model(whitened, seed) for seed in (0, 1)]
    for name, model in zip("ab", models, strict=True):
        model.save_pretrained(tmp_path / name)
        whitened.save_pretrained(tmp_path / name)
    merge_experts([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    extract_expert(tmp_path / "merged", "b", tmp_path / "again")
    ids = torch.arange(40, 60).view(2, 10)
    with torch.no_grad():
        merged = FrozenGlyphMoEForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
        again = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "again")(ids).logits
        first, second = (model(ids).logits for model in models)
    torch.testing.assert_close(merged, (first + second) / 2)
    assert torch.equal(again, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"whiten": "half"}, "whiten='half' is not known; allowed: none, partial, full"),
        (
            {"layout": "random", "whiten": "full", "font": None},
            "layout 'random' is a code, which has nothing to whiten",
        ),
        ({"scale": 0}, "scale=0 is not allowed; give a positive length"),
        ({"scale": float("nan")}, "scale=nan is not allowed"),
    ],
)
def test_refusals(tokenizer, font, options, message):
    with pytest.raises(FrozenGlyphError, match=message):
        GlyphSubstrate.build(tokenizer, WIDTH, **({"font": font} | options))


def test_configurations_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="substrate_whitened=True needs a projection"):
        FrozenGlyphConfig(substrate_whitened=True)
    with pytest.raises(ValueError, match="substrate_scale=-1 must be a positive length"):
        FrozenGlyphConfig(substrate_scale=-1)

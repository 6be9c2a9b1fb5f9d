"""The substrate folder: same input same bytes, vectors by the definition, damage refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.model.embedding_frozen_glyph import substrate_fingerprint
from frozen_glyph.substrate import GlyphSubstrate, build_tokenizer
from frozen_glyph.substrate.choices import choose_bits
from frozen_glyph.substrate.font import DOWNLOAD_SHA256
from frozen_glyph.substrate.vocabulary import tokenizer_sha256


@pytest.fixture(
    scope="module", params=[(64, "none"), (None, "none"), (None, None)], ids=["plain64", "plain", "default"]
)
def substrate(request, tokenizer, font):
    width, whiten = request.param
    return GlyphSubstrate.build(tokenizer, width=width, font=font, whiten=whiten)


@pytest.fixture
def folder(substrate, tmp_path):
    substrate.save_pretrained(tmp_path)
    return tmp_path


def test_shapes_and_types(substrate):
    assert substrate.packed_bits.shape == (380, 128) and substrate.packed_bits.dtype == torch.uint8
    assert substrate.center.shape == (1024,) and substrate.center.dtype == torch.uint8
    assert substrate.center.max() <= 16
    if substrate.projection is None:
        assert (substrate.width, substrate.gain) == (1024, None)
    else:
        assert substrate.projection.shape == (1024, substrate.width) and substrate.projection.dtype == torch.int8


def test_bits_are_packed_row_by_row_high_bit_first(substrate, tokenizer, font):
    token_id = tokenizer.get_vocab()["猫"]
    expected = np.zeros((32, 32), dtype=bool)
    expected[:16, :16] = font.glyph(ord("猫"))
    np.testing.assert_array_equal(substrate.bitmaps([token_id])[0], expected)
    first_pixels = [(int(substrate.packed_bits[token_id, 0]) >> (7 - bit)) & 1 for bit in range(8)]
    assert first_pixels == expected[0, :8].astype(int).tolist()


def test_model_embedding_equals_the_reference(substrate):
    ids = torch.arange(380)
    vectors = substrate.as_embedding()(ids).numpy()
    reference = substrate.reference_vectors(ids)
    np.testing.assert_allclose(vectors, reference, atol=1e-7 * substrate.scale)
    np.testing.assert_allclose(np.linalg.norm(reference, axis=1), substrate.scale)
    one_by_one = torch.cat([substrate.as_embedding()(ids[i : i + 1]) for i in range(0, 380, 7)]).numpy()
    np.testing.assert_array_equal(one_by_one, vectors[::7])


def test_no_two_tokens_share_a_vector(substrate):
    vectors = substrate.reference_vectors(np.arange(380)) / substrate.scale
    nearest = min(np.linalg.norm(vectors[:row] - vectors[row], axis=1).min() for row in range(1, 380))
    assert nearest == pytest.approx(substrate.provenance["smallest_distance"], abs=1e-4)
    assert nearest > 0.01


def test_provenance_records_font_tokenizer_layout_and_collisions(substrate, font, tokenizer):
    provenance = substrate.provenance
    assert provenance["font"] == {"name": "tiny.hex", "sha256": font.sha256, "upper": None}
    assert (
        provenance["layout"] == "grid"
        and provenance["bits"] == 1024
        and provenance["tokenizer_sha256"] == tokenizer_sha256(tokenizer)
    )
    collisions = provenance["collisions"]
    assert collisions["groups"] == len(collisions["first_groups"]) >= 3 and collisions["remaining"] == 0
    assert {"a", "а"} in [{text for _, text in group} for group in collisions["first_groups"]]


def test_folder_loads_as_it_was_saved(substrate, folder):
    loaded = GlyphSubstrate.from_pretrained(folder)
    assert loaded.fingerprint == substrate.fingerprint
    assert torch.equal(loaded.packed_bits, substrate.packed_bits) and torch.equal(loaded.center, substrate.center)
    assert loaded.provenance == substrate.provenance
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == substrate.tokenizer.get_vocab()
    with safe_open(folder / "substrate.safetensors", framework="pt") as file:
        names = {"packed_bits", "center"} | {
            name for name in ("projection", "gain") if getattr(substrate, name) is not None
        }
        assert set(file.keys()) == {f"model.embed_tokens.{name}" for name in names}
        assert file.metadata()["format"] == "pt"


def test_two_builds_write_the_same_bytes(substrate, folder, texts, font, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    whiten = substrate.provenance.get("whiten", "none")
    again = GlyphSubstrate.build(build_tokenizer(texts, 380), width=substrate.width, font=font, whiten=whiten)
    again.save_pretrained(other)
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["substrate.json", "substrate.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in files:
        assert (other / name).read_bytes() == (folder / name).read_bytes(), name


def test_fingerprint_sees_every_part(substrate):
    def fingerprint(**changed):
        parts = {
            "packed_bits": substrate.packed_bits,
            "center": substrate.center,
            "projection": substrate.projection,
            "tokenizer_sha256": tokenizer_sha256(substrate.tokenizer),
            "gain": substrate.gain,
            "scale": substrate.scale,
        }
        return substrate_fingerprint(**{**parts, **changed})

    bits, center = substrate.packed_bits.clone(), substrate.center.clone()
    bits[7, 7] ^= 1
    center[0] += 1
    fingerprints = {
        fingerprint(),
        fingerprint(packed_bits=bits),
        fingerprint(center=center),
        fingerprint(projection=torch.ones(1024, 8, dtype=torch.int8)),
        fingerprint(tokenizer_sha256="0"),
    }
    assert substrate.fingerprint == fingerprint() and len(fingerprints) == 5


def test_a_changed_bit_is_refused_with_both_fingerprints(substrate, folder):
    path = folder / "substrate.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(FrozenGlyphError, match=r"substrate\.safetensors") as error:
        GlyphSubstrate.from_pretrained(folder)
    assert substrate.fingerprint in str(error.value) and str(error.value).count("sha256:") == 2


def test_a_changed_tokenizer_is_refused_by_name(folder):
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text())
    state["model"]["merges"].pop()
    path.write_text(json.dumps(state))
    with pytest.raises(FrozenGlyphError, match=r"tokenizer\.json.*sha256:.*sha256:"):
        GlyphSubstrate.from_pretrained(folder)


@pytest.mark.parametrize("name", ["substrate.json", "substrate.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("keep", [0.0, 0.5, None], ids=["empty", "half", "missing"])
def test_truncated_and_missing_files_are_refused_by_name(folder, name, keep):
    path = folder / name
    data = path.read_bytes()
    path.unlink() if keep is None else path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(FrozenGlyphError, match=name.replace(".", r"\.")):
        GlyphSubstrate.from_pretrained(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FrozenGlyphError, match="nowhere"):
        GlyphSubstrate.from_pretrained(tmp_path / "nowhere")


def test_saving_over_an_older_folder(substrate, folder):
    shutil.copy(folder / "tokenizer_config.json", folder / "substrate.safetensors")
    substrate.save_pretrained(folder)
    assert GlyphSubstrate.from_pretrained(folder).fingerprint == substrate.fingerprint


def test_a_rotation_at_full_width_keeps_the_geometry(tokenizer, font, tmp_path):
    plain, rotated = (GlyphSubstrate.build(tokenizer, 1024, font=font, pca=pca, whiten="none") for pca in (False, True))
    assert torch.equal(rotated.packed_bits, plain.packed_bits) and rotated.fingerprint != plain.fingerprint
    assert (plain.rotated, rotated.rotated, rotated.projection.shape) == (False, True, (1024, 1024))
    before, after = (substrate.as_embedding().weight.double() for substrate in (plain, rotated))
    np.testing.assert_allclose(after.numpy(), rotated.reference_vectors(np.arange(380)), atol=1e-7)
    assert 0 < (before @ before.T - after @ after.T).abs().max() < 0.02
    variances = after.var(dim=0)
    assert variances[:8].min() > 4 * variances[64:].max()  # the leading components lead
    rotated.save_pretrained(tmp_path)
    assert GlyphSubstrate.from_pretrained(tmp_path).fingerprint == rotated.fingerprint


def test_a_model_on_a_rotated_substrate(tokenizer, font, tmp_path):
    substrate = GlyphSubstrate.build(tokenizer, 1024, font=font, pca=True, whiten="none")
    fields = {"vocab_size": 380, "hidden_size": 1024, "num_hidden_layers": 1, "intermediate_size": 8}
    identity = {"substrate_fingerprint": substrate.fingerprint, "tokenizer_sha256": tokenizer_sha256(tokenizer)}
    model = FrozenGlyphForCausalLM(FrozenGlyphConfig(**fields, **identity, substrate_rotated=substrate.rotated))
    model.substrate.load_state_dict(substrate.as_embedding().state_dict())
    model.save_pretrained(tmp_path)
    loaded = FrozenGlyphForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.substrate.weight, substrate.as_embedding().weight)


@pytest.mark.parametrize(("width", "bits"), [(2048, 1024), (3072, 1024), (4096, 4096)])
def test_widths_above_1024_repeat_or_draw_larger(tokenizer, font, tmp_path, width, bits):
    substrate = GlyphSubstrate.build(tokenizer, width=width, font=font, whiten="none")
    assert (substrate.bits, substrate.width, substrate.projection) == (bits, width, None)
    vectors = substrate.as_embedding()(torch.arange(380))
    np.testing.assert_allclose(vectors.numpy(), substrate.reference_vectors(np.arange(380)), atol=1e-7)
    np.testing.assert_array_equal(vectors[:, :: width // bits], vectors[:, width // bits - 1 :: width // bits])
    substrate.save_pretrained(tmp_path)
    assert GlyphSubstrate.from_pretrained(tmp_path).width == width


def test_bits_follow_from_the_width():
    """1,536 elements are neither fewer than 1024 bits nor a multiple of them, so they are projected from 4096."""
    assert choose_bits("grid", 1536, None, 380) == 4096
    assert choose_bits("grid", 1000, None, 380) == choose_bits("grid", 5120, None, 380) == 1024
    assert choose_bits("grid", 8192, None, 380) == choose_bits("grid", 256, 4096, 380) == 4096


@pytest.mark.parametrize("width", [0, 4, 100, 1500])
def test_widths_that_are_not_allowed(tokenizer, font, width):
    with pytest.raises(FrozenGlyphError, match=f"width {width} is not allowed"):
        GlyphSubstrate.build(tokenizer, width=width, font=font)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "gird"}, "layout 'gird' is unknown.*Did you mean 'grid'"),
        (
            {"layout": "trainable"},
            "layout 'trainable' is an embedding without a substrate.*substrate.layout in a growth",
        ),
        ({"width": 2048, "pca": True}, "pca rotates vectors no wider than their 1024 bits, not 2048"),
        ({"layout": "float", "pca": True}, "layout 'float' has a rotation of its own, so pca cannot be used"),
        ({"bits": 2048}, "bits=2048 is not allowed for layout 'grid'; give 1024 or 4096"),
        ({"layout": "binary", "bits": 8}, "bits=8 is not allowed: 380 tokens need a multiple of 8 bits from 16 on"),
        ({"layout": "binary", "width": 1000}, "width 1000 is not allowed for 16 bits"),
        ({"layout": "random", "bits": 16, "seed": 1}, "layout .random. with bits=16 gives tokens .* the same bits"),
    ],
)
def test_other_arguments_that_are_not_allowed(tokenizer, arguments, message):
    with pytest.raises(FrozenGlyphError, match=message):
        GlyphSubstrate.build(tokenizer, **arguments)


def test_a_code_needs_no_font(tokenizer, font):
    with pytest.raises(FrozenGlyphError, match=r"draws nothing, so font 'tiny\.hex' cannot be used"):
        GlyphSubstrate.build(tokenizer, layout="binary", font=font)


def test_a_wrong_width_in_the_description_is_refused(tokenizer, font, tmp_path):
    GlyphSubstrate.build(tokenizer, width=2048, font=font).save_pretrained(tmp_path)
    path = tmp_path / "substrate.json"
    path.write_text(path.read_text().replace('"width": 2048', '"width": 2050'))
    with pytest.raises(FrozenGlyphError, match="width 2050 is not allowed for 1024 bits"):
        GlyphSubstrate.from_pretrained(tmp_path)


def test_the_number_of_threads_leaves_no_trace(substrate, tokenizer, font):
    torch.set_num_threads(2)
    try:
        whiten = substrate.provenance.get("whiten", "none")
        other = GlyphSubstrate.build(tokenizer, width=substrate.width, font=font, whiten=whiten)
    finally:
        torch.set_num_threads(1)
    assert other.fingerprint == substrate.fingerprint and other.provenance == substrate.provenance


def test_a_published_recipe_keeps_its_substrate(unifont):
    """The demo tokenizer on Unifont 15.0.01, width 256: a changed fingerprint would orphan every trained model."""
    if unifont.sha256 != DOWNLOAD_SHA256:
        pytest.skip("the fingerprint is of Unifont 15.0.01")
    folder = Path(__file__).parents[2] / "hub_configs" / "tiny-trilingual"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    substrate = GlyphSubstrate.build(tokenizer, width=256, font=unifont, whiten="none")
    assert substrate.fingerprint == "sha256:850ec2b820610ec59f64fab8f9282d6dc51d7e7e5b4af75a15315ba260fb287e"


def test_real_font_separates_its_look_alikes(tokenizer, unifont):
    substrate = GlyphSubstrate.build(tokenizer, width=128, font=unifont)
    groups = [{text for _, text in group} for group in substrate.provenance["collisions"]["first_groups"]]
    assert {"a", "а"} in groups and {"o", "о"} in groups
    assert substrate.provenance["smallest_distance"] > 0.01

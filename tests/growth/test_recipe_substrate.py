"""The substrate of a growth recipe: every field of a substrate recipe, inline or in a file, decides what is built."""

import re
from pathlib import Path

import pytest
import yaml

from frozen_glyph.growth.ground import open_ground
from frozen_glyph.growth.recipe import load_recipe
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.drawn import build_from_recipe
from frozen_glyph.substrate.recipe import SubstrateRecipe
from frozen_glyph.substrate.tokens import list_tokens


@pytest.fixture
def load(recipe_content, tmp_path):
    """``load(substrate, *settings)``: the tiny recipe with that substrate, read from a file in a folder of its own."""

    def load(substrate, *settings):
        (tmp_path / "model").mkdir(exist_ok=True)
        path = tmp_path / "model" / "growth.yaml"
        path.write_text(yaml.safe_dump(recipe_content({"substrate": substrate})), "utf-8")
        return load_recipe(path, settings)

    return load


def test_a_file_beside_the_recipe_says_the_substrate_and_settings_change_it(load, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "my.hex").touch()
    (tmp_path / "shared" / "x.yaml").write_text("vocab: wide\nmax_ngram: 8\nwidth: 48\nfont: my.hex\n")
    font = str(tmp_path / "shared" / "my.hex")
    assert load("../shared/x.yaml").substrate == SubstrateRecipe(vocab_size="wide", max_ngram=8, width=48, font=font)
    assert load("../shared/x.yaml", "substrate.max_ngram=4", "substrate.vocab=bmp").substrate == SubstrateRecipe(
        vocab_size="bmp", max_ngram=4, width=48, font=font
    )
    assert load({"layout": "binary"}, "substrate=../shared/x.yaml").substrate.max_ngram == 8
    with pytest.raises(
        RecipeError, match=r"absent\.yaml' does not exist; give the path of a substrate\.yaml, or a name"
    ):
        load("../shared/absent.yaml")


@pytest.mark.parametrize("written", ["vocab", "vocab_size"])
@pytest.mark.parametrize("setting", ["vocab", "vocab_size"])
def test_both_names_of_the_vocabulary_are_one_field(load, written, setting):
    assert load({written: "wide"}).sha256 == load({"vocab_size": "wide"}).sha256
    assert load({written: "wide"}, f"substrate.{setting}=512").substrate.vocab_size == 512


@pytest.mark.parametrize(
    ("substrate", "message"),
    [
        ({"vocab": 600, "vocab_size": 512}, "recipe keys 'vocab_size' and 'vocab' in substrate are one field; leave"),
        (
            {"vocab": "bpm"},
            "substrate.vocab='bpm' is not allowed: it must be int or one of compact, bmp, wide. Did",
        ),
        ({"layout": "gird"}, "substrate.layout='gird' is not allowed: it must be one of grid, published, binary,"),
        ({"max_ngrams": 3}, "unknown recipe key 'max_ngrams' in substrate. Did you mean 'max_ngram'? Allowed:"),
        ({"width": 64}, "substrate.width=64 is not allowed: it must be left out: it follows model.hidden_size=48"),
        ({"layout": "trainable", "pca": True}, "substrate.pca=True is not allowed: it must be left out where"),
    ],
)
def test_a_wrong_substrate_is_refused(load, substrate, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        load(substrate)


def test_fields_that_older_records_lack_are_recorded_where_they_are_given(load):
    plain = load({})
    assert list(plain.to_dict()["substrate"]) == ["tokenizer", "vocab_size", "layout", "bits"]
    assert load({"width": 48, "pca": False}).sha256 == plain.sha256
    fields = {"max_ngram": 3, "pca": True, "seed": 0, "font": "/somewhere/my.hex"}
    recipes = [load({name: value}) for name, value in fields.items()]
    assert len({recipe.sha256 for recipe in [plain, *recipes]}) == 1 + len(fields)
    assert load(fields).to_dict()["substrate"] == plain.to_dict()["substrate"] | fields | {"font": "my.hex"}


def test_growth_builds_what_the_recipe_says(grow_tiny, finished, font_file, tmp_path):
    stages = [{"steps": 1}]
    learnt = {"vocab_size": 512, "max_ngram": 2, "font": str(font_file)}
    grow_tiny(tmp_path / "learnt", {"stages": stages, "substrate": learnt}, substrate=None)
    substrate = GlyphSubstrate.from_pretrained(tmp_path / "learnt")
    assert max(len(token.text) for token in list_tokens(substrate.tokenizer) if token.kind == "text") == 2
    assert substrate.provenance["font"]["name"] == font_file.name

    code = {"tokenizer": str(finished[0]), "layout": "random", "bits": 48, "seed": 3, "pca": True}
    grow_tiny(tmp_path / "code", {"stages": stages, "substrate": code}, substrate=None)
    built = build_from_recipe(SubstrateRecipe(**code, width=48))
    assert GlyphSubstrate.from_pretrained(tmp_path / "code").fingerprint == built.fingerprint
    assert built.rotated and built.provenance["seed"] == 3


def test_the_papers_substrate_may_be_named_by_the_papers_model():
    abs_bvv = Path(__file__).parents[2] / "hub_configs" / "abs-bvv" / "growth.yaml"
    named = load_recipe(abs_bvv, ["substrate=../substrates/bvv241-abs.yaml"]).substrate
    assert (named.vocab_size, named.layout, named.max_ngram, named.width) == ("wide", "published", 16, 4096)
    assert load_recipe(abs_bvv, ["substrate.max_ngram=16"]).substrate.max_ngram == 16


def test_a_run_goes_on_on_the_substrate_that_it_has(load, plain_substrate, tmp_path):
    """The same recipe, of a run that began before pictures were whitened and of a new one."""
    recipe = load({"vocab_size": 512})
    (tmp_path / "old").mkdir()
    plain_substrate.save_pretrained(tmp_path / "old")
    assert open_ground(tmp_path / "old", recipe, [], None).substrate.fingerprint == plain_substrate.fingerprint
    new = open_ground(tmp_path / "new", recipe, ["The cat sat on the mat."] * 9, None).substrate
    assert new.geometry == {"substrate_rotated": False, "substrate_whitened": True, "substrate_scale": 48**0.5 / 4}


def test_a_recipe_names_a_geometry_only_where_it_says_one(load):
    """So that recipes written before there was a choice keep their sha256."""
    plain, asked = load({"vocab_size": 512}), load({"vocab_size": 512, "whiten": "none"})
    assert "whiten" not in plain.substrate.to_dict() and asked.substrate.to_dict()["whiten"] == "none"
    assert plain.sha256 == asked.sha256 != load({"vocab_size": 512, "whiten": "full"}).sha256
    assert load({"vocab_size": 512, "whiten": "none"}, "substrate.layout=trainable").substrate.whiten == "none"

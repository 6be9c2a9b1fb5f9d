"""Substrate recipes: the shipped ones lay ids out as published, and a recipe that cannot be followed is refused."""

from pathlib import Path

import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.substrate.choices import SubstrateError
from frozen_glyph.substrate.drawn import build_from_recipe, draw_tokens, substrate_of, tokenizer_of
from frozen_glyph.substrate.font import DEBIAN_OUTLINES
from frozen_glyph.substrate.ngrams import stream_text
from frozen_glyph.substrate.recipe import load_substrate_recipe
from frozen_glyph.substrate.tokens import BYTE_TOKENS, list_tokens
from frozen_glyph.substrate.vocabulary import FREE_IDS

SHIPPED = {path.stem: path for path in (Path(__file__).parents[2] / "hub_configs" / "substrates").glob("*.yaml")}
PUBLISHED = {"bvv241-2-3": (65_536, 1024), "bvv241-max": (131_072, 1024), "bvv241-abs": (131_072, 4096)}


@pytest.fixture
def text(texts, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(texts), encoding="utf-8")
    return path


def read(name, tokenizer_folder):
    """A shipped recipe, and what its command line adds."""
    return load_substrate_recipe(SHIPPED[name], tokenizer=str(tokenizer_folder) if name == "bvv241-nemo" else None)


def test_every_published_layout_is_shipped():
    assert set(SHIPPED) == {*PUBLISHED, "bvv241-nemo"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_ids_are_laid_out_as_published(name, text):
    recipe = read(name, None)
    tokenizer = tokenizer_of(recipe, stream_text([text]))
    tokens = list_tokens(tokenizer)
    assert (len(tokens), recipe.width) == PUBLISHED[name]
    assert (tokenizer.pad_token_id, tokens[0xE000].text) == (57344, "<pad>")
    assert {token.kind for token in tokens[0xE000:0xE100]} == {"special"}
    assert [token.text for token in tokens[0xE100:0xE200]] == list(BYTE_TOKENS)
    for character in "aЯ猫\0\uffff":
        assert tokens[ord(character)].text == character
    ngrams = [tokens[i].text for i in (*FREE_IDS, *range(0x10000, len(tokens)))]
    lengths = {len(ngram) for ngram in ngrams if not ngram.startswith("<unused_")}
    assert min(lengths) == 2 and max(lengths) <= recipe.max_ngram and ({2, 3} <= lengths)
    assert (max(lengths) > 3) == (name != "bvv241-2-3")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_recipe_builds(name, text, tokenizer, tmp_path):
    if not DEBIAN_OUTLINES.is_file():
        pytest.skip("unifont.otf is not installed (apt-get install -y fonts-unifont)")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    recipe = read(name, tmp_path / "tokenizer")
    substrate = build_from_recipe(recipe, [] if recipe.tokenizer else [text])
    assert (substrate.vocab_size, substrate.width) == PUBLISHED.get(name, (380, 1024))
    assert substrate.bits == substrate.width and substrate.provenance["layout"] == "published"


def test_a_recipe_is_the_call_it_stands_for(text, font_file, font, tokenizer):
    path = text.with_name("recipe.yaml")
    path.write_text(f"vocab: 380\nwidth: 64\nfont: {font_file}\n")
    built = build_from_recipe(load_substrate_recipe(path), [text])
    assert (built.vocab_size, built.width, built.provenance["font"]["sha256"]) == (380, 64, font.sha256)
    assert built.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_a_width_that_is_given_is_taken_whatever_it_is(tokenizer):
    with pytest.raises(SubstrateError, match="width 0 is not allowed"):
        draw_tokens(load_substrate_recipe(None, layout="binary", width=0), tokenizer, 256, 0)
    assert draw_tokens(load_substrate_recipe(None, layout="binary"), tokenizer, 256, 0).width == 256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "vocabulary: bmp",
            r"unknown recipe key 'vocabulary'\. Did you mean 'vocab'\? Allowed: tokenizer,",
        ),
        ("width: wide", "recipe field width='wide' is not allowed: it must be int"),
        ("width: true", "recipe field width=True is not allowed: it must be int"),
        ("pca: 1", "recipe field pca=1 is not allowed: it must be bool"),
        ("vocab: [1]", r"recipe field vocab=\[1\] is not allowed: it must be int"),
        ("- vocab", "must hold a mapping of fields"),
        ("", "must hold a mapping of fields"),
        ("a: [", r"recipe\.yaml' is not YAML: "),
        (None, r"recipe\.yaml' does not exist; give the path of a substrate\.yaml, or a name"),
    ],
)
def test_recipes_that_are_refused(tmp_path, content, message):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=message):
        load_substrate_recipe(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"font": "bad.hex"}, "is not a font"),
        ({"font": "tiny.hex", "layout": "published"}, "draws outlines, but font 'tiny.hex' has none"),
        ({"font": "tiny.hex", "layout": "random"}, "draws nothing, so font 'tiny.hex' cannot be used"),
        ({"font": "tiny.hex", "bits": 100}, "bits=100 is not allowed"),
        ({"font": "tiny.hex", "width": 3}, "width 3 is not allowed"),
        ({"font": "tiny.hex", "width": 2048, "pca": True}, "pca rotates vectors no wider than"),
        ({"layout": "float", "pca": True}, "has a rotation of its own"),
        ({"layout": "random", "whiten": "full"}, "which has nothing to whiten"),
        ({"layout": "binary", "bits": 8}, "need a multiple of 8 bits from 16 on"),
    ],
)
def test_what_cannot_be_built_is_refused_before_the_text_is_read(fields, message, font_file, tmp_path, monkeypatch):
    """To learn a vocabulary takes minutes."""
    (tmp_path / "bad.hex").write_text("no font")
    (tmp_path / "tiny.hex").write_bytes(font_file.read_bytes())
    monkeypatch.chdir(tmp_path)
    text = (pytest.fail("the text was read") for _ in range(1))
    with pytest.raises(FrozenGlyphError, match=message):
        substrate_of(load_substrate_recipe(None, **fields), text, 256, 0)

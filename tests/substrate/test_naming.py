"""Names for reserved ids: an id gets a name; nothing else of vocabulary, vectors and identity changes."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from frozen_glyph import name_tokens
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate import GlyphSubstrate, build_tokenizer, naming
from frozen_glyph.substrate.reserved import CHAT_MARKS
from frozen_glyph.substrate.tokens import list_tokens, tokenizer_sha256


@pytest.fixture(scope="module")
def glyphs(texts, font):
    return GlyphSubstrate.build(build_tokenizer(texts, 320, reserved=10), width=64, font=font)


@pytest.fixture
def folder(glyphs, tmp_path):
    glyphs.save_pretrained(tmp_path / "glyphs")
    return tmp_path / "glyphs"


def named(folder):
    return json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["named_tokens"]


def test_a_name_moves_no_id_no_vector_and_no_identity(folder, glyphs, font):
    assert name_tokens(folder, ["<|observation|>", "<|plan|>"]) == {"<|observation|>": 316, "<|plan|>": 317}
    again = GlyphSubstrate.from_pretrained(folder)  # compares the fingerprint
    assert again.packed_bits.equal(glyphs.packed_bits) and again.fingerprint == glyphs.fingerprint
    assert again.tokenizer("cat<|plan|>")["input_ids"] == [*glyphs.tokenizer("cat")["input_ids"], 317]
    after, before = list_tokens(again.tokenizer), list_tokens(glyphs.tokenizer)
    assert [token_id for token_id in range(320) if after[token_id] != before[token_id]] == [316, 317]
    drawn = GlyphSubstrate.build(again.tokenizer, width=64, font=font)
    assert drawn.fingerprint == glyphs.fingerprint and drawn.provenance == glyphs.provenance


def test_names_survive_saving_and_can_be_changed(folder, glyphs, tmp_path):
    name_tokens(folder, {"<|plan|>": 318, "<|first|>": None})
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    assert name_tokens(tmp_path / "saved", {"<|scheme|>": 318}) == {"<|scheme|>": 318}
    assert named(tmp_path / "saved") == {"<|first|>": "<|reserved_0|>", "<|scheme|>": "<|reserved_2|>"}
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert tokenizer_sha256(saved) == tokenizer_sha256(glyphs.tokenizer)
    assert saved.convert_ids_to_tokens([316, 318]) == ["<|first|>", "<|scheme|>"]


def test_the_same_call_again_changes_nothing(folder):
    first = name_tokens(folder, ["<|plan|>"])
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert name_tokens(folder, ["<|plan|>"], chat=True) == dict(zip(CHAT_MARKS, range(310, 316), strict=True)) | first
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "nothing to name in"),
        (["plan"], "name 'plan' is not allowed: give one word in brackets"),
        (["<|a plan|>"], "name '<|a plan|>' is not allowed"),
        (["<|reserved_9|>"], "not that of a reserved id"),
        (["<0x41>"], "name '<0x41>' is token 68 already"),
        ({"<eos>": 316}, "name '<eos>' is token 2 already"),
        ({"<|plan|>": 2}, "id 2 is not free for '<|plan|>'; reserved ids that are: 316 to 319"),
        ({"<|plan|>": 312}, "id 312 is not free"),  # the chat template uses it
        ({"<|plan|>": 300}, "id 300 is not free"),
        ({"<|plan|>": 10**9}, "id 1000000000 is not free"),
        ({"<|plan|>": 319, "<|idea|>": 319}, "id 319 is not free for '<|idea|>'"),
        ([f"<|{number}|>" for number in range(5)], "no reserved id is left for '<|4|>'; a frozen table cannot grow"),
    ],
)
def test_what_cannot_be_named_is_refused_and_nothing_is_written(folder, names, message):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FrozenGlyphError) as error:
        name_tokens(folder, names)
    assert message in str(error.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_killed_between_the_files_it_loads_and_the_same_call_finishes(folder, glyphs, monkeypatch):
    def killed(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(naming, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            name_tokens(folder, ["<|plan|>"])
    assert named(folder) and GlyphSubstrate.from_pretrained(folder).fingerprint == glyphs.fingerprint
    assert name_tokens(folder, ["<|plan|>"]) == {"<|plan|>": 316}
    assert GlyphSubstrate.from_pretrained(folder).fingerprint == glyphs.fingerprint


@pytest.mark.parametrize("record", [5, ["<|plan|>"], {"<|plan|>": 7}])
def test_a_record_of_names_that_is_none_is_refused(folder, record):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"named_tokens": record}))
    with pytest.raises(FrozenGlyphError, match=r"named_tokens=.* in tokenizer_config.json is no mapping of names"):
        GlyphSubstrate.from_pretrained(folder)


def test_a_record_of_names_hides_no_other_change(folder):
    """It restores the names of special tokens, not what the tokenizer does to text."""
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text("utf-8"))
    vocab = state["model"]["vocab"]
    vocab["cats"] = vocab.pop("<0x41>")
    path.write_text(json.dumps(state), "utf-8")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"named_tokens": {"cats": "<0x41>"}}))
    with pytest.raises(FrozenGlyphError, match=r"tokenizer\.json' is damaged or of another substrate"):
        GlyphSubstrate.from_pretrained(folder)


def foreign(folder, model, **roles):
    backend = Tokenizer(model)
    backend.add_special_tokens([AddedToken(name, special=True) for name in ("<s>", "</s>", "<SPECIAL_3>", "<extra_4>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", **roles)
    tokenizer.save_pretrained(folder)
    return tokenizer


UNIGRAM = [("<unk>", 0.0), ("a", -1.0), ("b", -2.0), ("<SPECIAL_3>", -9.0)]
MODELS = {
    "unigram": lambda: models.Unigram(UNIGRAM, unk_id=0),
    "words": lambda: models.WordLevel({"a": 0, "b": 1, "<SPECIAL_3>": 2}),
    "bpe": lambda: models.BPE({"a": 0, "b": 1}, []),  # special tokens lie beside the model
}


@pytest.mark.parametrize("kind", MODELS)
def test_reserved_tokens_of_other_vocabularies(kind, tmp_path):
    before = foreign(tmp_path, MODELS[kind](), eos_token="</s>")
    ids = name_tokens(tmp_path, ["<|plan|>", "<|idea|>"])
    assert list(ids.values()) == before.convert_tokens_to_ids(["<SPECIAL_3>", "<extra_4>"])
    after = AutoTokenizer.from_pretrained(tmp_path)
    assert len(after) == len(before) and tokenizer_sha256(after) == tokenizer_sha256(before)
    assert list_tokens(after, as_built=True) == list_tokens(before) != list_tokens(after)


def test_a_chat_for_a_vocabulary_that_was_built_without(texts, tmp_path):
    build_tokenizer(texts, "bmp", max_ngram=1).save_pretrained(tmp_path)
    assert name_tokens(tmp_path, [], chat=True) == dict(zip(CHAT_MARKS, range(57347, 57353), strict=True))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], return_dict=False)
    assert chat == [57345, 57348, ord("a"), 57346]


def test_a_chat_template_of_others_stays(folder, tmp_path):
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(FrozenGlyphError, match="has a chat template of its own"):
        name_tokens(folder, [], chat=True)
    foreign(tmp_path / "no-end", MODELS["bpe"]())
    with pytest.raises(FrozenGlyphError, match="has no eos_token"):
        name_tokens(tmp_path / "no-end", [], chat=True)

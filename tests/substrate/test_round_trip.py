"""Every string comes back, and a context keeps its tokens when more is appended at a word boundary."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frozen_glyph.substrate import build_tokenizer

SENTENCE = "The cat sat on the mat. Кот сидел на окне. 猫坐在垫子上。"
STRINGS = [
    "", " ", "\n", "\0", "\0\0a\0", "\r\n\r\n", "\r\n \r\n", "  two  spaces  ", "\t\ttabs", "a\u3000b\u00a0c", SENTENCE,
    # literal names of specials and bytes
    "<0x41>", "<0x41", "<0xE2><0x96>", "<pad>", "x<eos><bos> y", "<|endoftext|>", "<unused_57347>", "<unused_63743>",
    # emoji: family, skin tone, flags of a country and of a region, keycap, text and emoji presentation
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1fa\U0001f1e6\U0001f1ef\U0001f1f5",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "1\ufe0f\u20e3",
    "\u2764\ufe0e \u2764\ufe0f",
    # astral Han, combining stacks, presentation forms, bidirectional marks
    "\U00020000\U00020bb7\U0003134a", "e\u0301\u0302\u0323", "Z" + "\u0335\u0351\u0489" * 30, "\u0301alone",
    "\ufb01 ½ \u212b", "\u202eabc\u202c \u2067עברית\u2069 \u200f", "한국어 ไทย हिन्दी العربية", "\u1112\u1161\u11ab",
    # controls, separators, private use, noncharacters, byte order mark
    "\x7f\x85\x1c", "\u2028\u2029", "\ue000\uf8ff\U000f0000", "\ufdd0\ufffe\uffff\U0010ffff", "\ufeffbom", "\ufffd",
]  # fmt: skip
TEXT = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(STRINGS)), max_size=6).map("".join)

PAIRS = [
    ("The cat", " sat"), ("The cat\n", "sat"), ("The cat\n", " sat"), ("A:\n\n", "The"), ("3+4=", "7"),
    ("(", "cat"), ("答案：", "猫"), ("the mat.", " The"), ("cat  ", " sat"), ("the cat", "'s"), ("cat\n\n", "\nsat"),
    ("Answer: ", "cat"),
]  # fmt: skip
QUESTIONS = [
    ("Question: Where did the cat sit?\nAnswer:", [" on the mat", " there", " 7", " (the hat)", " -", " $5", " yes"]),
    ("The cat sat on", [" the mat, the other cat's mat.", "  the hat", "\nthe mat"]),
    ("Вопрос: где сидел кот?\nОтвет:", [" на окне", " там"]),
    ("问题：猫在哪里？\n答案：", ["垫子上", " 垫子上", "在那里。"]),
    ("Q: 2+5=? \n\nA. 7\nB. 6\nAnswer: ", ["A", " B"]),
]


@pytest.fixture(scope="module", params=["compact", "bmp"])
def made(request, texts):
    return build_tokenizer(
        [*texts, "\U0001f468\u200d\U0001f469 \U0001f468\u200d\U0001f469"], 380 if request.param == "compact" else "bmp"
    )


def encode(tokenizer, text, **options):
    return tokenizer(text, add_special_tokens=False, **options)["input_ids"]


def assert_comes_back(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text
    plain = encode(tokenizer, text, split_special_tokens=True)
    assert tokenizer.decode(plain) == text
    specials = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    assert not specials & set(plain)


def assert_context_keeps_its_tokens(tokenizer, context, continuation):
    """As lm-eval's ``_encode_pair`` does it: spaces at the end of the context belong to the continuation."""
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    before, whole = encode(tokenizer, kept), encode(tokenizer, kept + continuation)
    assert whole[: len(before)] == before, (kept[-40:], continuation)
    assert tokenizer.decode(whole[len(before) :]) == continuation


@pytest.mark.parametrize("text", STRINGS)
def test_known_difficult_strings_come_back(made, text):
    assert_comes_back(made, text)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_every_string_comes_back(made, text):
    assert_comes_back(made, text)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(TEXT)
def test_twenty_thousand_strings_come_back(made, text):
    assert_comes_back(made, text)


def test_long_strings_come_back(made):
    for unit in ("猫", "a", " ", "-", "\u0301", "\U0001f600", SENTENCE):
        text = unit * 5_000
        assert made.decode(encode(made, text)) == text


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([*SENTENCE.split(), " ", "  ", "\n", "\t", "?", "：", "zz", "猫", "="]), max_size=12),
    st.sampled_from([" cat", " Кот", " 猫", " ...", "\ncat", "\n\n"]),
)
def test_appending_at_a_word_boundary_keeps_the_context(made, words, continuation):
    context = "".join(words).rstrip(" ") if continuation[0] != " " else "".join(words)
    before, after = encode(made, context), encode(made, context + continuation)
    assert after[: len(before)] == before
    assert_context_keeps_its_tokens(made, context, continuation)


@pytest.mark.parametrize(("context", "continuation"), PAIRS)
def test_boundaries_by_hand(made, context, continuation):
    if not context.endswith(": "):  # here lm-eval, unlike a plain call, moves the space
        before, after = encode(made, context), encode(made, context + continuation)
        assert after[: len(before)] == before
    assert_context_keeps_its_tokens(made, context, continuation)


@pytest.mark.parametrize(("context", "continuations"), QUESTIONS)
def test_questions_keep_their_tokens(made, context, continuations):
    for continuation in continuations:
        assert_context_keeps_its_tokens(made, context, continuation)


def real_pairs(data):
    """Contexts and continuations of multiple-choice questions, reading passages and translated sentences."""
    for name in ("ARC-Challenge-Dev", "ARC-Easy-Dev"):
        for line in (data / "arc" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            question = json.loads(line)["question"]
            for choice in question["choices"]:
                yield f"Question: {question['stem']}\nAnswer:", " " + choice["text"]
    for line in (data / "commonsense_qa" / "dev_rand_split.jsonl").read_text(encoding="utf-8").splitlines():
        question = json.loads(line)["question"]
        choices = "".join(f"\n{choice['label']}. {choice['text']}" for choice in question["choices"])
        for choice in question["choices"]:
            yield f"Question: {question['stem']}{choices}\nAnswer:", " " + choice["label"]
            yield question["stem"] + " ", choice["text"]
    for path in sorted((data / "mmlu" / "val").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for stem, *choices, _ in csv.reader(file):
                listed = "".join(f"\n{label}. {text}" for label, text in zip("ABCD", choices, strict=True))
                for label, text in zip("ABCD", choices, strict=True):
                    yield f"{stem}{listed}\nAnswer:", " " + label
                    yield f"{stem.strip()}\n", text.strip()
    for line in (data / "boolq" / "dev.jsonl").read_text(encoding="utf-8").splitlines()[:500]:
        question = json.loads(line)
        yield f"{question['passage']}\nQuestion: {question['question']}?\nAnswer:", " yes"
    for language in ("ru", "zh"):
        for line in (data / "opus" / f"ntrex.en-{language}.tsv").read_text(encoding="utf-8").splitlines():
            _, english, target = line.split("\t")
            yield f"English: {english}\n{language}:", " " + target
            yield f"{target}\nEnglish:", " " + english


def test_real_questions_keep_their_tokens(made, real_data):
    pairs = list(real_pairs(real_data))
    assert len(pairs) > 20_000
    for context, continuation in pairs:
        assert_context_keeps_its_tokens(made, context, continuation)

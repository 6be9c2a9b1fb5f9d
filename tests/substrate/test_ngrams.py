"""Text of any size: read in blocks as it is, counted exactly, sampled evenly and within bounds, always the same way."""

import random
import tracemalloc
from collections import Counter
from itertools import pairwise

import pytest
from tokenizers import Regex, pre_tokenizers

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate import ngrams
from frozen_glyph.substrate.ngrams import BLOCK, count_text, learn_ngrams, stream_text


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(ngrams, "BLOCK", 100)
    monkeypatch.setattr(ngrams, "SAMPLE_CHARACTERS", 2000)
    monkeypatch.setattr(ngrams, "SAMPLE_WORDS", 1500)


def different_words(number, length=8):
    letters = random.Random(0)
    return ["".join(letters.choices("abcdefghij", k=length)) for _ in range(number)]


@pytest.mark.parametrize(
    "text",
    [
        "a\nb\r\n\r\nмир\rc",
        "猫" * (3 * BLOCK),
        ("word " * 20 + "\r\n") * 3000,
        "\ufefftext\n",
        "no end of line \U0001f600",
    ],
    ids=["ends", "one line", "lines", "mark", "short"],
)
def test_files_are_read_as_they_are(tmp_path, text):
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    blocks = list(stream_text([path, str(path)]))
    assert "".join(blocks) == text * 2
    assert max(map(len, blocks)) <= 2 * BLOCK
    if "\n" in text[:BLOCK]:
        assert all(block.endswith(("\n", "\r", text[-3:])) for block in blocks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n" * 10, "is empty"),
        (b"a" * 200_000 + b"\xff", "byte 0xff at offset 200000"),
    ],
)
def test_files_that_hold_no_text_are_named(tmp_path, content, message):
    path = tmp_path / "strange.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FrozenGlyphError, match=rf"strange\.txt.*{message}"):
        list(stream_text([path]))


def test_counts_are_exact_however_the_text_is_cut():
    text = "The cat. Кот 猫 \U0001f600\U0001f600\0\n" * 50
    whole = count_text([text])
    assert whole.counts == Counter(text)
    assert count_text(iter([text[:7], "", text[7:]])) == (whole.counts, [text[:7], text[7:]])
    assert whole.by_frequency()[0] == " " and whole.sample == [text]
    assert count_text(["bbaac"]).by_frequency() == ["a", "b", "c"]


def test_a_lone_surrogate_is_named():
    with pytest.raises(FrozenGlyphError, match=r"lone surrogate U\+DC80"):
        count_text(["a\udc80"])


def test_small_texts_are_kept_whole_and_large_ones_sampled_evenly(small_limits):
    lines = [f"{number:07} same words again\n" for number in range(4000)]
    short = count_text(lines[:30])
    assert "".join(short.sample) == "".join(lines[:30])
    long = count_text(lines)
    assert long.counts == Counter("".join(lines))
    kept = [int(text[:7]) for text in long.sample]
    assert sum(map(len, long.sample)) <= 2000 and len(kept) > 20
    gaps = {after - before for before, after in pairwise(kept)}
    assert kept[0] == 0 and kept[-1] > 3000 and len(gaps) == 2  # inside a block, and from block to block


def test_different_words_bound_the_sample_too(small_limits):
    words = different_words(1000)
    sample = count_text([word + " " for word in words]).sample
    assert 400 < sum(map(len, sample)) <= 1500 * 9 // 8
    repeated = count_text([words[0] + " "] * 1000).sample
    assert sum(map(len, repeated)) > 1000  # one word, however often, is bounded only by the length of the sample


def test_a_text_without_line_ends_is_cut_into_blocks(small_limits):
    text = "".join(different_words(500))
    assert sum(map(len, count_text([text]).sample)) <= 1500


def test_memory_does_not_grow_with_the_text(monkeypatch):
    monkeypatch.setattr(ngrams, "SAMPLE_CHARACTERS", 500_000)
    lines = "The cat sat on the mat.\n" * 2500

    def peak(blocks):
        tracemalloc.start()
        count_text(f"{number} {lines}" for number in range(blocks))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(80) < peak(10) + 500_000


def test_ngrams_and_merges_in_the_order_learnt():
    learnt, merges = learn_ngrams(["abab abab ab x"] * 3, list("abx "), [], room=10, max_ngram=4, forbidden=())
    assert learnt[:2] == ["ab", " ab"] and set(learnt) == {"ab", " ab", "abab", " x"}
    assert merges[:2] == [("a", "b"), (" ", "ab")] and {left + right for left, right in merges} == set(learnt)


def test_ngrams_that_are_not_wanted():
    arguments = {"characters": list("abxy "), "left_out": ["z"], "room": 20, "max_ngram": 4}
    plain = learn_ngrams(["xazby ab"] * 5, **arguments, forbidden=())[0]
    assert "xa" in plain and "by" in plain and not any("z" in ngram or "azb" in ngram for ngram in plain)
    forbidden, merges = learn_ngrams(["xyxy xyxy"] * 5, **arguments, forbidden={"xy"})
    assert "xy" not in forbidden and not any("xy" in pair for pair in merges)
    assert learn_ngrams(["ab ab ab cd"], list("abcd "), [], 20, 4, (), min_count=2)[0] == ["ab", " ab"]
    assert (
        learn_ngrams(["abab"], ["a", "b"], [], 5, 1, ()) == learn_ngrams(["abab"], ["a", "b"], [], 0, 4, ()) == ([], [])
    )


def test_pieces_learnt_from_are_those_of_the_tokenizer_but_short():
    pieces = pre_tokenizers.Split(Regex(ngrams.PIECE), "isolated")
    short = pre_tokenizers.Split(Regex(ngrams.LEARNT_PIECE), "isolated")
    text = "The cat's 3+4 = 7,  mat.\n\n\tКот — кот?! 猫：在 \u3000\u00a0e\u0301 \U0001f600"
    assert short.pre_tokenize_str(text) == pieces.pre_tokenize_str(text)
    for long in ("猫" * 700, "-" * 700, " " * 700):
        assert [len(piece) for piece, _ in pieces.pre_tokenize_str(long)] == [700]
        assert [len(piece) for piece, _ in short.pre_tokenize_str(long)] == [256, 256, 188]

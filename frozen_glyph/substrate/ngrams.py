"""Learn n-grams from text of any size: count code points of all of it, and byte pair merges on a bounded sample.

The trainer of the `tokenizers` library keeps every different piece of text, some 150 bytes a character, and Chinese
pieces hardly ever repeat. So blocks are sampled at a stride that doubles whenever the sample grows too large: evenly
over the text, the same blocks for the same text, and all of it when it is small.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import file_documents, is_plain, read_text

# One piece is, in this order of preference (Oniguruma syntax):
#   a word with the space before it | punctuation or operators with the space before it |
#   the spaces before such a space | spaces before anything else | any other white space, one character at a time.
PIECE = r" ?[^\s\p{P}\p{Sm}\p{Sc}]+| ?[\p{P}\p{Sm}\p{Sc}]+| +(?= \S)| +|\s"
LEARNT_PIECE = PIECE.replace("+", "{1,256}")  # a merge takes time in proportion to the longest piece that it touches

BLOCK = 1 << 16  # characters of text that are counted, kept or left out together
SAMPLE_CHARACTERS = 64_000_000  # of the sample
SAMPLE_WORDS = 8_000_000  # characters in different words (between white space) of the sample
BREAK = "\U0010ffff"  # a noncharacter that stands for left-out code points while n-grams are learnt
SLACK = 259  # merges that may be left out for what they spell; others take their places


class CountedText(NamedTuple):
    """How often each character occurs in the whole text, and a sample of the text."""

    counts: dict[str, int]
    sample: list[str]

    def by_frequency(self) -> list[str]:
        """The characters, most frequent first, ties by code point."""
        return sorted(self.counts, key=lambda character: (-self.counts[character], character))


def stream_text(paths: Iterable[str | Path]) -> Iterator[str]:
    """Read UTF-8 files in blocks that end with a line where lines are not too long; the text is kept as it is.

    Of a .jsonl, .parquet or .gz file the documents are read.

    Raises:
        TextFileError: a file is missing, holds no text, or is not UTF-8 (the message gives the byte offset).
    """
    for path in paths:
        if not is_plain(Path(path)):
            yield from file_documents(Path(path))
            continue
        blank = True
        try:
            with Path(path).open(encoding="utf-8", newline="") as file:
                while block := file.read(BLOCK):
                    block += file.readline(BLOCK)
                    blank = blank and block.isspace()
                    yield block
        except (OSError, UnicodeDecodeError):
            read_text(path)  # says which file it is, and where in it
            raise
        if blank:
            read_text(path)


def count_text(texts: Iterable[str]) -> CountedText:
    """Count the characters of ``texts`` and sample them, in one pass that holds only the sample."""
    counts = np.zeros(0x110000, dtype=np.int64)
    sample = _Sample()
    for block in _blocks(texts):
        codes = np.bincount(np.frombuffer(_utf32("".join(block)), dtype="<u4"))
        counts[: len(codes)] += codes
        sample.add(block)
    counts[ord(BREAK)] = 0
    seen = np.flatnonzero(counts)
    if not len(seen):
        raise FrozenGlyphError("texts hold no characters; give some text to learn the vocabulary from")
    return CountedText(
        {chr(code): int(counts[code]) for code in seen}, [text for block in sample.blocks for text in block]
    )


def learn_ngrams(
    sample: list[str],
    characters: Collection[str],
    left_out: Collection[str],
    room: int,
    max_ngram: int,
    forbidden: Collection[str],
    min_count: int = 0,
) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte pair merges inside pieces of ``sample``, most frequent first (ties by code point).

    Args:
        sample: texts to learn from.
        characters: what n-grams are made of.
        left_out: the other characters of the sample; nothing is joined across them.
        room: n-grams wanted; fewer when the sample does not yield so many.
        max_ngram: most code points of an n-gram.
        forbidden: texts that no n-gram may spell, and that are never merged further.
        min_count: how often two neighbours must occur to be merged.

    Returns:
        The n-grams and the merges that make them, both in the order learnt.
    """
    if max_ngram == 1 or room <= 0:
        return [], []
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(BREAK, "removed"), pre_tokenizers.Split(Regex(LEARNT_PIECE), "isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(characters) + room + SLACK,
        min_frequency=min_count,
        initial_alphabet=list(characters),
        max_token_length=max_ngram + 1,  # exclusive in some versions of the library, so checked again below
        show_progress=False,
    )
    learner.train_from_iterator(_lines(sample, left_out), trainer)

    known = set(characters)
    ngrams: list[str] = []
    merges: list[tuple[str, str]] = []
    for left, right in json.loads(learner.to_str())["model"]["merges"]:
        ngram = left + right
        if len(ngram) > max_ngram or ngram in forbidden or left not in known or right not in known:
            continue
        if ngram not in known:
            if len(ngrams) == room:
                break
            ngrams.append(ngram)
            known.add(ngram)
        merges.append((left, right))
    return ngrams, merges


class _Sample:
    """Every ``stride``-th block of a text; the stride doubles, and every other block goes, when it grows too large."""

    def __init__(self) -> None:
        self.blocks: list[list[str]] = []
        self._stride, self._seen_blocks = 1, 0
        self._words: set[str] = set()
        self._characters = self._word_characters = 0

    def add(self, block: list[str]) -> None:
        if self._seen_blocks % self._stride == 0:
            self._keep(block)
        self._seen_blocks += 1
        while len(self.blocks) > 1 and (self._characters > SAMPLE_CHARACTERS or self._word_characters > SAMPLE_WORDS):
            kept, self.blocks = self.blocks[::2], []
            self._stride *= 2
            self._words.clear()
            self._characters = self._word_characters = 0
            for kept_block in kept:
                self._keep(kept_block)

    def _keep(self, block: list[str]) -> None:
        self.blocks.append(block)
        for text in block:
            new = set(text.split()) - self._words
            self._words |= new
            self._word_characters += sum(map(len, new))
            self._characters += len(text)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """``texts`` in groups of about ``BLOCK`` characters; longer ones are cut, at the end of a line where possible."""
    block: list[str] = []
    room = BLOCK
    for text in texts:
        start = 0
        while start < len(text):
            end = len(text)
            if end - start > BLOCK:
                end = text.rfind("\n", start, start + BLOCK) + 1 or start + BLOCK
            block.append(text[start:end])
            room -= end - start
            start = end
            if room <= 0:
                yield block
                block, room = [], BLOCK
    if block:
        yield block


def _utf32(text: str) -> bytes:
    try:
        return text.encode("utf-32-le")
    except UnicodeEncodeError as error:
        raise FrozenGlyphError(
            f"texts hold the lone surrogate U+{ord(text[error.start]):04X}, which is no character; read the text as "
            "UTF-8 without errors='surrogateescape'"
        ) from None


def _lines(sample: list[str], left_out: Collection[str]) -> Iterator[str]:
    """The sample line by line (each newline is a piece of its own, so no n-gram is lost)."""
    breaks = {ord(character): BREAK for character in (*left_out, BREAK)}
    for text in sample:
        for line in text.translate(breaks).split("\n"):
            if line:
                yield line

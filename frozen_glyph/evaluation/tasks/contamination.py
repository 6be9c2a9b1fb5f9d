"""How many evaluation items share a long n-gram with training text.

Method: arXiv 2005.14165 (GPT-3), appendix C. Case, punctuation and white space do not count, and an item is suspect
when any n-gram of it stands in the training text; 13 words are the longest that paper looks for. Shared text need not
be the answer, and a paraphrase shares nothing: the number says where to look, not what a model has learnt.

Only the items' n-grams are kept in memory, as 64-bit hashes; the training text streams past them. A false match of one
n-gram among a billion of the text with a million of the items has a chance of 5 in 100,000.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.evaluation.measurements import Contamination
from frozen_glyph.text.documents import file_documents, reader_of

# Scripts written without spaces (Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters): each letter is a word.
UNSPACED = r"\u0e00-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNITS = {
    "words": re.compile(rf"[^\W_{UNSPACED}]+|(?=\w)[{UNSPACED}]"),
    "characters": re.compile(r"[^\W_]"),
}
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, of the polynomial hash of an n-gram
BATCH = 1 << 20  # units of training text looked up at once
EXAMPLES, EXAMPLE_LENGTH = 5, 160  # shown for a task; characters of each


def contamination(
    items: Mapping[str, Sequence[str]],
    texts: Sequence[Path],
    ngram: int = 13,
    unit: str = "words",
    *,
    field: str = "text",
    progress: bool = False,
) -> list[Contamination]:
    """For each task how many of its items share ``ngram`` units in a row with a document of ``texts``.

    Args:
        items: by task, the text of every item: what of it must not have been read in training.
        texts: .txt, .jsonl and .parquet files (also .gz) as training reads them; ``field`` holds the text of a row.
        unit: ``words``, runs of letters and digits, where each Chinese character and each letter of another
            script without spaces is a word of its own; or ``characters``, letters and digits whatever stands between.
        progress: show a bar on standard error if that is a terminal.

    Returns:
        An entry for each task, in order. ``too_short`` counts items of fewer than ``ngram`` units: they cannot share
        any, so they say nothing. ``examples`` are the first distinct n-grams that were found, lower case.

    Raises:
        FrozenGlyphError: ``ngram``, ``unit`` or a file is not usable; the message names it.
    """
    if ngram < 1:
        raise FrozenGlyphError(f"ngram={ngram} is not allowed; give the number of units in a row, at least 1")
    if unit not in UNITS:
        raise FrozenGlyphError(f"unit={unit!r} is unknown; allowed: {', '.join(UNITS)}.{nearest(unit, UNITS)}")
    for path in texts:
        reader_of(path)  # before hours of reading
    index = ItemIndex([item for own in items.values() for item in own], ngram, unit)
    with _bar(texts, progress) as bar:
        index.read(_followed(texts, field, bar))
    first_shared = index.first_shared()
    results: list[Contamination] = []
    end = 0
    for task, own in items.items():
        begin, end = end, end + len(own)
        found = {item: first for item, first in enumerate(first_shared[begin:end].tolist(), begin) if first >= 0}
        passages = dict.fromkeys(index.passage(item, first) for item, first in found.items())  # distinct, in order
        results.append(
            {
                "task": task,
                "items": len(own),
                "shared": len(found),
                "too_short": int((index.lengths[begin:end] < ngram).sum()),
                "ngram": ngram,
                "unit": unit,
                "examples": list(passages)[:EXAMPLES],
            }
        )
    return results


def normalise(text: str) -> str:
    """``text`` without differences of case and of compatible forms (full width, ligatures)."""
    return text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


class ItemIndex:
    """The n-grams of ``items``, and which items share one with the text read so far."""

    def __init__(self, items: Sequence[str], ngram: int, unit: str) -> None:
        self.items, self.ngram, self.pattern = items, ngram, UNITS[unit]
        self.vocabulary: dict[str, int] = {}  # units of the items, from 1; 0 stands for any other and for an end
        ids: list[int] = []
        lengths = []
        for item in items:
            units = self.pattern.findall(normalise(item))
            ids += [self.vocabulary.setdefault(each, len(self.vocabulary) + 1) for each in units]
            ids.append(0)
            lengths.append(len(units))
        self.lengths = np.array(lengths, dtype=np.int64)
        self.values = np.random.default_rng(0).integers(2**64, size=len(self.vocabulary) + 1, dtype=np.uint64)
        self.starts, hashes = self.hash(ids)
        self.table, self.entries = np.unique(hashes, return_inverse=True)
        self.shared = np.zeros(len(self.table), dtype=bool)

    def hash(self, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Where the n-grams of known units begin, int64 [n], and their hashes, uint64 [n]."""
        units = np.array(ids, dtype=np.int64)
        known = np.concatenate([[0], np.cumsum(units > 0)])
        starts = np.flatnonzero(known[self.ngram :] - known[: -self.ngram] == self.ngram)
        hashes = np.zeros(len(starts), dtype=np.uint64)
        values = self.values[units]
        for offset in range(self.ngram):
            hashes = hashes * FACTOR + values[starts + offset]
        return starts, hashes

    def read(self, documents: Iterable[str]) -> None:
        """Mark the n-grams that stand in ``documents``."""
        ids: list[int] = []
        for document in documents:
            units = self.pattern.findall(normalise(document))
            ids += [self.vocabulary.get(each, 0) for each in units]
            ids.append(0)
            if len(ids) > BATCH:
                self.look_up(ids)
                ids = []
        self.look_up(ids)

    def look_up(self, ids: list[int]) -> None:
        hashes = self.hash(ids)[1]
        if len(self.table):
            places = np.searchsorted(self.table, hashes).clip(max=len(self.table) - 1)
            self.shared[places[self.table[places] == hashes]] = True

    def first_shared(self) -> np.ndarray:
        """Of each item, which of its units begins its first shared n-gram, or -1: int64 [items]."""
        begins = np.cumsum(self.lengths + 1) - self.lengths - 1
        starts = self.starts[self.shared[self.entries]][::-1]  # the first of an item is written last
        owners = np.searchsorted(begins, starts, side="right") - 1
        first = np.full(len(self.items), -1)
        first[owners] = starts - begins[owners]
        return first

    def passage(self, item: int, first: int) -> str:
        """The n-gram of ``item`` that begins with its unit number ``first``, as it stands there, cut if it is long."""
        text = normalise(self.items[item])
        spans = [match.span() for match in self.pattern.finditer(text)][first : first + self.ngram]
        passage = " ".join(text[spans[0][0] : spans[-1][1]].split())
        return passage if len(passage) <= EXAMPLE_LENGTH else passage[: EXAMPLE_LENGTH - 1] + "…"


def _bar(texts: Sequence[Path], visible: bool) -> Progress:
    """A bar of the bytes read; where files are packed it only moves."""
    console = Console(stderr=True)  # standard output is for results
    plain = all(path.suffix.lower() == ".txt" for path in texts)
    bar = Progress(
        TextColumn("comparing training text"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} bytes"),
        TimeRemainingColumn() if plain else TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (visible and console.is_terminal),
    )
    bar.add_task("", total=sum(path.stat().st_size for path in texts) if plain else None)
    return bar


def _followed(texts: Sequence[Path], field: str, bar: Progress) -> Iterator[str]:
    """The documents of ``texts``, counted by ``bar``."""
    for path in texts:
        for document in file_documents(path, field):
            yield document
            bar.advance(bar.task_ids[0], len(document.encode()))

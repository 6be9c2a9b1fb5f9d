"""Text encoded part by part, by any number of processes or machines: what ``pack`` then joins in place of encoding.

A part is a file of a source, or a shard of its dataset. It lies in a folder of its own, named by a fingerprint of its
text and tokenizer, and counts once its manifest is written; so parts may be made in any order, by anybody, twice.
"""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from frozen_glyph.checkpoint.files import sha256_json, write_atomically
from frozen_glyph.checkpoint.folders import remove_files
from frozen_glyph.checkpoint.manifest import Manifest
from frozen_glyph.checkpoint.records import SourceRecord
from frozen_glyph.text.documents import pieces
from frozen_glyph.training.encode import encoded, token_dtype, write_tokens
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe
from frozen_glyph.training.sources import dataset_documents, documents, identities_of, shards_of

PARTS = "parts"  # the folder of all parts in a folder of work
IDS, LENGTHS = "ids.npy", "lengths.npy"  # of a part's documents: all ids one after the other; how many each has
logger = logging.getLogger(__name__)


class Part(NamedTuple):
    """``source`` with one of its files; or with its dataset, of which ``shard`` (which, of how many) is meant."""

    source: SourceRecipe
    identity: SourceRecord | None  # None: not hashed yet
    shard: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return (self.source.files or [f"{self.source.dataset}, shard {self.shard}"])[0]

    def documents(self, normalize: bool) -> Iterator[str]:
        if self.shard is None:
            return documents(self.source, normalize)
        return pieces(dataset_documents(self.source, self.shard), normalize)

    def place(self, work: Path, normalize: bool, tokenizer_sha256: str) -> Manifest:
        """Its folder, made or not, in the folder ``work``."""
        identity = self.identity or identities_of(self.source)[0]
        facts = [identity, self.shard, self.source.field, normalize, tokenizer_sha256]
        return Manifest(work / PARTS / sha256_json(facts)[:16])


def parts_of(source: SourceRecipe, identities: list[SourceRecord] | None = None) -> list[Part]:
    """The parts of ``source`` in their order; ``identities`` of its files or dataset, where somebody knows them."""
    if source.files:
        alone = [dataclasses.replace(source, files=[file]) for file in source.files]
        return list(map(Part, alone, identities or itertools.repeat(None)))
    (identity,) = identities or identities_of(source)
    source = dataclasses.replace(source, revision=identity.get("revision", source.revision))
    count = shards_of(source)
    return [Part(source, identity, (index, count)) for index in range(count)]


def encode_parts(
    data: DataRecipe, tokenizer: Any, tokenizer_sha256: str, work: Path, rank: int = 0, world_size: int = 1
) -> None:
    """Encode every ``world_size``-th part of the text of ``data``, from number ``rank`` on, unless it is there.

    Weights and ``data.tokens`` concern whoever joins the parts.

    Raises:
        SourceError, TextFileError: a source is not usable.
        FrozenGlyphError: the tokenizer has no token to mark documents with.
    """
    parts = itertools.chain.from_iterable(map(parts_of, data.sources))
    for part in itertools.islice(parts, rank, None, world_size):
        place = part.place(work, data.normalize, tokenizer_sha256)
        if not is_made(place):
            write_part(place, encoded(part.documents(data.normalize), tokenizer), token_dtype(tokenizer))


def write_part(place: Manifest, documents: Iterable[np.ndarray], dtype: np.dtype) -> None:
    lengths: list[int] = []

    def counted() -> Iterator[np.ndarray]:
        for ids in documents:
            lengths.append(len(ids))
            yield ids

    write_atomically(place.folder / IDS, lambda path: write_tokens(path, counted(), dtype))
    write_atomically(place.folder / LENGTHS, lambda path: write_tokens(path, [np.array(lengths)], np.dtype(np.uint32)))
    place.record(IDS, LENGTHS)


def is_made(place: Manifest) -> bool:
    return all(map(place.holds, (IDS, LENGTHS)))


def made_parts(
    source: SourceRecipe, identities: list[SourceRecord], normalize: bool, tokenizer_sha256: str, work: Path
) -> list[tuple[Part, Manifest | None]]:
    """The parts of ``source``, if any is made, and where; those that are not (None) are told of."""
    if not (work / PARTS).is_dir():
        return []
    every = [(part, part.place(work, normalize, tokenizer_sha256)) for part in parts_of(source, identities)]
    parts = [(part, place if is_made(place) else None) for part, place in every]
    missing = [part.name for part, place in parts if place is None]
    if len(missing) == len(parts):
        return []
    if missing:
        logger.warning(
            "%d of %d parts are not encoded yet, and are now, such as %r", len(missing), len(parts), missing[0]
        )
    return parts


def joined(parts: list[tuple[Part, Manifest | None]], normalize: bool, tokenizer: Any) -> Iterator[np.ndarray]:
    """The ids of each document of ``parts``; what is not made is encoded now."""
    for part, place in parts:
        if place is None:
            yield from encoded(part.documents(normalize), tokenizer)
            continue
        ids, begin = np.load(place.folder / IDS, mmap_mode="r"), 0
        for length in np.load(place.folder / LENGTHS).tolist():
            yield ids[begin : begin + length]
            begin += length


def remove_parts(parts: Iterable[tuple[Part, Manifest | None]], work: Path) -> None:
    """Delete what is made of ``parts``, and their folder once it is empty."""
    for _, place in parts:
        if place is not None:
            place.remove()
    remove_files(work / PARTS, [])

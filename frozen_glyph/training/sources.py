"""A recipe's sources: their documents, streamed from files and datasets of the Hub, who they are, what each gave."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import HTTPError

from frozen_glyph.checkpoint.files import read_json, sha256_file, sha256_json
from frozen_glyph.checkpoint.records import CorpusRecord, SourceRecord
from frozen_glyph.text.documents import SourceError, check_field, file_documents, not_empty, reader_of, text_field
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe


def documents(source: SourceRecipe, normalize: bool = True) -> Iterator[str]:
    """The documents of ``source`` in their order, read as they are asked for; blank ones are left out.

    In a .txt file a blank line ends a document; a line of .jsonl, and a row of .parquet or of a dataset, holds one in
    ``source.field`` (nothing there is an empty document). One of more than ``LONGEST_DOCUMENT`` characters becomes
    several, divided at line ends. Byte order marks are left out and CR LF becomes LF, unless not ``normalize``.

    Raises:
        SourceError: a file or dataset is missing, damaged, of unknown kind or without text, or lacks the field.
        TextFileError: a text file is not UTF-8.
    """
    for path in map(Path, source.files or []):
        yield from file_documents(path, source.field, normalize)
    if source.dataset is not None:
        yield from not_empty(dataset_documents(source), source.dataset, normalize)


def held_out_documents(data: DataRecipe) -> dict[str, list[str]]:
    """The documents of each held-out file by its name, read as training text is.

    Raises:
        SourceError, TextFileError: see ``documents``.
    """
    if data.held_out is None:
        return {}
    (source,) = data.held_out.sources
    return {
        Path(path).name: list(file_documents(Path(path), source.field, data.normalize)) for path in source.files or []
    }


def dataset_documents(source: SourceRecipe, shard: tuple[int, int] | None = None) -> Iterator[str]:
    """``field`` of each row of a dataset of the Hub (or of a local folder like one), streamed without storing it.

    ``shard``: which one, and of how many, for the rows of that shard alone; in their order they hold all rows.
    """
    where = f"dataset {source.dataset!r}"
    with readable_dataset(where):
        rows = stream_dataset(source)
        if rows.column_names is not None:
            check_field(rows.column_names, source.field, where)
            rows = rows.select_columns([source.field])
        if shard is not None:
            rows = rows.shard(num_shards=shard[1], index=shard[0], contiguous=True)
        for row in rows:
            yield text_field(row, source.field, where)


def shards_of(source: SourceRecipe) -> int:
    """Of how many files the dataset of ``source`` consists."""
    with readable_dataset(f"dataset {source.dataset!r}"):
        return int(stream_dataset(source).num_shards)


def stream_dataset(source: SourceRecipe) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise SourceError(f"reading dataset {source.dataset!r} needs datasets: pip install datasets") from None
    return load_dataset(source.dataset, source.subset, split=source.split, revision=source.revision, streaming=True)


@contextmanager
def readable_dataset(where: str) -> Iterator[None]:
    """What the block raises of a dataset that is not there or damaged, as ``SourceError``."""
    try:
        yield
    except SourceError:
        raise
    except (OSError, ValueError, RuntimeError, HTTPError) as error:  # unreachable; no such dataset or subset; bad data
        raise SourceError(f"{where} cannot be read: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The message of another library without its line breaks."""
    return " ".join(str(error).split())


class Identities(NamedTuple):
    """Who the files and datasets of each source are, of the text to train on and of the held-out text."""

    text: list[list[SourceRecord]]
    held_out: list[list[SourceRecord]]

    def records(self) -> tuple[list[SourceRecord], list[SourceRecord]]:
        """All of the text, and all of the held-out text."""
        return list(chain.from_iterable(self.text)), list(chain.from_iterable(self.held_out))


def identify(data: DataRecipe) -> Identities:
    """What provenance records of every source: names without paths, and hashes or revisions; hashed on all cores.

    Raises:
        SourceError: a file is missing or of unknown kind, or the Hub cannot say which revision a dataset has.
    """
    held_out = data.held_out.sources if data.held_out is not None else []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        held, text = (list(pool.map(identities_of, sources)) for sources in (held_out, data.sources))
    return Identities(text, held)


def identities_of(source: SourceRecipe) -> list[SourceRecord]:
    """Name and sha256 of each file; or name, subset, split and commit of a dataset (of a local one, its sha256)."""
    for path in map(Path, source.files or []):
        reader_of(path)  # before anything is hashed
    if source.dataset is None:
        paths = [Path(name) for name in source.files or []]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            digests = list(pool.map(sha256_file, paths))
        return [{"name": path.name, "sha256": sha256} for path, sha256 in zip(paths, digests, strict=True)]
    chosen: SourceRecord = {"name": source.dataset, "subset": source.subset, "split": source.split}
    folder = Path(source.dataset)
    if folder.is_dir():
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        hashes = {name: sha256_file(path) for name, path in files.items()}
        return [{**chosen, "name": folder.name, "sha256": sha256_json(hashes)}]
    return [{**chosen, "revision": commit_of(source.dataset, source.revision)}]


def commit_of(dataset: str, revision: str | None) -> str:
    """The commit that ``revision`` (None: the newest) names; only a full sha needs no Hub."""
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(dataset, revision=revision).sha)
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        raise SourceError(
            f"dataset {dataset!r}: revision {revision or 'main'!r} cannot be looked up ({one_line(error)}); "
            "check the name, or set data.sources.revision to a full commit sha"
        ) from error


MISSED = 0.1  # of the share that was asked: a source that is further from it is told of


@dataclass
class Tally:
    """Tokens that were packed, by source; ``ended``: the source whose end left others with text that is not read."""

    tokens: list[int] = field(default_factory=list)
    ended: int | None = None


def tally_file(tokens: Path) -> Path:
    """Where the tally of a file of packed tokens lies."""
    return tokens.with_suffix(".json")


def corpus_record(data: DataRecipe, tokens: Path) -> CorpusRecord | None:
    """What provenance says of packed tokens; None when an earlier version packed them, which counted nothing."""
    if not tally_file(tokens).exists():
        return None
    tally: dict[str, Any] = read_json(tally_file(tokens))
    total, asked = sum(tally["tokens"]), sum(source.weight or 0 for source in data.sources)
    sources: list[dict[str, Any]] = [
        {"name": name_of(source), "tokens": count, "share": round(count / max(total, 1), 4)}
        | ({"asked": round(source.weight / asked, 4)} if source.weight else {})
        for source, count in zip(data.sources, tally["tokens"], strict=True)
    ]
    record: CorpusRecord = {"tokens": total, "normalized": data.normalize, "sources": sources}
    if tally["ended"] is not None:
        record["ended"] = name_of(data.sources[tally["ended"]])
    return record


def name_of(source: SourceRecipe) -> str:
    return source.dataset or ", ".join(Path(name).name for name in source.files or [])


def mixture_warning(record: CorpusRecord, asked_tokens: int | None) -> str | None:
    """What a weighted mixture of sources came to, if it ended early or a share is not what was asked."""
    missed = any(
        "asked" in source and abs(source["share"] - source["asked"]) > MISSED * source["asked"]
        for source in record["sources"]
    )
    if not missed and "ended" not in record:
        return None
    shares = "; ".join(
        f"{source['name']!r} {source['tokens']:,} tokens, {source['share']:.1%} (asked {source['asked']:.1%})"
        for source in record["sources"]
    )
    wanted = f" of {asked_tokens:,}" if asked_tokens is not None else ""
    early = (
        f" It ended with {record['ended']!r}, and what the other sources have beyond that is not read: give that "
        "source more text or a smaller weight."
        if "ended" in record
        else " A document is never divided, so that long ones miss a ratio: divide them, or pack more tokens."
    )
    return f"the mixture has {record['tokens']:,}{wanted} tokens: {shares}.{early}"

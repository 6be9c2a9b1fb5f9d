"""Whether the bytes of a checkpoint are those that were written."""

from collections.abc import Container
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import PROVENANCE_FILE
from frozen_glyph.checkpoint.files import CheckpointError, check_hashes, inside
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.provenance import file_hashes, read_provenance
from frozen_glyph.checkpoint.streaming import Window, content_sha256


def verify_shards(folder: Path, shards: dict[str, TensorFile], digests: dict[Window, str]) -> None:
    """Raise ``CheckpointError`` unless each of ``shards`` in ``folder`` holds what it was written with.

    What was read before has its sha256 in ``digests``; the rest is read now.
    """
    for shard, header in shards.items():
        check_contents(folder, shard, header, content_sha256(folder / shard, digests))


def check_contents(folder: Path, shard: str, header: TensorFile, content: str) -> None:
    """Raise ``CheckpointError`` unless ``content``, hashed from the bytes of ``shard``, is what it was written with.

    Where the header says something else or nothing, the provenance, if it knows the file, has the last word.
    """
    if content == header.content_sha256:
        return
    recorded = file_hashes(read_provenance(folder)) if (folder / PROVENANCE_FILE).exists() else {}
    if shard in recorded:
        check_hashes(folder, {shard: recorded[shard]})
    elif header.content_sha256 is not None:
        raise CheckpointError(
            f"{str(folder / shard)!r} is damaged: sha256 of its contents {content[:16]}…, written as "
            f"{header.content_sha256[:16]}…; fetch it again"
        )


def changed_files(folder: Path, provenance: dict[str, Any], known: Container[str] = ()) -> dict[str, str]:
    """Files with other bytes than ``provenance`` says, but for those ``known``, and what is wrong with each."""
    problems = {}
    for name, content in provenance.get("contents", {}).items():
        if name in known:
            continue
        try:
            if content_sha256(inside(folder, name)) != content:
                problems[name] = "is damaged: other contents than were written; fetch it again"
        except CheckpointError as error:
            problems[name] = str(error)
    for name, digest in file_hashes(provenance).items():
        try:
            check_hashes(folder, {name: digest})
        except CheckpointError as error:
            problems[name] = str(error)
    return {name: problem for name, problem in problems.items() if name not in known}

"""Whether the bytes of a checkpoint are those that were written."""

from pathlib import Path

from frozen_glyph.checkpoint.contract import PROVENANCE_FILE
from frozen_glyph.checkpoint.files import CheckpointError, TensorFile, check_hashes
from frozen_glyph.checkpoint.provenance import read_provenance
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
    recorded: dict[str, str] = {}
    if (folder / PROVENANCE_FILE).exists():
        provenance = read_provenance(folder)
        for entry in (provenance, *provenance.get("stages", [])):
            recorded |= entry.get("files", {})
    if shard in recorded:
        check_hashes(folder, {shard: recorded[shard]})
    elif header.content_sha256 is not None:
        raise CheckpointError(
            f"{str(folder / shard)!r} is damaged: sha256 of its contents {content[:16]}…, written as "
            f"{header.content_sha256[:16]}…; fetch it again"
        )

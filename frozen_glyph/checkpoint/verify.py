"""Whether the bytes of a checkpoint are those that were written. What is hashed, and when it is compared:

* A shard's header holds the sha256 of its contents (names, types, shapes and bytes of its tensors), an index those of
  its shards. ``provenance.json`` holds the sha256 of files of stages, adapters and dense exports, and as ``companions``
  of all that lies beside the shards: configurations, tokenizer, code, indexes, losses, pictures. The card is people's.
* Every load compares the headers with the index, and the substrate's bytes with its fingerprint.
  ``from_pretrained(..., verify=True)`` compares every byte of the shards, which takes longer than mapping them.
* Commands that write or report compare what decides: shards, ``config.json``, tokenizer, substrate, the index.
  ``merge`` and ``extract`` do while they copy, ``grow`` of its own run and of a parent, ``tune-head``, ``to-dense``,
  ``eval`` and ``inspect --health`` before they begin. A run's work folder has its own manifest (``manifest.py``), each
  part of an evaluation its own sha256.
* ``inspect --verify``, and ``push`` before it sends, compare every recorded file, say what nobody recorded, and name
  NaN in any shard.

What an earlier version did not record is not refused; JSON among it has to be JSON.
"""

from collections.abc import Callable, Container, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import PROVENANCE_FILE, is_read
from frozen_glyph.checkpoint.files import CheckpointError, check_hashes, inside, read_json, sha256_file
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.provenance import file_hashes, find_companions, read_provenance
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


def check_adapter(folder: Path) -> None:
    """Raise ``CheckpointError`` where an adapter's file is another than the checkpoint it lies in recorded."""
    home = folder.parent
    recorded = file_hashes(read_provenance(home)) if (home / PROVENANCE_FILE).exists() else {}
    check_hashes(home, {name: digest for name, digest in recorded.items() if name.startswith(f"{folder.name}/")})


def check_companions(folder: Path, provenance: Mapping[str, Any], but: Container[str] = ()) -> None:
    """Raise ``CheckpointError`` where a companion in ``folder`` that commands read has other bytes than were recorded.

    Those in ``but`` may have others. All that is JSON by its name is read.
    """
    recorded = provenance.get("companions", {})
    for name in sorted({*recorded, *find_companions(folder)}):
        there = name.endswith(".json") or (folder / name).exists()  # of the Hub only what is needed is fetched
        if name in recorded and is_read(name) and name not in but and there:
            check_companion(folder, name, recorded[name])
        elif name.endswith(".json") and (folder / name).exists():
            read_json(inside(folder, name))


def check_companion(folder: Path, name: str, digest: str) -> None:
    """Raise ``CheckpointError`` unless the companion ``name`` has the sha256 ``digest``."""
    path = inside(folder, name)
    if not path.is_file():
        raise CheckpointError(f"{str(path)!r} is missing; fetch or write the folder again")
    if sha256_file(path) != digest:
        raise CheckpointError(
            f"{str(path)!r} has other bytes than were written; fetch it again or, if you changed it yourself, take "
            f"its line out of companions in {PROVENANCE_FILE}"
        )


def changed_files(
    folder: Path, provenance: Mapping[str, Any], headers: Mapping[str, TensorFile], known: Container[str] = ()
) -> dict[str, str]:
    """Files with other bytes than were recorded, but for those ``known``, and what is wrong with each.

    ``headers`` are those of the shards, which say what their contents were.
    """
    files, companions = file_hashes(provenance), provenance.get("companions", {})
    contents = {name: header.content_sha256 for name, header in headers.items() if header.content_sha256}
    checks: dict[str, Callable[[], None]] = {
        name: partial(check_content, folder, name, content)
        for name, content in (contents | provenance.get("contents", {})).items()
    }
    checks |= {name: partial(check_file, folder, name, digest) for name, digest in files.items()}
    checks |= {name: partial(check_numbers, folder, name) for name in headers if name not in checks}
    checks |= {name: partial(check_companion, folder, name, digest) for name, digest in companions.items()}
    unread = (name for name in find_companions(folder) if name.endswith(".json") and name not in checks)
    checks |= {name: partial(read_json, folder / name) for name in list(unread)}
    problems = {}
    for name, check in checks.items():
        if name not in known:
            try:
                check()
            except CheckpointError as error:
                problems[name] = str(error)
    return problems


def check_file(folder: Path, name: str, digest: str) -> None:
    """Raise ``CheckpointError`` unless a file has the sha256 ``digest``; a shard must hold no NaN either."""
    check_hashes(folder, {name: digest})
    if name.endswith(".safetensors"):
        check_numbers(folder, name)


def check_numbers(folder: Path, name: str) -> None:
    """Raise ``CheckpointError``, which names the tensor, where a shard holds NaN."""
    content_sha256(inside(folder, name))


def check_content(folder: Path, name: str, content: str) -> None:
    """Raise ``CheckpointError`` unless a shard has the contents that hash to ``content``."""
    if content_sha256(inside(folder, name)) != content:
        raise CheckpointError("is damaged: other contents than were written; fetch it again")


def unrecorded_files(folder: Path, provenance: Mapping[str, Any], headers: Mapping[str, TensorFile]) -> list[str]:
    """Files of the checkpoint that nobody recorded, so that their bytes cannot be compared with anything."""
    recorded = {*file_hashes(provenance), *provenance.get("contents", {}), *provenance.get("companions", {})}
    recorded |= {name for name, header in headers.items() if header.content_sha256}
    return sorted({*find_companions(folder), *headers} - recorded)

"""Which files hold a checkpoint's weights, and what identifies these."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import (
    CONFIG_FILE,
    DEFAULT_INDEX,
    TOKENIZER_FILE,
    WEIGHTS,
    stage_index,
)
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    TensorFile,
    read_header,
    read_json,
    sha256_file,
    sha256_json,
)
from frozen_glyph.checkpoint.stages import read_weight_map


def find_index(folder: Path, config: dict[str, Any], stage: int | None = None) -> str | None:
    """File name of the index of ``stage``, or of what a plain load gives; None where one file holds everything.

    Raises:
        CheckpointError: the checkpoint has no such stage.
    """
    ladder = config.get("ladder") or []
    if stage is not None:
        if not 1 <= stage <= len(ladder):
            known = f"its stages are 1..{len(ladder)}" if ladder else "it was not grown in stages"
            raise CheckpointError(f"{str(folder)!r} has no stage {stage}; {known}")
        return stage_index(stage)
    if named := config.get("transformers_weights"):
        return named
    return DEFAULT_INDEX if (folder / DEFAULT_INDEX).exists() else None


def list_shards(folder: Path, index: str | None) -> list[str]:
    """The weight files that ``index`` names."""
    return [WEIGHTS] if index is None else sorted(set(read_weight_map(folder / index).values()))


def check_index(folder: Path, index: str | None, shards: dict[str, TensorFile]) -> None:
    """Raise ``CheckpointError`` where a shard is not the one that ``index`` was written for."""
    expected = {} if index is None else read_json(folder / index).get("metadata", {}).get("content_sha256", {})
    for name, header in shards.items():
        if header.content_sha256 != expected.get(name, header.content_sha256):
            raise CheckpointError(
                f"{str(folder / name)!r} is of another checkpoint than {index} or was changed; fetch it again"
            )


def weights_sha256(folder: Path, shards: Iterable[str] | None = None) -> str:
    """Hex sha256 that identifies weight files of a folder, by default all: equal for equal contents.

    Headers say the hash of a shard's contents, so that no tensor is read; a file that does not say it is hashed.
    """
    names = sorted(shards if shards is not None else (path.name for path in folder.glob("*.safetensors")))
    return sha256_json(
        {name: read_header(folder / name).content_sha256 or sha256_file(folder / name) for name in names}
    )


def checkpoint_sha256(folder: Path) -> str:
    """Hex sha256 of all that decides what a folder computes: weights, ``config.json`` and tokenizer."""
    files = [folder / name for name in (CONFIG_FILE, TOKENIZER_FILE) if (folder / name).exists()]
    return sha256_json([weights_sha256(folder), *((path.name, sha256_file(path)) for path in files)])

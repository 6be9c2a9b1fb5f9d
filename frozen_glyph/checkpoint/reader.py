"""Open a checkpoint: what its small files and the headers of its shards say; no tensor is read."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import (
    CONFIG_FILE,
    FETCHED_FIRST,
    PROVENANCE_FILE,
    SUBSTRATE_SHARD,
    TOKENIZER_FILE,
)
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    inside,
    read_header,
    read_json,
    sha256_file,
    sha256_json,
)
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stored import read_config
from frozen_glyph.checkpoint.streaming import Window
from frozen_glyph.checkpoint.tensors import SUBSTRATE_PREFIX
from frozen_glyph.checkpoint.weights import Weights, find_weights


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A folder with weights, whose headers are read where they are first asked for.

    ``headers_only``: of a source on the Hub no shard is fetched. Properties raise ``CheckpointError`` where there is no
    such stage, or a file is missing, truncated or of another checkpoint.
    """

    source: Source
    folder: Path
    config: dict[str, Any]
    provenance: dict[str, Any]
    headers_only: bool = False

    @property
    def label(self) -> str:
        """What the user called it."""
        return self.source.source

    @property
    def merged(self) -> bool:
        return "experts" in self.config

    @functools.cached_property
    def weights(self) -> Weights:
        """The weight files of its stage."""
        return find_weights(self.source, self.config)

    @functools.cached_property
    def shards(self) -> dict[str, TensorFile]:
        """The header of every weight file of its stage."""
        names = self.weights.shards
        if self.headers_only:
            found = {name: self.source.header(name) for name in names}
        else:
            self.source.fetch("checkpoint", names)
            found = {name: read_header(inside(self.folder, name)) for name in names}
        for name in self.weights.foreign(found):
            raise CheckpointError(
                f"{str(self.folder / name)!r} is of another checkpoint than {self.weights.file} or was changed; "
                "fetch it again"
            )
        return found

    @functools.cached_property
    def windows(self) -> dict[str, Window]:
        """Every tensor, by the name it has here."""
        return {
            name: Window.whole(self.folder / shard, tensor)
            for shard, header in self.shards.items()
            for name, tensor in header.tensors.items()
        }

    @property
    def linkable(self) -> dict[str, Path]:
        """The substrate's shard and the file that holds the same and nothing else, where its contents are recorded."""
        for shard, header in self.shards.items():
            if header.content_sha256 and all(name.startswith(SUBSTRATE_PREFIX) for name in header.tensors):
                return {SUBSTRATE_SHARD: self.folder / shard}
        return {}

    @functools.cached_property
    def parent(self) -> dict[str, Any]:
        """What is recorded of it as a parent."""
        stage, parents = self.source.stage, self.provenance.get("parents")
        return {
            **self.source.origin,
            **({} if stage is None else {"stage": stage}),
            "config_sha256": sha256_file(self.folder / CONFIG_FILE),
            **({"parents": parents} if parents else {}),
            **({} if self.headers_only else {"weights_sha256": weights_sha256(self.folder, self.shards)}),
        }


def open_checkpoint(what: str, source: Source, headers_only: bool = False) -> Checkpoint:
    """Read the small files of ``source``, which are fetched if it is on the Hub; ``what`` it is, is for errors.

    Raises:
        CheckpointError: there is no such checkpoint, or a small file is missing or damaged.
    """
    folder = source.fetch(what, FETCHED_FIRST)
    provenance = read_provenance(folder) if (folder / PROVENANCE_FILE).exists() else {}
    return Checkpoint(source.at(folder), folder, read_config(folder), provenance, headers_only)


def weights_sha256(folder: Path, shards: Iterable[str] | None = None) -> str:
    """Hex sha256 that identifies weight files of a folder, by default all: equal for equal contents.

    Headers say the hash of a shard's contents, so that no tensor is read; a file that does not say it is hashed.
    """
    names = sorted(shards if shards is not None else (path.name for path in folder.glob("*.safetensors")))
    return sha256_json(
        {name: read_header(inside(folder, name)).content_sha256 or sha256_file(folder / name) for name in names}
    )


def checkpoint_sha256(folder: Path) -> str:
    """Hex sha256 of all that decides what a folder computes: weights, ``config.json`` and tokenizer.

    Raises:
        CheckpointError: the folder is one of this package's and holds two sets of weights.
    """
    config = read_json(inside(folder, CONFIG_FILE))
    if isinstance(config, dict) and str(config.get("model_type")).startswith("frozen_glyph"):
        find_weights(Source(str(folder)), config)
    files = [folder / name for name in (CONFIG_FILE, TOKENIZER_FILE) if (folder / name).exists()]
    return sha256_json([weights_sha256(folder), *((path.name, sha256_file(path)) for path in files)])

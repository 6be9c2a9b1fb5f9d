"""Open a checkpoint: which weight files it means, and what its small files and headers say; no tensor is read."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.config import is_merged, is_ours
from frozen_glyph.checkpoint.contract import (
    ADAPTER_CONFIG,
    CONFIG_FILE,
    DEFAULT_INDEX,
    FETCHED_FIRST,
    PROVENANCE_FILE,
    SUBSTRATE_SHARD,
    WEIGHTS,
    stage_index,
)
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    check_index,
    inside,
    read_header,
    read_json,
    sha256_file,
    sha256_json,
)
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.loading import refuse_pickles
from frozen_glyph.checkpoint.provenance import file_hashes, read_provenance
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stored import read_config
from frozen_glyph.checkpoint.streaming import Window, content_sha256
from frozen_glyph.checkpoint.tensors import SUBSTRATE_PREFIX
from frozen_glyph.checkpoint.verify import check_companions, check_contents, verify_shards
from frozen_glyph.model.weights_frozen_glyph import INDEX_SUFFIX, choose_weights

# Files that decide what a folder computes, beside shards; a pickle is only hashed.
DECIDING = {".json", ".txt", ".model", ".jinja", ".py", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".gguf", ".tiktoken"}


@dataclass(frozen=True)
class Weights:
    """``file`` is what a load begins with, an index or the only shard; ``contents`` what the index says of shards."""

    file: str
    shards: tuple[str, ...]
    contents: Mapping[str, str | None]

    def foreign(self, found: Mapping[str, TensorFile]) -> list[str]:
        """Those of the headers ``found`` that are not of the shards that the index was written for."""
        contents = {name: header.content_sha256 for name, header in found.items()}
        return [name for name, content in contents.items() if content != self.contents.get(name, content)]


def first_file(source: Source, config: Mapping[str, Any]) -> str:
    """The file that a load of ``source`` at its stage begins with; ``config`` is its ``config.json``.

    It is what transformers' loader decides: the index of an earlier stage, the file that ``transformers_weights``
    names, ``model.safetensors``, the index of the default name.

    Raises:
        CheckpointError: there is no such stage.
    """
    stage, ladder = source.stage, config.get("ladder") or []
    if stage is not None and not 1 <= stage <= len(ladder):
        known = f"its stages are 1..{len(ladder)}" if ladder else "it was not grown in stages"
        raise CheckpointError(f"{source.source!r} has no stage {stage}; {known}")
    if stage is not None and stage < len(ladder):
        return stage_index(stage)
    return choose_weights(source.holds, config.get("transformers_weights"))


def find_weights(source: Source, config: Mapping[str, Any]) -> Weights:
    """The weight files of ``source`` at its stage, or of what a plain load gives; see ``first_file``.

    Raises:
        CheckpointError: there is no such stage; an index is missing, damaged or names what is not in the folder; there
            are pickles only; or other weights lie there too, as after ``save_pretrained`` into a folder that had some.
    """
    if source.folder is not None:
        refuse_pickles(source.folder)
    found, ladder = read_weights(source, first_file(source, config)), config.get("ladder") or []
    if source.stage in (None, len(ladder)):
        rivals = [WEIGHTS]
        if not config.get("transformers_weights"):
            rivals += [DEFAULT_INDEX, *([stage_index(len(ladder))] if ladder else [])]
        others = [read_weights(source, name) for name in rivals if name != found.file and source.holds(name)]
        if others := [other for other in others if other.shards != found.shards]:
            raise CheckpointError(two_answers(source, found, others))
    if source.holds(ADAPTER_CONFIG):
        raise CheckpointError(
            f"{source.source!r} holds {ADAPTER_CONFIG} beside its weights, an adapter that from_pretrained adds to "
            f"them; move its files into a folder of its own and name that as {source.source}+ADAPTER"
        )
    return found


def read_weights(source: Source, file: str) -> Weights:
    """What ``file`` of ``source`` names: an index its shards, any other itself."""
    if not file.endswith(INDEX_SUFFIX):
        return Weights(file, (file,), {})
    index = source.json(file)
    if index is None:
        raise CheckpointError(f"{f'{source.source}/{file}'!r} does not exist; fetch or write the folder again")
    check_index(Path(source.source) / file, index)
    contents = index.get("metadata", {}).get("content_sha256")
    shards = tuple(sorted(set(index["weight_map"].values())))
    return Weights(file, shards, contents if isinstance(contents, dict) else {})


def two_answers(source: Source, loaded: Weights, rivals: list[Weights]) -> str:
    """What to say of a folder where other weights lie beside those that load."""
    first, files = rivals[0], " ".join(f"{source.source}/{rival.file}" for rival in rivals)
    names = [shard for shard in first.shards if shard not in loaded.shards] or list(first.shards)
    back = f"rm {source.source}/{loaded.file}"
    if loaded.file != WEIGHTS:
        back = f"cp {source.source}/{first.file} {source.source}/{loaded.file}"
    if first.file == WEIGHTS:
        back = f"mv {source.source}/{WEIGHTS} NEW_FOLDER"
    return (
        f"{source.source!r} holds two models: from_pretrained loads {loaded.file}, beside it {first.file} means "
        f"{names[0]}; keep the first by `rm {files}`, or the other by `{back}`"
    )


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
        return is_merged(self.config)

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

    def verify(self, digests: dict[Window, str]) -> None:
        """Raise ``CheckpointError`` unless its shards and what lies beside them are what was written.

        What was read before has its sha256 in ``digests``; the rest is read now.
        """
        self.check_companions()
        verify_shards(self.folder, self.shards, digests)

    def check_companions(self) -> None:
        """Compare what lies beside the shards with its record, unless that tells of other weights than are loaded.

        Where transformers saved its own ``config.json`` over that of a run, the run's weights may have been kept.
        """
        known, loaded = {*file_hashes(self.provenance), *self.provenance.get("contents", {})}, set(self.weights.shards)
        if not known or known >= loaded:
            in_stages = self.provenance.get("kind") in ("growth", "import")
            saved_over = in_stages and "transformers_weights" not in self.config
            unused = {name for name in self.provenance.get("companions", {}) if name.endswith(INDEX_SUFFIX)}
            but = unused - {self.weights.file} | ({CONFIG_FILE} if saved_over else set())
            check_companions(self.folder, self.provenance, but)

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
    """Hex sha256 of the bytes of all that decides what a folder computes: weights, configurations, tokenizer, code.

    What provenance and headers record of these bytes is compared with them on the way.

    Raises:
        CheckpointError: a file has other bytes than were recorded, or the folder is one of this package's and holds two
            sets of weights.
    """
    config = read_json(inside(folder, CONFIG_FILE))
    if isinstance(config, dict) and is_ours(config):
        open_checkpoint("model", Source(str(folder))).check_companions()
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            digests[path.name] = hash_once(any_content_sha256, inside(folder, path.name))
            check_contents(folder, path.name, read_header(path), digests[path.name])
        elif path.suffix in DECIDING and path.is_file() and path.name != PROVENANCE_FILE:
            digests[path.name] = hash_once(sha256_file, inside(folder, path.name))
    return sha256_json(digests)


def any_content_sha256(path: Path) -> str:
    """``content_sha256`` of weights that may hold NaN, which an evaluation tells of the losses."""
    return content_sha256(path, allow_nan=True)


def hash_once(hashed: Callable[[Path], str], path: Path) -> str:
    """``hashed(path)``, from memory where this process hashed the same file before and it was not written since."""
    state = path.stat()
    return hash_state(hashed, path, state.st_size, state.st_mtime_ns, state.st_ino)


@functools.cache
def hash_state(hashed: Callable[[Path], str], path: Path, size: int, modified: int, inode: int) -> str:
    return hashed(path)

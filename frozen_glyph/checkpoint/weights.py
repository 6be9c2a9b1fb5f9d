"""Which weight files a checkpoint means: those that ``from_pretrained`` reads, and no others beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import ADAPTER_CONFIG, DEFAULT_INDEX, WEIGHTS, stage_index
from frozen_glyph.checkpoint.files import CheckpointError, check_index
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.loading import refuse_pickles
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.model.weights_frozen_glyph import INDEX_SUFFIX, choose_weights


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

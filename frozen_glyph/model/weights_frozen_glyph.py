"""Which files a folder means by its weights, as transformers' loader decides, and names that stay in their folder.

No torch here: what merges and inspects checkpoints without loading a model asks these very functions.
"""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_SUFFIX, INDEX_SUFFIX = ".safetensors", ".safetensors.index.json"
SAVED_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")  # names that ``save_pretrained`` gives, and clears
HUB_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")  # a repository's folder in the Hub's cache
HUB_BLOB, HUB_SHARED_BLOB = re.compile(r"blobs/[^/]+"), re.compile(r"blobs/[0-9a-f]{2}/[0-9a-f]{64}")


def stage_index(growth_stage: int) -> str:
    """File name of the index of a growth stage."""
    return f"stage-{growth_stage}{INDEX_SUFFIX}"


def choose_weights(holds: Callable[[str], bool], named: str | None = None) -> str:
    """The file that a load begins with, an index or all there is: the one that ``config.json`` names, or the default.

    ``holds`` says whether the folder has a file, ``named`` is ``transformers_weights``.
    """
    if named is not None:
        return named
    return INDEX if holds(INDEX) and not holds(WEIGHTS) else WEIGHTS


def shard_names(index: Any) -> list[str]:
    """Names of the shards that the content of an index file names, each of them a name that stays in its folder.

    Raises:
        ValueError: it is no index, or a name leads out of the folder or is of no safetensors file.
    """
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not isinstance(index.get("metadata", {}), dict):
        raise ValueError("it has no weight_map with metadata")
    for name in shards.values():
        check_name(name)
        if not name.endswith(SHARD_SUFFIX):
            raise ValueError(f"it names {name!r}, which is no {SHARD_SUFFIX} file; pickles are never opened")
    return sorted(set(shards.values()))


def check_name(name: Any) -> None:
    """Raise ``ValueError`` unless ``name`` is a relative path that cannot lead out of a folder, on any system."""
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no file name")
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    outside = name.startswith("/") or PureWindowsPath(name).drive or "\\" in name or ".." in parts
    if outside or not parts or not name.isprintable():
        raise ValueError(f"{name!r} is no name of a file inside its folder")


def find_inside(folder: Path, name: str) -> Path:
    """``folder / name``, if that is a regular file of the folder, or is not there.

    The Hub's cache, whose files are links to ``blobs`` beside ``snapshots``, is the only folder whose links lead out.

    Raises:
        ValueError: the name or a link leads out of the folder, or it is no regular file.
    """
    check_name(name)
    path = folder / name
    try:
        root, target = folder.resolve(), path.resolve()
        regular = target.is_file() or not target.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        raise ValueError(f"{str(path)!r} cannot be opened: {error}") from None
    if not target.is_relative_to(root) and not is_cached(root, target):
        raise ValueError(f"{str(path)!r} is a link that leads out of its folder, to {str(target)!r}")
    if not regular:
        raise ValueError(f"{str(path)!r} is no regular file")
    return path


def is_cached(folder: Path, target: Path) -> bool:
    """Whether ``target`` is where the Hub's cache keeps the files of ``folder``, one of its snapshots."""
    for snapshots in folder.parents:
        repository = snapshots.parent
        if snapshots.name == "snapshots" and HUB_REPOSITORY.fullmatch(repository.name):
            layouts = ((repository, HUB_BLOB), (repository.parent, HUB_SHARED_BLOB))
            return any(
                target.is_relative_to(home) and layout.fullmatch(target.relative_to(home).as_posix())
                for home, layout in layouts
            )
    return False

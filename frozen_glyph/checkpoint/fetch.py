"""Checkpoints by name: a folder, or a Hub id of which only the named files are fetched."""

from collections.abc import Iterable
from pathlib import Path

from frozen_glyph.checkpoint.files import CheckpointError


def fetch(what: str, source: str, names: Iterable[str], revision: str | None = None) -> Path:
    """The folder ``source``, or that of the cache after the files ``names`` (patterns) were fetched from the Hub.

    The cache's folder has the name of the commit. ``what`` the source is, such as ``parent``, is for the error.

    Raises:
        CheckpointError: ``source`` is no folder and cannot be fetched.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download  # slow to import, and local folders do without

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(names)))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{what} {source!r} is no folder and cannot be fetched from the Hub: {error}; "
            "name a checkpoint folder or a repository that you can read"
        ) from error

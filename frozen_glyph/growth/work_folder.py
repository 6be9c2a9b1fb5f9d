"""The work folder of a run: what it keeps of the stage that trains, until that is written."""

import logging
from pathlib import Path

from frozen_glyph.checkpoint.contract import WORK_FOLDER
from frozen_glyph.checkpoint.files import CheckpointError, folder_in, read_header
from frozen_glyph.checkpoint.manifest import MANIFEST_FILE, Manifest
from frozen_glyph.checkpoint.streaming import content_sha256
from frozen_glyph.training.trainer import remove_checkpoints

TRAINED, PHASE = "trained.safetensors", "phase.json"  # what a finished phase leaves; the latter, written last, marks it
MOMENTS, TRUNK = "moments.safetensors", "trunk.safetensors"  # what the stage before left: Adam's, what it trained
logger = logging.getLogger(__name__)


def open_work(out: Path) -> Manifest:
    """What the run in ``out`` recorded of its work; ``CheckpointError`` where its folder is a link."""
    return Manifest(folder_in(out, WORK_FOLDER))


def clear_work(work: Manifest, name: str) -> None:
    """Delete what a stage kept in its folder ``name``; files of others stay."""
    for folder in work.folders:
        if folder.startswith(f"{name}/"):
            remove_checkpoints(work.folder / folder)
    work.remove(name)


def adopt_work(work: Manifest) -> None:
    """Record what a version that kept no manifest left of a run that is known to be this one.

    What a phase trained is taken over where it has the contents that its own header says.
    """
    if (work.folder / MANIFEST_FILE).exists():
        return
    for folder in sorted(path for path in work.folder.glob("stage-*/*") if path.name in ("blocks", "lora")):
        name, trained = folder.relative_to(work.folder).as_posix(), folder / TRAINED
        work.make(name)
        try:
            if (folder / PHASE).is_file() and content_sha256(trained) == read_header(trained).content_sha256:
                work.record(f"{name}/{TRAINED}", f"{name}/{PHASE}")
                logger.warning("%r was not recorded when it was written; it is taken as it is", str(folder / PHASE))
        except CheckpointError as error:
            logger.warning("%s", error)
    states = [path.relative_to(work.folder).as_posix() for path in work.folder.glob("stage-*/prefix-*")]
    if states:
        work.record(*states, in_place=True)

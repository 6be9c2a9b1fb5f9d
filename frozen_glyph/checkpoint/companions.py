"""What goes along with the weights: the model's code, tokenizer, the substrate's description."""

from pathlib import Path

from frozen_glyph.checkpoint.contract import CODE_FILES, copied_by
from frozen_glyph.checkpoint.files import copy_file

MODEL_ROOM = Path(__file__).parents[1] / "model"


def copy_model_code(folder: Path) -> None:
    """Put the files of the model room beside the weights, for machines that load with ``trust_remote_code``."""
    for source in sorted(MODEL_ROOM.glob(CODE_FILES)):
        copy_file(source, folder / source.name)


def copy_companions(source: Path, folder: Path, verb: str, stages: int = 0) -> None:
    """Put into ``folder`` the model's code, and of ``source`` what ``verb`` takes over, as far as it is there."""
    copy_model_code(folder)
    for name in copied_by(verb, stages):
        if (source / name).exists():
            copy_file(source / name, folder / name)

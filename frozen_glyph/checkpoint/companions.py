"""What goes along with the weights: the model's code, tokenizer, the substrate's description."""

from pathlib import Path

from frozen_glyph.checkpoint.contract import CHAT_TEMPLATES, CODE_FILES, TOKENIZER_CONFIG, copied_by
from frozen_glyph.checkpoint.files import copy_file, inside, read_json, write_json

MODEL_ROOM = Path(__file__).parents[1] / "model"
LENGTH = "model_max_length"  # in tokenizer_config.json


def copy_model_code(folder: Path) -> None:
    """Put the files of the model room beside the weights, for machines that load with ``trust_remote_code``."""
    for source in model_code():
        copy_file(source, folder / source.name)


def model_code() -> list[Path]:
    """The files of the model room."""
    return sorted(MODEL_ROOM.glob(CODE_FILES))


def copy_companions(source: Path, folder: Path, verb: str, positions: int, stages: int = 0) -> None:
    """Put into ``folder`` the model's code, and of ``source`` what ``verb`` takes over, as far as it is there.

    The tokenizer's ``model_max_length`` becomes ``positions``, what the model in ``folder`` reads at most.
    """
    copy_model_code(folder)
    for name in companions(source, verb, stages):
        copy_file(inside(source, name), folder / name)
    path = folder / TOKENIZER_CONFIG
    settings = read_json(path) if path.exists() else {}
    if isinstance(settings, dict) and settings.get(LENGTH, positions) != positions:
        write_json(path, settings | {LENGTH: positions})


def check_links(folder: Path) -> None:
    """Raise ``CheckpointError`` where a file that a tokenizer's loader may open is a link out of ``folder``."""
    for path in (*folder.iterdir(), *folder.glob(CHAT_TEMPLATES)):
        if not path.is_dir():
            inside(folder, path.relative_to(folder).as_posix())


def companions(source: Path, verb: str, stages: int = 0) -> list[str]:
    """Names of the files of ``source`` that ``verb`` takes over."""
    found = [path for name in copied_by(verb, stages) for path in sorted(source.glob(name))]
    return [path.relative_to(source).as_posix() for path in found]

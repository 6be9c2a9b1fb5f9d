"""What goes along with the weights: the model's code, tokenizer, the substrate's description."""

from pathlib import Path

from frozen_glyph.checkpoint.contract import CODE_FILES, SUBSTRATE_FILE, TOKENIZER_FILE
from frozen_glyph.checkpoint.files import copy_file

MODEL_ROOM = Path(__file__).parents[1] / "model"
SHARED_FILES = (TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", SUBSTRATE_FILE)


def copy_model_code(folder: Path) -> None:
    """Put the files of the model room beside the weights, for machines that load with ``trust_remote_code``."""
    for source in sorted(MODEL_ROOM.glob(CODE_FILES)):
        copy_file(source, folder / source.name)


def copy_companions(source: Path, folder: Path) -> None:
    """Put tokenizer, the substrate's description and the model's code into ``folder``."""
    copy_model_code(folder)
    for name in SHARED_FILES:
        if (source / name).exists():
            copy_file(source / name, folder / name)

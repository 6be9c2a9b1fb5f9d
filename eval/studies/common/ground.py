"""What the models of a study stand on: texts by language, and one substrate over a vocabulary learnt from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.studies.common.scale import Scale
from frozen_glyph import GlyphSubstrate, build_tokenizer
from frozen_glyph.text.documents import read_text, split_documents


def text_file(data: Path, language: str, held_out: bool = False) -> Path:
    """The training text of a language in the folder of ``--data``, or its held-out text."""
    return data / "text" / f"{language}{'.valid' if held_out else ''}.txt"


def held_out_text(data: Path, language: str, characters: int | None = None) -> str:
    """The beginning of the held-out text of a language; None: all of it."""
    return read_text(text_file(data, language, held_out=True))[:characters]


def build_ground(files: Sequence[Path], scale: Scale, work: Path, characters: int | None = None) -> None:
    """The substrate of a study in ``work``, its vocabulary learnt from the first ``characters`` of each of ``files``;
    what is there already stays."""
    if not (work / "substrate" / "substrate.json").exists():
        documents = [document for file in files for document in split_documents(read_text(file)[:characters])]
        tokenizer = build_tokenizer(documents, scale.vocab_size, reserved=0)  # as in the results that are kept
        GlyphSubstrate.build(tokenizer, width=scale.hidden_size).save_pretrained(work / "substrate")


def tokenizer_of(work: Path) -> Any:
    """The tokenizer that ``build_ground`` learnt."""
    return GlyphSubstrate.from_pretrained(work / "substrate").tokenizer

"""What the models of a study stand on: texts by language in three parts, and one substrate over a vocabulary learnt
from the first.

Training text is `text/LANGUAGE.txt` of the data folder but for documents drawn from it: these are the **reported**
text, many, because documents are the units of every interval. `text/LANGUAGE.valid.txt` is the **development** text, on
which whatever a study chooses is chosen: learning rates, windows, members. No choice ever sees the reported text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.studies.common.scale import Scale
from frozen_glyph import GlyphSubstrate, build_tokenizer
from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.statistics import MIN_UNITS
from frozen_glyph.text.documents import read_text, split_documents

REPORTED = 24  # documents of a language, or a quarter of those there are
LONGEST = 100_000  # characters of a document that may be drawn: whole novels stay in the training text


def source_file(data: Path, language: str, development: bool = False) -> Path:
    """The text of a language in the folder of ``--data``, or its development text."""
    return data / "text" / f"{language}{'.valid' if development else ''}.txt"


def training_file(work: Path, language: str) -> Path:
    """The training text of a language, which ``split_texts`` wrote."""
    return work / "texts" / f"{language}.txt"


def development_text(data: Path, language: str, scale: Scale) -> str:
    """The development text of a language, the beginning of each of its documents."""
    documents = split_documents(read_text(source_file(data, language, development=True)))
    return "\n\n".join(document[: scale.development] for document in documents)


def reported_text(work: Path, language: str) -> str:
    """The documents of a language that results are reported on."""
    return read_text(work / "texts" / f"{language}.reported.txt")


def split_texts(data: Path, languages: Sequence[str], scale: Scale, work: Path) -> None:
    """Write the training and the reported text of each language; what is there already stays."""
    for language in languages:
        if training_file(work, language).exists():
            continue
        documents = split_documents(read_text(source_file(data, language)))
        short = [place for place, document in enumerate(documents) if len(document) <= LONGEST]
        count = min(REPORTED, len(short) // 4)
        if count < MIN_UNITS:
            raise FrozenGlyphError(
                f"{str(source_file(data, language))!r} has {len(short)} documents of at most {LONGEST:,} characters; "
                f"at least {4 * MIN_UNITS} are needed, of which a quarter is kept to report on"
            )
        drawn = set(np.random.default_rng(0).permutation(short)[:count].tolist())
        reported = [documents[place][: scale.shown] for place in sorted(drawn)]
        training = [document for place, document in enumerate(documents) if place not in drawn]
        write_text(work / "texts" / f"{language}.reported.txt", "\n\n".join(reported) + "\n")
        write_text(training_file(work, language), "\n\n".join(training) + "\n")  # the mark that both are there


def build_ground(files: Sequence[Path], scale: Scale, work: Path, characters: int | None = None) -> None:
    """The substrate of a study in ``work``, its vocabulary learnt from the first ``characters`` of each of ``files``;
    what is there already stays."""
    if not (work / "substrate" / "substrate.json").exists():
        documents = [document for file in files for document in split_documents(read_text(file)[:characters])]
        tokenizer = build_tokenizer(documents, scale.vocab_size)
        GlyphSubstrate.build(tokenizer, width=scale.hidden_size).save_pretrained(work / "substrate")


def prepare_ground(
    data: Path, languages: Sequence[str], scale: Scale, work: Path, characters: int | None = None
) -> None:
    """Both: the texts, and the substrate over the training texts."""
    split_texts(data, languages, scale, work)
    build_ground([training_file(work, language) for language in languages], scale, work, characters)


def tokenizer_of(work: Path) -> Any:
    """The tokenizer that ``build_ground`` learnt."""
    return GlyphSubstrate.from_pretrained(work / "substrate").tokenizer

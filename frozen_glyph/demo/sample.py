"""A small text in each language, to grow on when one has none at hand: Wikipedia articles, or the demo's own text.

Command: ``frozen-glyph data sample data``

No text is shipped. Articles are fetched from the Hub's ``wikimedia/wikipedia``, whose licence is written beside them;
``synthetic`` writes the demo's corpus, which needs no network.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.checkpoint.places import check_place
from frozen_glyph.demo.corpus import SYNTHETIC_NOTE, Corpus, build_corpus
from frozen_glyph.demo.documents import LANGUAGES
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import SourceError
from frozen_glyph.training.recipe import SourceRecipe
from frozen_glyph.training.sources import commit_of, documents

ARTICLES = "wikimedia/wikipedia"
SNAPSHOT = "20231101"
LICENCE = "CC BY-SA 3.0 and GFDL, as its card says"
HELD_OUT = 20  # of so many articles one is kept out of training
MEGABYTES = 6.0
ORIGIN_FILE = "SOURCES.md"
WITHOUT_NETWORK = "or give `grow` text of your own (--text, --valid), or write synthetic text, offline: --synthetic"


def write_sample(
    folder: str | Path,
    languages: Sequence[str] = LANGUAGES,
    megabytes: float = MEGABYTES,
    synthetic: bool = False,
    seed: int = 0,
    dataset: str = ARTICLES,
) -> list[Path]:
    """Write ``LANGUAGE.txt`` and ``LANGUAGE.valid.txt`` of each language into ``folder``, and where they are from.

    A blank line ends a document, a line is a paragraph. Texts that are there stay as they are.

    Args:
        languages: of Wikipedia, such as ``sw``; with ``synthetic`` en, ru and zh.
        megabytes: of training text in each language, at most; of ``synthetic`` text there are about 3.
        seed: of ``synthetic`` text.
        dataset: Hub id, or a folder, with a configuration ``20231101.LANGUAGE`` for each language.

    Returns:
        The files of text, old and new.

    Raises:
        FrozenGlyphError: of a language only one of the two files is there; the demo writes none in this language.
        SourceError: the articles cannot be read, for example without a network.
        CheckpointError: nothing can be written into ``folder``.
    """
    check_place(folder)
    folder = Path(folder)
    pairs = {language: (folder / f"{language}.txt", folder / f"{language}.valid.txt") for language in languages}
    missing = [language for language, pair in pairs.items() if not is_there(*pair)]
    if synthetic and (unknown := [language for language in missing if language not in LANGUAGES]):
        raise FrozenGlyphError(f"language {unknown[0]!r}: synthetic text is in {', '.join(LANGUAGES)} only")
    if not missing:
        return [path for pair in pairs.values() for path in pair]
    if synthetic:
        texts, origin = by_language(build_corpus(seed), megabytes), SYNTHETIC_NOTE
    else:
        try:
            commit = None if Path(dataset).is_dir() else commit_of(dataset, None)
            texts = {language: articles(dataset, commit, language, megabytes) for language in missing}
        except SourceError as error:
            raise SourceError(f"{error}; {WITHOUT_NETWORK}") from error
        origin = f"articles of {dataset}, revision {commit}, snapshot {SNAPSHOT}; licence: {LICENCE}"
    for language in missing:
        for path, written in zip(pairs[language], texts[language], strict=True):
            write_text(path, "\n\n".join(written) + "\n")
    told = folder / ORIGIN_FILE
    before = told.read_text("utf-8") if told.exists() else ""
    write_text(told, f"{before}{', '.join(missing)}: {origin}\n")
    return [path for pair in pairs.values() for path in pair]


def is_there(train: Path, valid: Path) -> bool:
    """Whether both texts of a language are there; ``FrozenGlyphError`` where it is one of them."""
    if train.exists() != valid.exists():
        there, absent = (train, valid) if train.exists() else (valid, train)
        raise FrozenGlyphError(f"{str(there)!r} is there without {absent.name!r}; choose a new folder, or move it")
    return train.exists()


def articles(dataset: str, commit: str | None, language: str, megabytes: float) -> tuple[list[str], list[str]]:
    """Articles to train on, of ``megabytes`` altogether, and every twentieth, to score on.

    Raises:
        SourceError: they cannot be read, or are too few to keep one out.
    """
    source = SourceRecipe(dataset=dataset, subset=f"{SNAPSHOT}.{language}", revision=commit)
    found = list(up_to(documents(source), megabytes * 1e6))
    if len(found) < HELD_OUT:
        raise SourceError(f"dataset {dataset!r} has {len(found)} articles in {language!r}, fewer than {HELD_OUT}")
    train = [article for number, article in enumerate(found, start=1) if number % HELD_OUT]
    return train, found[HELD_OUT - 1 :: HELD_OUT]


def up_to(texts: Iterable[str], size: float) -> Iterator[str]:
    """``texts`` with no blank line inside, until they have ``size`` bytes."""
    sizes = 0
    for text in texts:
        paragraphs = re.sub(r"\s*\n\s*", "\n", text.strip())
        sizes += len(paragraphs.encode())
        yield paragraphs
        if sizes >= size:
            return


def by_language(corpus: Corpus, megabytes: float = MEGABYTES) -> dict[str, tuple[list[str], list[str]]]:
    """The documents that experts are trained on by their language, of ``megabytes`` at most, and the held-out texts."""
    by_expert = {expert: text.strip().split("\n\n") for expert, text in corpus.train.items()}
    train = {expert: [document for document in own if not document.isascii()] for expert, own in by_expert.items()}
    train["en"] = [document for document in itertools.chain(*by_expert.values()) if document.isascii()]
    train = {language: list(up_to(own, megabytes * 1e6)) for language, own in train.items()}
    return {language: (train[language], corpus.valid[language].strip().split("\n\n")) for language in LANGUAGES}

"""What the runs of the substrate study read: a sample of some languages, its tokenizer, and the losses of guessing."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from eval.studies.common import scale as common
from eval.studies.common.ground import source_file
from frozen_glyph import build_tokenizer
from frozen_glyph.checkpoint.files import sha256_file, sha256_json, write_json, write_text
from frozen_glyph.substrate.choices import VOCABULARIES
from frozen_glyph.substrate.vocabulary import tokenizer_sha256
from frozen_glyph.text.documents import read_text, split_documents
from frozen_glyph.training.data import TokenWindows, pack
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

LANGUAGES = ("en", "ru", "zh")
LONGEST = 12_000  # characters read of a document that is scored
PIECE = 4096  # characters: at least so much of a book stays together in the training text


@dataclasses.dataclass(frozen=True)
class Scale(common.Scale):
    hidden_size: int = 256
    heads: int = 8
    layers: int = 2
    steps: int = 400
    megabytes: float = 3.0  # of training text, all languages together
    development_characters: int = 12_000  # of each language at least
    held_out_characters: int = 80_000  # likewise
    held_out_documents: int = 12
    warmup_steps: int = 50
    final_learning_rate_ratio: float = 0.1
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    languages: tuple[str, ...] = LANGUAGES

    def settings(self) -> dict[str, Any]:
        """As the results name them."""
        return dataclasses.asdict(self) | {
            "width": self.hidden_size,
            "batch_size": self.batch_tokens // self.context_length,
            "tokens": self.steps * self.batch_tokens,
        }


SMOKE = Scale(
    hidden_size=64, heads=2, vocab_size=512, context_length=64, batch_tokens=128, layers=1, steps=8, megabytes=0.06,
    development_characters=1000, held_out_characters=1000, held_out_documents=1, warmup_steps=2,
)  # fmt: skip


def sample_text(text: str, size: int) -> str:
    """About ``size`` bytes of ``text``: runs of whole paragraphs, drawn with a fixed seed, each its own document."""
    pieces = []
    for document in split_documents(text):
        lines: list[str] = []
        for line in document.splitlines():
            lines.append(line)
            if sum(map(len, lines)) >= PIECE:
                pieces.append("\n".join(lines))
                lines = []
        pieces += ["\n".join(lines)] if lines else []
    taken, total = [], 0
    for index in np.random.default_rng(0).permutation(len(pieces)):
        if total >= size:
            break
        taken.append(pieces[index])
        total += len(pieces[index].encode())
    return "\n\n".join(taken) + "\n"


def study_folder(scale: Scale, data: Path, work: Path) -> Path:
    """The folder in ``work`` of a study of just this scale and these texts, so that runs of others are not taken."""
    return work / sha256_json(identity(scale, data))[:12]


def identity(scale: Scale, data: Path) -> dict[str, Any]:
    files = [source_file(data, language, held_out) for language in scale.languages for held_out in (False, True)]
    for path in files:
        read_text(path)  # a missing file is named before anything is written
    settings = dataclasses.asdict(scale)
    del settings["languages"]  # the texts name them
    return {"settings": settings, "texts": {path.name: sha256_file(path) for path in files}}


def take_last(documents: list[str], enough: Callable[[list[str]], bool]) -> list[str]:
    """Take documents off the end of ``documents`` until there are enough; each comes back cut to ``LONGEST``."""
    taken: list[str] = []
    while len(documents) > 1 and not enough(taken):
        taken.append(documents.pop()[:LONGEST])
    return taken


def text_of(folder: Path, language: str, part: str) -> str:
    """``training``, ``development`` (to choose learning rates by) or ``held-out`` text, which ``prepare`` wrote."""
    return read_text(folder / f"{language}.{part}.txt")


def prepare(scale: Scale, data: Path, folder: Path) -> None:
    """Part the texts, sample the training text, learn the tokenizer and pack the text, once.

    The vocabulary is learnt from all the text to train on, so that some of it is rare in the sample of it.
    """
    if not (folder / "study.json").exists():
        learn_tokenizer(part_texts(scale, data, folder), scale).save_pretrained(folder)
        open_windows(folder, AutoTokenizer.from_pretrained(folder), scale.context_length)
        write_json(folder / "study.json", identity(scale, data))  # the mark that the folder is complete


def learn_tokenizer(texts: list[str], scale: Scale) -> Any:
    """Of the vocabulary that ``scale`` names."""
    vocabulary = "bmp" if scale.vocab_size == VOCABULARIES["bmp"] else scale.vocab_size
    return build_tokenizer(texts, vocabulary, reserved=0)


def part_texts(scale: Scale, data: Path, folder: Path) -> list[str]:
    """Write the parts of each language's text, a sample to train on among them; all the text to train on comes back.

    The last documents of each training text are held back: a few to choose by, and as many beside the held-out text as
    intervals over documents need.
    """
    share = int(scale.megabytes * 1e6 / len(scale.languages))
    texts = []
    for language in scale.languages:
        documents = split_documents(read_text(source_file(data, language)))
        held_out = [document[:LONGEST] for document in split_documents(read_text(source_file(data, language, True)))]
        parts = {
            "development": take_last(documents, lambda taken: size_of(taken) >= scale.development_characters),
            "held-out": held_out
            + take_last(
                documents,
                lambda taken, known=held_out: (
                    len(known + taken) >= scale.held_out_documents
                    and size_of(known + taken) >= scale.held_out_characters
                ),
            ),
        }
        texts.append("\n\n".join(documents))
        parts["training"] = [sample_text(texts[-1], share)]
        for part, chosen in parts.items():
            write_text(folder / f"{language}.{part}.txt", "\n\n".join(chosen))
    return texts


def size_of(documents: list[str]) -> int:
    return sum(map(len, documents))


def open_windows(folder: Path, tokenizer: Any, context_length: int) -> TokenWindows:
    """The training text of all languages as numbered windows of tokens."""
    return pack_windows(sorted(folder.glob("*.training.txt")), folder, tokenizer, context_length)


def pack_windows(files: list[Path], folder: Path, tokenizer: Any, context_length: int) -> TokenWindows:
    """Texts as numbered windows of tokens, packed into ``folder`` once."""
    sources = [SourceRecipe(files=[str(path) for path in files])]
    tokens = pack(DataRecipe(sources), tokenizer, tokenizer_sha256(tokenizer), folder)
    return TokenWindows(tokens, context_length, with_index=True)


def chance_levels(folder: Path, scale: Scale) -> dict[str, dict[str, float]]:
    """Nats per character of guessing: all tokens equally likely, and as often as in the training text (plus one)."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    counts = np.bincount(open_windows(folder, tokenizer, scale.context_length).tokens, minlength=len(tokenizer)) + 1
    nats = -np.log(counts / counts.sum())
    levels = {}
    for language in scale.languages:
        documents = split_documents(text_of(folder, language, "held-out"))
        ids = np.concatenate([tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents])
        characters = sum(map(len, documents))
        uniform = len(ids) * math.log(len(tokenizer)) / characters
        levels[language] = {"uniform": uniform, "unigram": float(nats[ids].sum()) / characters}
    return levels

"""What the runs of the unseen study read: texts to train on, unseen texts in two parts, a vocabulary for all."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from eval.studies.substrate import data as substrate
from frozen_glyph.checkpoint.files import sha256_file, sha256_json, write_json, write_text
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.statistics import MIN_UNITS
from frozen_glyph.text.documents import read_text, split_documents
from frozen_glyph.training.data import TokenWindows

SHORTEST = 4  # characters that a token of a compact vocabulary may hold


@dataclass(frozen=True)
class Scale(substrate.Scale):
    adapted: tuple[int, ...] = (0, 1, 3, 10, 30)  # steps on an unseen text after which it is scored
    adapted_windows: int = 2  # of a step
    adapted_rates: tuple[float, ...] = (1e-3, 4e-3, 1.6e-2)
    scored_documents: int = 16
    scored_characters: int = 1000  # of each

    @property
    def needed(self) -> int:
        """Windows of an unseen text to train on."""
        return self.adapted[-1] * self.adapted_windows


SMOKE = Scale(**asdict(substrate.SMOKE) | {"adapted": (0, 1, 2), "scored_documents": 6, "scored_characters": 100})


def identity(scale: Scale, data: Path, unseen: dict[str, Path]) -> dict[str, Any]:
    """What makes a study another one: settings and texts.

    Raises:
        FrozenGlyphError: a text cannot be read, or has too few documents.
    """
    for name, path in unseen.items():
        part_documents(scale, name, path)
    found = substrate.identity(scale, data)
    return found | {"unseen": {name: sha256_file(path) for name, path in unseen.items()}}


def study_folder(scale: Scale, data: Path, unseen: dict[str, Path], work: Path) -> Path:
    """The folder in ``work`` of a study of just this scale and these texts."""
    return work / sha256_json(identity(scale, data, unseen))[:12]


def part_documents(scale: Scale, name: str, path: Path) -> dict[str, list[str]]:
    """Documents of an unseen text by turns, cut to their beginnings: ``unseen`` to score, ``adapting`` to train on."""
    documents = split_documents(read_text(path))
    if len(documents) < 2 * MIN_UNITS:
        raise FrozenGlyphError(
            f"unseen text {name}={str(path)!r} has {len(documents)} documents; at least {2 * MIN_UNITS} are needed, "
            "with a blank line between them"
        )
    scored = [document[: scale.scored_characters] for document in documents[::2][: scale.scored_documents]]
    adapting: list[str] = []
    for document in documents[1::2]:
        if substrate.size_of(adapting) < SHORTEST * scale.needed * scale.context_length:
            adapting.append(document[: scale.shown])
    return {"unseen": scored, "adapting": adapting}


def with_characters(tokenizer: Any, characters: str) -> Any:
    """``tokenizer`` with an id at its end for each of ``characters`` that has none; no merge leads to it."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    for character in sorted(set(characters) - vocabulary.keys()):
        vocabulary[character] = len(vocabulary)
    specials = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("pad", "bos", "eos")}
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **specials, clean_up_tokenization_spaces=False)


def adapting_windows(scale: Scale, name: str, folder: Path, tokenizer: Any) -> TokenWindows:
    """What a model trains on of an unseen text."""
    return substrate.pack_windows([folder / f"{name}.adapting.txt"], folder, tokenizer, scale.context_length)


def prepare(scale: Scale, data: Path, unseen: dict[str, Path], folder: Path) -> None:
    """Part all texts, learn the vocabulary from those to train on, add the characters of the others, pack; once."""
    if (folder / "study.json").exists():
        return
    characters = ""
    for name, path in unseen.items():
        for part, documents in part_documents(scale, name, path).items():
            write_text(folder / f"{name}.{part}.txt", "\n\n".join(documents))
            characters += "".join(documents)
    learnt = substrate.learn_tokenizer(substrate.part_texts(scale, data, folder), scale)
    with_characters(learnt, characters).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, path in unseen.items():
        if (found := len(adapting_windows(scale, name, folder, tokenizer))) < scale.needed:
            raise FrozenGlyphError(
                f"unseen text {name}={str(path)!r} has {found} windows of {scale.context_length} tokens to train on, "
                f"{scale.needed} are needed; give more or longer documents"
            )
    substrate.open_windows(folder, tokenizer, scale.context_length)
    write_json(folder / "study.json", identity(scale, data, unseen))  # the mark that the folder is complete

"""What a run stands on: a tokenizer and its frozen substrate, or, for the trainable baseline, a tokenizer alone."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from frozen_glyph.checkpoint.contract import SUBSTRATE_FILE, TOKENIZER_FILE
from frozen_glyph.checkpoint.files import copy_file
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.growth.model_fields import config_fields
from frozen_glyph.growth.prefix_cache import machine_memory
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.run_folder import RunFolderError
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.recipes.errors import RecipeError, require
from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.drawn import substrate_of, tokenizer_of
from frozen_glyph.substrate.tokens import tokenizer_sha256

VOCABULARY_CHARACTERS = 200_000_000  # of the training text at most are read to learn a vocabulary


@dataclass(frozen=True, eq=False)
class Ground:
    """``substrate`` is None for the baseline, whose table of ``width`` trains."""

    tokenizer: PreTrainedTokenizerBase
    width: int
    substrate: GlyphSubstrate | None

    @property
    def tokenizer_sha256(self) -> str:
        return tokenizer_sha256(self.tokenizer)

    @property
    def bits(self) -> int:
        return self.width if self.substrate is None else self.substrate.bits

    def save(self, out: Path, positions: int) -> None:
        """Write the substrate with its tokenizer, or the tokenizer alone, unless ``out`` has it already.

        ``positions`` are those that the model reads at most.
        """
        if (out / (TOKENIZER_FILE if self.substrate is None else SUBSTRATE_FILE)).exists():
            return
        self.tokenizer.model_max_length = positions
        if self.substrate is not None:
            self.substrate.save_pretrained(out)
            return
        with tempfile.TemporaryDirectory() as temporary:
            self.tokenizer.save_pretrained(temporary)
            files = (path for path in Path(temporary).rglob("*") if path.is_file())
            for source in sorted(files, key=lambda path: path.name == TOKENIZER_FILE):
                copy_file(source, out / source.relative_to(temporary))


def open_ground(out: Path, recipe: GrowthRecipe, documents: Iterable[str], given: str | Path | None) -> Ground:
    """The ground stored in ``out``; on the first call that of the substrate folder ``given``, or a new one.

    Raises:
        RecipeError: ``given`` contradicts the recipe's layout.
        RunFolderError: ``out`` was started on another substrate.
    """
    trainable = recipe.substrate.layout == "trainable"
    require(given is None or not trainable, "substrate.layout", "trainable", "left out where a substrate is given")
    width = recipe.model.get("hidden_size", FrozenGlyphConfig.hidden_size)
    if (out / SUBSTRATE_FILE).exists():
        stored = GlyphSubstrate.from_pretrained(out)
        if given is not None:
            fingerprint = GlyphSubstrate.from_pretrained(given).fingerprint
            if fingerprint != stored.fingerprint:
                raise RunFolderError(
                    f"folder {str(out)!r} was started on substrate {stored.fingerprint}, {str(given)!r} has "
                    f"{fingerprint}; give the same substrate or a new folder"
                )
        return Ground(stored.tokenizer, stored.width, stored)
    if given is not None:
        docked = GlyphSubstrate.from_pretrained(given)
        return Ground(docked.tokenizer, docked.width, docked)
    if trainable and (out / TOKENIZER_FILE).exists():
        return Ground(load_tokenizer(out, local_files_only=True), width, None)
    text = first_characters(documents)
    if trainable:
        return Ground(tokenizer_of(recipe.substrate, text), width, None)
    substrate = substrate_of(recipe.substrate, text, width, recipe.seed)
    return Ground(substrate.tokenizer, substrate.width, substrate)


def first_characters(documents: Iterable[str]) -> Iterator[str]:
    """Documents up to ``VOCABULARY_CHARACTERS``."""
    seen = 0
    for document in documents:
        if seen >= VOCABULARY_CHARACTERS:
            return
        seen += len(document)
        yield document


def first_stage_config(recipe: GrowthRecipe, ground: Ground) -> FrozenGlyphConfig:
    """The configuration of stage 1; ``RecipeError`` when ``recipe.model`` contradicts the stages or the ground."""
    derived = {
        "vocab_size": len(ground.tokenizer),
        "num_hidden_layers": sum(stage.layers for stage in recipe.stages),
        "substrate_bits": ground.bits,
        "hidden_size": ground.width,
    }
    tokens = {f"{name}_token_id": getattr(ground.tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    for key, value in derived.items():
        if recipe.model.get(key, value) != value:
            raise RecipeError(
                f"recipe field model.{key}={recipe.model[key]!r}, but stages and substrate make it {value!r}; "
                f"say --set model.{key}={value}, or change what makes it"
            )
    for key, value in tokens.items():
        if recipe.model.get(key) not in (None, value):
            raise RecipeError(f"recipe field model.{key}={recipe.model[key]!r}, but the tokenizer makes it {value!r}")
    fields: dict[str, Any] = {
        "max_position_embeddings": recipe.training.context_length,
        **config_fields(recipe.model),
        **derived,
        "num_hidden_layers": recipe.stages[0].layers,
        "num_frozen_layers": 0,
        "ladder": [recipe.stages[0].layers],
        **(ground.substrate.geometry if ground.substrate is not None else {}),
        "substrate_trainable": ground.substrate is None,
        "substrate_fingerprint": ground.substrate and ground.substrate.fingerprint,
        "tokenizer_sha256": ground.tokenizer_sha256,
        **tokens,
    }
    return FrozenGlyphConfig(**fields)


def check_first_stage(recipe: GrowthRecipe, ground: Ground) -> None:
    """Raise ``RecipeError`` unless the model of stage 1 can be made, and this machine's memory holds it trained.

    Nothing is allocated. Too large a model would end the process without a word.
    """
    config = first_stage_config(recipe, ground)
    try:
        with torch.device("meta"):
            size = FrozenGlyphForCausalLM(config).num_parameters()
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RecipeError(f"recipe field model is not possible: {' '.join(str(error).split())}") from None
    states = 1 if torch.cuda.is_available() else 4  # weights; gradients and two moments beside them
    memory = machine_memory()
    if memory is not None and 4 * states * size > memory:
        raise RecipeError(
            f"recipe field model makes a first stage of {size:,} parameters, {4 * states * size / 1e9:,.0f} GB to "
            f"train, and the machine has {memory / 1e9:,.0f} GB; lower model.hidden_size, "
            "stages[0].layers or the vocabulary"
        )


def first_stage_model(config: FrozenGlyphConfig, ground: Ground) -> FrozenGlyphForCausalLM:
    """The model of stage 1 on ``ground``, blocks and head freshly initialised."""
    model = FrozenGlyphForCausalLM(config)
    if ground.substrate is not None:
        model.substrate.load_state_dict(ground.substrate.as_embedding().state_dict())
        model.check_substrate()
    return model

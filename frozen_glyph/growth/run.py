"""A growth run: one folder that holds every stage, its recipe and provenance, and that can be killed and resumed."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, set_seed

from frozen_glyph.checkpoint.card import markdown_table, model_card
from frozen_glyph.checkpoint.files import check_hashes, write_text
from frozen_glyph.checkpoint.provenance import PROVENANCE_FILE, read_provenance, write_provenance
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.data import TokenWindows, pack, text_hashes
from frozen_glyph.growth.expand import grow
from frozen_glyph.growth.progress import StageProgress
from frozen_glyph.growth.recipe import MODEL_FIELDS, GrowthRecipe, RecipeError
from frozen_glyph.growth.train import Phase, train_phase
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.substrate import GlyphSubstrate, build_tokenizer
from frozen_glyph.text.documents import read_text, split_documents
from frozen_glyph.text.loss import text_loss

WORK_FOLDER = ".work"
SUBSTRATE_FILE = "substrate.json"


class RunFolderError(FrozenGlyphError):
    """The output folder belongs to something else."""


def grow_from_recipe(
    recipe: GrowthRecipe,
    text: Sequence[str | Path],
    out: str | Path,
    valid: Sequence[str | Path] = (),
    substrate: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Carry ``recipe`` out on the ``text`` files and return the provenance that ``out`` then holds.

    ``out`` becomes one checkpoint folder with all stages. Calling again with the same recipe and texts resumes a run
    that was stopped, and does nothing to one that is complete. ``substrate`` is a folder to dock on; by default the
    recipe's tokenizer is used, or a compact one is learnt from the text. Everything is checked before ``out`` is
    claimed for the run, so that a recipe that was refused can be mended and tried again.

    Raises:
        RunFolderError: ``out`` holds a run of another recipe or other texts, or foreign files.
        RecipeError, TextFileError, CheckpointError: a recipe, text or stored file is not usable.
    """
    out, texts, valids = Path(out), [Path(path) for path in text], [Path(path) for path in valid]
    if not texts:
        raise FrozenGlyphError("no training text given; name at least one UTF-8 text file")
    if len({path.name for path in valids}) < len(valids):
        raise FrozenGlyphError(f"held-out texts {[str(path) for path in valids]} must have different file names")
    provenance = open_run(out, recipe, text_hashes(texts), text_hashes(valids))
    glyphs = open_substrate(out, recipe, texts, substrate)
    tokens = pack(texts, glyphs.tokenizer, glyphs.provenance["tokenizer_sha256"], out / WORK_FOLDER)
    windows = TokenWindows(tokens, recipe.training.context_length)
    first_config = first_stage_config(recipe, glyphs)
    start_run(out, provenance, glyphs)
    for stage, plan in enumerate(recipe.stages, start=1):
        if stage <= len(provenance["stages"]):
            continue
        set_seed(recipe.seed + stage - 1)
        if stage == 1:
            model = first_stage_model(first_config, glyphs)
        else:
            below = FrozenGlyphForCausalLM.from_pretrained(out, growth_stage=stage - 1)
            model = grow(below, plan.layers, plan.init)
        work = out / WORK_FOLDER / f"stage-{stage}"
        with closing(StageProgress(f"{recipe.name} stage {stage}/{len(recipe.stages)}", progress)) as bar:
            rate = plan.learning_rate or recipe.training.learning_rate
            phase = Phase(recipe.training.steps_of(plan), rate, recipe.seed + stage - 1)
            metrics = train_phase(model, windows, phase, recipe.training, work, [bar])
        losses = {path.name: text_loss(model, glyphs.tokenizer, read_text(path)) for path in valids}
        write_text(out / f"metrics-{stage}.jsonl", "".join(json.dumps(entry) + "\n" for entry in metrics["history"]))
        entry = {
            "stage": stage,
            **dataclasses.asdict(plan),
            "num_hidden_layers": model.config.num_hidden_layers,
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "parameters": model.num_parameters(),
            "tokens": metrics["tokens"],
            "seconds": round(metrics["seconds"], 1),
            "train_loss": metrics["train_loss"],
            "nats_per_character": {name: loss.nats_per_character for name, loss in losses.items()},
            "files": write_stage(out, model, stage),
        }
        provenance["stages"].append(entry)
        write_text(out / "README.md", run_card(out.resolve().name, recipe, provenance))
        write_provenance(out, "growth", provenance)
        shutil.rmtree(work, ignore_errors=True)
    return provenance


def open_run(
    out: Path, recipe: GrowthRecipe, texts: list[dict[str, str]], valids: list[dict[str, str]]
) -> dict[str, Any]:
    """Check that ``out`` is free, or holds this very run undamaged; return the run's provenance so far."""
    wanted = {"recipe_sha256": recipe.sha256, "text": texts, "valid": valids}
    if not (out / PROVENANCE_FILE).exists():
        leftovers = (WORK_FOLDER, f".{PROVENANCE_FILE}")  # of a run that was killed before it was claimed
        if out.is_dir() and not all(path.name.startswith(leftovers) for path in out.iterdir()):
            raise RunFolderError(f"folder {str(out)!r} exists and holds no growth run; choose an empty or new folder")
        return {"recipe": recipe.to_dict(), **wanted, "seed": recipe.seed, "stages": []}
    stored = read_provenance(out)
    if stored["kind"] != "growth":
        raise RunFolderError(f"folder {str(out)!r} holds a {stored['kind']} checkpoint; choose a new folder")
    what = {"recipe_sha256": "another recipe", "text": "other training text", "valid": "other held-out text"}
    for key, value in wanted.items():
        if stored[key] != value:
            raise RunFolderError(
                f"folder {str(out)!r} holds a run of {what[key]} ({key} {stored[key]!r}, this run has {value!r}); "
                "choose a new folder, or give the recipe and texts that it was started with"
            )
    for entry in stored["stages"]:
        check_hashes(out, entry["files"])
    return {key: value for key, value in stored.items() if key not in ("format", "kind", "versions")}


def start_run(out: Path, provenance: dict[str, Any], glyphs: GlyphSubstrate) -> None:
    """Claim ``out`` for the run and store its substrate there, as far as an earlier call did not."""
    if not (out / PROVENANCE_FILE).exists():
        for stale in (out / WORK_FOLDER).glob("stage-*"):  # `rm -r out/*` leaves another run's checkpoints here
            shutil.rmtree(stale)
        write_provenance(out, "growth", provenance)
    if not (out / SUBSTRATE_FILE).exists():
        glyphs.save_pretrained(out)


def open_substrate(out: Path, recipe: GrowthRecipe, texts: list[Path], given: str | Path | None) -> GlyphSubstrate:
    """The substrate stored in ``out``; on the first call the one in ``given``, or a new one."""
    if (out / SUBSTRATE_FILE).exists():
        stored = GlyphSubstrate.from_pretrained(out)
        if given is not None:
            fingerprint = GlyphSubstrate.from_pretrained(given).fingerprint
            if fingerprint != stored.fingerprint:
                raise RunFolderError(
                    f"folder {str(out)!r} was started on substrate {stored.fingerprint}, {str(given)!r} has "
                    f"{fingerprint}; give the same substrate or a new folder"
                )
        return stored
    if given is not None:
        return GlyphSubstrate.from_pretrained(given)
    if recipe.substrate.tokenizer is not None:
        tokenizer = AutoTokenizer.from_pretrained(recipe.substrate.tokenizer)
    else:
        documents = (document for path in texts for document in split_documents(read_text(path)))
        tokenizer = build_tokenizer(documents, recipe.substrate.vocab_size)
    return GlyphSubstrate.build(tokenizer, width=recipe.model.get("hidden_size", FrozenGlyphConfig.hidden_size))


def first_stage_config(recipe: GrowthRecipe, glyphs: GlyphSubstrate) -> FrozenGlyphConfig:
    """The configuration of stage 1; ``RecipeError`` when ``recipe.model`` contradicts the stages or ``glyphs``."""
    derived = {
        "vocab_size": len(glyphs.tokenizer),
        "num_hidden_layers": sum(stage.layers for stage in recipe.stages),
        "substrate_bits": glyphs.packed_bits.shape[1] * 8,
        "hidden_size": glyphs.width,
    }
    for key, value in derived.items():
        if recipe.model.get(key, value) != value:
            raise RecipeError(
                f"recipe field model.{key}={recipe.model[key]!r}, but stages and substrate make it {value!r}"
            )
    fields = {
        "max_position_embeddings": recipe.training.context_length,
        **{key: value for key, value in recipe.model.items() if key in MODEL_FIELDS},
        **derived,
        "num_hidden_layers": recipe.stages[0].layers,
        "num_frozen_layers": 0,
        "ladder": [recipe.stages[0].layers],
        "substrate_fingerprint": glyphs.fingerprint,
        "tokenizer_sha256": glyphs.provenance["tokenizer_sha256"],
        **{f"{name}_token_id": getattr(glyphs.tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")},
    }
    return FrozenGlyphConfig(**fields)


def first_stage_model(config: FrozenGlyphConfig, glyphs: GlyphSubstrate) -> FrozenGlyphForCausalLM:
    """The model of stage 1 on ``glyphs``, blocks and head freshly initialised."""
    model = FrozenGlyphForCausalLM(config)
    model.substrate.load_state_dict(glyphs.as_embedding().state_dict())
    model.check_substrate()
    return model


def run_card(name: str, recipe: GrowthRecipe, provenance: dict[str, Any]) -> str:
    """The model card of a run so far."""
    rows = [
        {
            "stage": entry["stage"],
            "blocks": entry["num_hidden_layers"],
            "trained parameters": f"{entry['trainable_parameters']:,}",
            **{f"{text} (nats/char)": f"{loss:.4f}" for text, loss in entry["nats_per_character"].items()},
        }
        for entry in provenance["stages"]
    ]
    texts = ", ".join(f"`{text['name']}`" for text in provenance["text"])
    return model_card(
        name,
        f"A causal language model over a frozen glyph embedding, grown in {len(rows)} stages by the recipe "
        f"`{recipe.name}` on {texts}.",
        {
            "Stages": "Plain loading gives the deepest stage; `from_pretrained(..., growth_stage=k)` gives stage k.\n\n"
            + markdown_table(rows),
            "Limitations": "A small research model. Its text is not reliable, and it knows only its training text.",
        },
        ["grown"],
    )

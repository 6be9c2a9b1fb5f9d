"""The folder of a growth run: whose it is, what it says of itself, and what is left to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.card import held_out_results, markdown_table, model_card, stage_usage
from frozen_glyph.checkpoint.contract import (
    ADAPTER_CONFIG,
    ADAPTER_FOLDER,
    ADAPTER_WEIGHTS,
    BLOCKS,
    BLOCKS_OF_STAGE,
    DEFAULT_INDEX,
    GROWTH_PICTURE,
    PROVENANCE_FILE,
    WORK_FOLDER,
    is_written,
    pattern,
    stage_index,
)
from frozen_glyph.checkpoint.files import check_hashes, target_of
from frozen_glyph.checkpoint.folders import files_below, remove_files, remove_temporaries
from frozen_glyph.checkpoint.journal import Stamp, unchanged_stamps, watching
from frozen_glyph.checkpoint.places import LOCK_INSIDE
from frozen_glyph.checkpoint.provenance import read_provenance, write_provenance
from frozen_glyph.checkpoint.records import GrowthRecord, SourceRecord
from frozen_glyph.checkpoint.verify import check_companions
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.mend import RATE, advice, changed_fields
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.growth.work_folder import clear_work, open_work
from frozen_glyph.recipes.changes import Change, differences
from frozen_glyph.training.trainer import remove_checkpoints


class RunFolderError(FrozenGlyphError):
    """The output folder belongs to something else."""


def open_run(
    out: Path, recipe: GrowthRecipe, data: list[SourceRecord], valids: list[SourceRecord]
) -> tuple[GrowthRecord, list[Change]]:
    """Check that ``out`` is free, or holds this very run undamaged.

    Returns:
        The run's provenance so far, and in what the recipe differs from the one that it was started with.

    Raises:
        RunFolderError: ``out`` holds a run of another recipe or other texts, or foreign files.
        CheckpointError: a file of a finished stage is missing or damaged.
    """
    run: GrowthRecord = {
        "recipe": recipe.to_dict(),
        "recipe_sha256": recipe.sha256,
        "data": data,
        "valid": valids,
        "seed": recipe.seed,
        "stages": [],
    }
    if not (out / PROVENANCE_FILE).exists():
        ours = (WORK_FOLDER, LOCK_INSIDE)  # and what a run left that was killed while it claimed the folder
        if out.is_dir() and not all(path.name in ours or target_of(path) == PROVENANCE_FILE for path in out.iterdir()):
            raise RunFolderError(f"folder {str(out)!r} exists and holds no growth run; choose an empty or new folder")
        return run, []
    stored: Any = read_provenance(out)
    if stored["kind"] != "growth":
        raise RunFolderError(f"folder {str(out)!r} holds a {stored['kind']} checkpoint; choose a new folder")
    allowed, refused = changed_fields(stored, run["recipe"], out)
    other: dict[str, list[Change]] = {
        "another recipe": refused,
        "other training text": differences(stored.get("data"), data, "data"),
        "other held-out text": differences(stored.get("valid"), valids, "valid"),
    }
    for what, changes in other.items():
        if changes:
            raise RunFolderError(
                f"folder {str(out)!r} holds a run of {what} ({'; '.join(map(str, changes))}); choose a new folder, or "
                f"give the recipe and texts that it was started with{advice(changes, stored)}"
            )
    for entry in stored["stages"]:
        check_hashes(out, entry["files"])
    later = stage_index(len(stored["stages"]) + 1)  # of a stage that was written, but not recorded, as is what follows
    if stored["stages"]:
        check_companions(out, stored, but=(DEFAULT_INDEX, later))
    for key in ("format", "kind", "versions", "companions"):
        stored.pop(key, None)
    return stored, allowed


def amend(out: Path, provenance: GrowthRecord, recipe: GrowthRecipe, changes: list[Change]) -> None:
    """Let a run that is not complete go on with the changed recipe, and record what changed before which stage.

    A phase that diverged begins again where its learning rate was lowered, so that it becomes what it would be in a
    new run with that rate.
    """
    stage = len(provenance["stages"]) + 1
    more: dict[str, Any] = {"stage": stage}
    if any(RATE.fullmatch(change.field) for change in changes) and "diverged" in provenance:
        diverged = provenance.pop("diverged")
        remove_checkpoints(out / WORK_FOLDER / f"stage-{stage}" / diverged["phase"])
        more["why"] = diverged["message"]
    provenance["recipe"], provenance["recipe_sha256"] = recipe.to_dict(), recipe.sha256
    provenance["changes"] = [*provenance.get("changes", []), *(change.record(**more) for change in changes)]
    write_provenance(out, "growth", provenance)


def clear_leftovers(out: Path) -> None:
    """Remove the temporary files that a killed process left in a run's folder."""
    remove_temporaries(out, is_written)
    for folder in out.glob(f"{ADAPTER_FOLDER}-*"):
        remove_temporaries(folder, {ADAPTER_CONFIG, ADAPTER_WEIGHTS}.__contains__)
    for folder in (out / WORK_FOLDER, *(path for path in (out / WORK_FOLDER).rglob("*") if path.is_dir())):
        remove_temporaries(folder, lambda name: True)


def claim(out: Path, provenance: GrowthRecord) -> None:
    """Make ``out`` this run's, unless an earlier call did."""
    if not (out / PROVENANCE_FILE).exists():
        for stale in (out / WORK_FOLDER).glob("stage-*"):  # `rm -r out/*` leaves another run's checkpoints here
            clear_work(open_work(out), stale.name)
            if stale.exists():
                raise RunFolderError(
                    f"{str(stale)!r} holds files that this run did not write, such as {files_below(stale)[:1]}; "
                    "move them, or choose a new folder"
                )
        write_provenance(out, "growth", provenance)


@contextmanager
def released_on_error(out: Path) -> Iterator[None]:
    """Take back what was put into ``out`` when opening it fails for any reason, unless an earlier call claimed it.

    Packed tokens stay in the work folder.
    """
    claimed = (out / PROVENANCE_FILE).exists()
    written: dict[str, Stamp] = {}
    try:
        with watching(out, written.__setitem__):
            yield
    except Exception:
        if not claimed:
            ours = unchanged_stamps(out, written)
            remove_files(out, [name for name in ours if not name.startswith(f"{WORK_FOLDER}/")])
        raise


def run_card(name: str, recipe: GrowthRecipe, provenance: GrowthRecord, known: dict[str, Any], vectors: str) -> str:
    """The model card of a run so far; ``known``: what is ``inherited`` of the card before, at first the parent's;
    ``vectors``: of the tokens, in words."""
    texts = list(dict.fromkeys(text for entry in provenance["stages"] for text in entry["nats_per_character"]))
    rows, results = [], []
    reopened = any("active" in entry for entry in provenance["stages"])
    again = any(pattern(BLOCKS_OF_STAGE).fullmatch(name) for entry in provenance["stages"] for name in entry["files"])
    known_shards: set[str] = set()
    for entry in provenance["stages"]:
        new = [
            name.removesuffix(".safetensors")
            for name in sorted(entry["files"].keys() - known_shards)
            if any(pattern(kind).fullmatch(name) for kind in (BLOCKS, BLOCKS_OF_STAGE))
        ]
        known_shards |= entry["files"].keys()
        losses = entry["nats_per_character"]
        rows.append(
            {
                "stage": entry["stage"],
                "blocks": entry["num_hidden_layers"],
                **({"trained blocks": entry.get("active", "newest")} if reopened else {}),
                "trained parameters": f"{entry['trainable_parameters']:,}",
                **({"new shards of blocks": ", ".join(new)} if again else {}),
                **{f"{text} (nats/char)": f"{losses[text]:.4f}" if text in losses else "-" for text in texts},
            }
        )
        results += held_out_results(losses, entry["stage"])
    chance = provenance["stages"][-1].get("uniform_nats_per_character", {})
    levels = ", ".join(f"{text} {level:.4f}" for text, level in chance.items())
    sources = ", ".join(f"`{source['name']}`" for source in provenance["data"])
    return model_card(
        name,
        f"A causal language model over a frozen glyph embedding, grown in {len(rows)} stages by the recipe "
        f"`{recipe.name}` on {sources}. Its token vectors are {vectors}.",
        {
            "Stages": f"![Held-out loss by stage]({GROWTH_PICTURE})\n\n"
            + markdown_table(rows)
            + "\n\nPlain loading gives the deepest stage; of each other the files of that stage alone are fetched:\n\n"
            + stage_usage(name, [entry["stage"] for entry in provenance["stages"]])
            + (f"\n\nA uniform guess among all tokens (chance) would score: {levels}." if levels else ""),
            "Limitations": "A small research model. Its text is not reliable, and it knows only its training text.",
        },
        ["grown"],
        results,
        license=recipe.license or known["license"],
        language=list(dict.fromkeys([*known["language"], *recipe.language])),
        datasets=[*known["datasets"], *(source["name"] for source in provenance["data"] if "revision" in source)],
        base_model=[recipe.parent.source] if recipe.parent else [],
        base_model_relation="finetune",
    )

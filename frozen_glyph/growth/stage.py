"""One stage of a run: the model below grows, its new blocks train, adapters may follow, their health is measured; then
it is written and scored.

A phase that has finished leaves what it trained in the work folder, so that a run that is killed later in the stage
does not train it again.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import TrainerCallback, set_seed

from frozen_glyph.checkpoint.contract import WORK_FOLDER, adapter_folder, metrics_file
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
    write_text,
)
from frozen_glyph.checkpoint.manifest import Manifest
from frozen_glyph.checkpoint.records import PhaseRecord, StageRecord
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.growth.estimate import phase_costs, step_flops
from frozen_glyph.growth.expand import choose_trainable, grow, moments_for
from frozen_glyph.growth.ground import Ground, first_stage_config, first_stage_model
from frozen_glyph.growth.lora import add_adapters, add_adapters_below, drop_adapters, merge_adapters, write_adapters
from frozen_glyph.growth.prefix_cache import PrefixCache
from frozen_glyph.growth.quantize import quantize_frozen
from frozen_glyph.growth.recipe import GrowthRecipe, LoraRecipe, StageRecipe
from frozen_glyph.growth.samples import write_samples
from frozen_glyph.growth.watch import add_to_metrics, watch_stage
from frozen_glyph.growth.work_folder import MOMENTS, PHASE, TRAINED, TRUNK, open_work
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.text.loss import text_loss
from frozen_glyph.training.callbacks import MetricsFile, StageProgress
from frozen_glyph.training.data import TokenWindows
from frozen_glyph.training.precision import uses_bf16
from frozen_glyph.training.train import Phase, frozen_digest, train_phase
from frozen_glyph.training.trainer import remove_checkpoints

LORA_SEED = 1_000_003  # added to a stage's seed for its LoRA phase


@dataclass(frozen=True)
class Run:
    """What all stages of a run share; ``first_stage`` is above 1 for a run that goes on from a parent."""

    recipe: GrowthRecipe
    out: Path
    ground: Ground
    tokens_name: str
    windows: TokenWindows
    held_out: TokenWindows | None
    valid: dict[str, list[str]]  # documents of each held-out text
    first_stage: int
    progress: bool

    @property
    def work(self) -> Manifest:
        """What the run put into its work folder."""
        return open_work(self.out)

    @property
    def last_stage(self) -> int:
        return self.first_stage + len(self.recipe.stages) - 1

    def seed(self, stage: int) -> int:
        return self.recipe.seed + stage - 1

    def title(self, stage: int, phase: str) -> str:
        return f"{self.recipe.name} stage {stage}/{self.last_stage}{'' if phase == 'blocks' else ' ' + phase}"


def grow_stage(run: Run, stage: int, *callbacks: TrainerCallback) -> StageRecord:
    """Train stage ``stage`` (counted from 1 over parent and run), add it to the folder and return its record.

    ``callbacks`` are called after the metrics file has grown.
    Every process trains; the first one writes, and its record alone is complete.
    """
    plan, training = run.recipe.stages[stage - run.first_stage], run.recipe.training
    lora = run.recipe.lora if run.recipe.lora and run.recipe.lora.follows(stage) else None
    model = grown_model(run, stage, plan)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    phases = {"blocks": train_blocks(run, model, stage, plan, callbacks)}
    adapters: dict[str, str] = {}
    if training.quantize_frozen != "none":  # what is written stands on the blocks as they are stored
        model = grown_model(run, stage, plan)
        load_trained(model, work_folder(run, stage) / "blocks")
    if lora:
        phases["lora"], adapters = train_adapters(run, model, stage, lora, callbacks)
    health = None
    if run.recipe.health != "off" and "blocks" in plan.train:
        rate, kept = plan.learning_rate or training.learning_rate, work_folder(run, stage)
        health = watch_stage(model, run.windows, rate, run.recipe.health, run.title(stage, "blocks"), kept)
    files: dict[str, str] = {}
    plans: list[StageRecipe | LoraRecipe] = [plan, lora] if lora else [plan]
    memory = max(phase_costs(model.config, own, training)["memory_bytes"]["total"] for own in plans)
    counted = all("flops" in phase for phase in phases.values())  # not where an earlier version trained one
    trained_tokens = sum(phase["tokens"] for phase in phases.values())
    if PartialState().is_main_process:
        if health is not None:
            add_to_metrics(run.out / metrics_file(stage, list(phases)[-1]), health)
        merged = plan.lora_below is not None or (lora is not None and lora.merge)
        changed_from = 0 if merged else lowest_changed(run, model, stage)
        files = write_stage(run.out, model, stage, changed_from)
    PartialState().wait_for_everyone()
    losses, chance, samples = score(run, stage, trained_tokens)
    return {
        "stage": stage,
        **plan.to_dict(),  # type: ignore[typeddict-item]
        "num_hidden_layers": model.config.num_hidden_layers,
        "trainable_parameters": trainable,
        "parameters": model.num_parameters(),
        "tokens": trained_tokens,
        **({"flops": sum(phase["flops"] for phase in phases.values())} if counted else {}),
        "memory_bytes": memory,
        "seconds": round(sum(phase["seconds"] for phase in phases.values()), 1),
        "train_loss": list(phases.values())[-1]["train_loss"],
        "phases": phases,
        "nats_per_character": losses,
        "uniform_nats_per_character": chance,
        "health": health,
        **({"samples": samples} if samples else {}),
        "files": files | adapters,
    }


def grown_model(run: Run, stage: int, plan: StageRecipe) -> FrozenGlyphForCausalLM:
    """The model that stage ``stage`` starts from, and what trains in it."""
    set_seed(run.seed(stage))
    if stage == 1:
        model = first_stage_model(first_stage_config(run.recipe, run.ground), run.ground)
    else:
        below = FrozenGlyphForCausalLM.from_pretrained(run.out, growth_stage=stage - 1, dtype=torch.float32)
        if goes_on_from_trunk(run, stage):
            load_tensors(below, left_behind(run, stage, TRUNK))
        assert plan.init is not None  # the recipe says it of every stage
        model = grow(below, plan.layers, plan.init)
    blocks, below_newest = model.config.stage_layers(stage)
    model.config.num_frozen_layers = plan.frozen_blocks(blocks, below_newest)
    choose_trainable(model, plan.train)
    if plan.adapters_below is not None:
        adapted = plan.adapted_blocks(blocks, model.config.num_frozen_layers)
        add_adapters_below(model, plan.adapters_below, adapted, run.seed(stage) + LORA_SEED)
    return model


def goes_on_from_trunk(run: Run, stage: int) -> bool:
    """Whether the stage before left what it had trained before its rate fell, on which this one goes on."""
    return run.recipe.decay == "branch" and stage > run.first_stage


def lowest_changed(run: Run, model: FrozenGlyphForCausalLM, stage: int) -> int:
    """The lowest block that is not bit for bit that of the stage before, which trained this one's trunk further."""
    lowest = model.config.num_frozen_layers
    if not goes_on_from_trunk(run, stage):
        return lowest
    before = run.recipe.stages[stage - 1 - run.first_stage]
    return min(lowest, before.frozen_blocks(*model.config.stage_layers(stage - 1)))


def train_blocks(
    run: Run, model: FrozenGlyphForCausalLM, stage: int, plan: StageRecipe, callbacks: Sequence[TrainerCallback] = ()
) -> PhaseRecord:
    """Train what ``plan`` says, on a quantised or cached prefix if the recipe asks for it."""
    training = run.recipe.training
    phase, flops = blocks_phase(run, model, stage, plan), step_flops(model.config, plan, run.recipe.training)
    prepare = None
    if model.config.num_frozen_layers > 0:
        digest = frozen_digest(model)
        if training.quantize_frozen != "none":
            model.to(PartialState().device)  # int4 and nf4 are made by the GPU; Trainer puts the model there later
            quantize_frozen(model, training.quantize_frozen)
        if training.prefix_cache != "none":
            location = work_folder(run, stage) if training.prefix_cache == "disk" else None
            identity = f"{run.tokens_name} {run.windows.boundary_id} {digest} {training.quantize_frozen}"
            prepare = PrefixCache(model, run.windows, location, identity, uses_bf16(training.precision))
            run.work.record(*(path.relative_to(run.work.folder).as_posix() for path in prepare.files), in_place=True)
    record = run_phase(run, model, stage, "blocks", phase, flops, callbacks, prepare)
    if plan.adapters_below is not None:
        merge_adapters(model)
    return record


def blocks_phase(run: Run, model: FrozenGlyphForCausalLM, stage: int, plan: StageRecipe) -> Phase:
    """How the blocks of a stage are optimised, by their place in the run."""
    recipe, training, place = run.recipe, run.recipe.training, stage - run.first_stage
    steps = [training.steps_of(entry.steps, entry.tokens) for entry in recipe.stages]
    following = recipe.stages[place + 1 : place + 2]
    next_folder = run.work.make(work_folder(run, stage + 1).name) if following else None
    asked_for = any(after.optimizer == "carried" for after in following)
    return Phase(
        steps[place],
        plan.learning_rate or training.learning_rate,
        run.seed(stage),
        plan.patience,
        plan.min_gain or 0.0,
        run_steps={"stage": None, "branch": steps[place], "run": sum(steps)}[recipe.decay],
        steps_before=sum(steps[:place]) if recipe.decay == "run" else 0,
        moments=moments_for(model, left_behind(run, stage, MOMENTS), plan) if plan.optimizer == "carried" else None,
        moments_to=next_folder / MOMENTS if next_folder and asked_for else None,
        trunk_to=next_folder / TRUNK if next_folder and recipe.decay == "branch" else None,
        rotate=plan.rotate,
        draw=plan.draw,
        always=plan.always or 0,
    )


def train_adapters(
    run: Run, model: FrozenGlyphForCausalLM, stage: int, lora: LoraRecipe, callbacks: Sequence[TrainerCallback] = ()
) -> tuple[PhaseRecord, dict[str, str]]:
    """Train adapters of all blocks; afterwards ``model`` holds them merged, or as before and they have a folder."""
    training = run.recipe.training
    rate, flops = lora.learning_rate or training.learning_rate, step_flops(model.config, lora, training)
    add_adapters(model, lora, run.seed(stage) + LORA_SEED)
    phase = Phase(training.steps_of(lora.steps, lora.tokens), rate, run.seed(stage) + LORA_SEED)
    record = run_phase(run, model, stage, "lora", phase, flops, callbacks)
    if lora.merge:
        merge_adapters(model)
        return record, {}
    name = adapter_folder(stage)
    hashes = write_adapters(model, lora, run.out / name) if PartialState().is_main_process else {}
    drop_adapters(model)
    return record, {f"{name}/{file}": digest for file, digest in hashes.items()}


def run_phase(
    run: Run,
    model: FrozenGlyphForCausalLM,
    stage: int,
    name: str,
    phase: Phase,
    flops: int,
    callbacks: Sequence[TrainerCallback] = (),
    prepare: Callable | None = None,
) -> PhaseRecord:
    """Train one phase, or load what it trained when an earlier call finished it; returns its record.

    ``flops``: of one step.
    """
    folder = run.work.make(f"{work_folder(run, stage).name}/{name}")
    if not all(run.work.holds(f"{work_folder(run, stage).name}/{name}/{file}") for file in (TRAINED, PHASE)):
        metrics = MetricsFile(run.out / metrics_file(stage, name), flops)
        with closing(StageProgress(run.title(stage, name), run.progress)) as bar:
            shown = [bar, metrics, *callbacks]
            found = train_phase(model, run.windows, phase, run.recipe.training, folder, shown, run.held_out, prepare)
        if PartialState().is_main_process:
            write_text(metrics.path, metrics.lines(found.pop("history")))
            found["flops"] = found["steps"] * flops
            left = [path for path in (phase.moments_to, phase.trunk_to) if path is not None]
            write_phase(run, model, stage, name, found, left)
        PartialState().wait_for_everyone()
    else:
        load_trained(model, folder)
    return read_json(folder / PHASE)


def write_phase(
    run: Run, model: FrozenGlyphForCausalLM, stage: int, name: str, found: PhaseRecord, left: Sequence[Path] = ()
) -> None:
    """Keep what a phase trained, and last the mark that it is finished; drop its checkpoints.

    ``left``: the files that it left for the next stage.
    """
    folder = work_folder(run, stage) / name
    trained = {key: value.data for key, value in model.named_parameters() if value.requires_grad}
    write_tensors(folder / TRAINED, trained)
    write_json(folder / PHASE, found)
    written = (folder / TRAINED, folder / PHASE, *left)
    run.work.record(*(path.relative_to(run.work.folder).as_posix() for path in written))
    remove_checkpoints(folder)


def left_behind(run: Run, stage: int, name: str) -> dict[str, torch.Tensor]:
    """The tensors that the stage before left for this one in its file ``name``.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = work_folder(run, stage) / name
    if not run.work.holds(path.relative_to(run.work.folder).as_posix()):
        what = {MOMENTS: "optimiser state", TRUNK: "trunk"}[name]
        raise CheckpointError(
            f"{str(path)!r}, the {what} that stage {stage - 1} left for stage {stage}, is missing or damaged; "
            "train in a new folder"
        )
    return read_tensors(path)


def load_trained(model: FrozenGlyphForCausalLM, folder: Path) -> None:
    """Put the tensors that a finished phase trained into ``model``."""
    load_tensors(model, read_tensors(folder / TRAINED))


@torch.no_grad()
def load_tensors(model: FrozenGlyphForCausalLM, tensors: dict[str, torch.Tensor]) -> None:
    """Copy ``tensors`` into the parameters of these names."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)


def score(run: Run, stage: int, trained_tokens: int) -> tuple[dict[str, float], dict[str, float], list[dict[str, str]]]:
    """Nats per character of the stage as it lies in the folder, and of a uniform guess (chance), by held-out text; and
    how it goes on with the beginnings of the texts. All processes share the windows; the first one alone writes on."""
    if not run.valid:
        return {}, {}, []
    state = PartialState()
    model = FrozenGlyphForCausalLM.from_pretrained(run.out, growth_stage=stage).to(state.device)
    found = {name: text_loss(model, run.ground.tokenizer, texts, shared=True) for name, texts in run.valid.items()}
    openings = list(run.valid.values()) if state.is_main_process else []
    return (
        {name: loss.nats_per_character for name, loss in found.items()},
        {name: loss.uniform_nats_per_character(model.config.vocab_size) for name, loss in found.items()},
        write_samples(model, run.ground.tokenizer, openings, trained_tokens, run.recipe.seed),
    )


def work_folder(run: Run, stage: int) -> Path:
    return run.out / WORK_FOLDER / f"stage-{stage}"


def unfinished_phase(run: Run, stage: int) -> str:
    """The phase in which a stage was stopped."""
    return "lora" if (work_folder(run, stage) / "blocks" / PHASE).exists() else "blocks"

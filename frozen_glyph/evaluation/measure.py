"""Measure one model on everything that a protocol names; what an earlier run has measured is read, not repeated."""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.config import stored_blocks
from frozen_glyph.checkpoint.files import folder_in, sha256_json
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.candidates import Candidate
from frozen_glyph.evaluation.measurements import Facts, Measurements, TaskPart, TextPart
from frozen_glyph.evaluation.parts import Parts
from frozen_glyph.evaluation.progress import MeasuringBar
from frozen_glyph.evaluation.tasks.harness import LoadedTask, as_lm
from frozen_glyph.evaluation.tasks.items import measure_task

ANSWERS = "answers"  # folder of what the models answered, see tasks/answers.py
SAMPLED_RUNS = 10  # as published
GENERATED_TOKENS = 40
PROMPT_CHARACTERS = 60

Say = Callable[[str], object]


@dataclass(frozen=True)
class Protocol:
    """How every model is measured.

    ``sampled``: the tasks of the published protocol with sampled generation. ``answers``: keep every answer of a model.
    """

    texts: dict[str, str]
    context_length: int
    tasks: list[LoadedTask]
    sampled: list[LoadedTask]
    limit: int | None
    seed: int
    batch_size: int
    device: str | None
    answers: bool

    @cached_property
    def prompts(self) -> list[str]:
        """What the models are to continue: the opening of every text."""
        return [opening(text) for text in self.texts.values()]

    @property
    def measurements(self) -> int:
        """How many measurements each model takes: facts, texts, tasks, and what it makes of the prompts."""
        return 1 + len(self.texts) + len(self.tasks) + SAMPLED_RUNS * len(self.sampled) + 1


def measure_model(
    candidate: Candidate, stage: int | None, protocol: Protocol, out: Path, say: Say, bar: MeasuringBar
) -> Measurements:
    """Measure what is not yet in ``out``; the model is loaded only if something is missing."""
    parts = Parts(folder_in(out, "parts"))
    identity = candidate.identity(stage)
    model = f"{candidate.label}{f' stage {stage}' if len(candidate.stages) > 1 else ''}"

    @cache
    def loaded() -> tuple[Any, Any]:
        return candidate.load(stage, protocol.device)

    @cache
    def lm() -> Any:
        asked = [identity, protocol.batch_size, protocol.device]
        answers = folder_in(out, ANSWERS) / f"{sha256_json(asked)[:16]}.jsonl"
        return as_lm(*loaded(), protocol.batch_size, answers if protocol.answers else None, asked)

    def part(name: str, depends_on: Any, measure: Callable[[], Any]) -> Any:
        def told() -> Any:
            say(f"{model}: {name}")
            bar.measuring(model, name)
            return measure()

        found = parts.get(name, [identity, depends_on], told)
        bar.done()
        return found

    def text_part(name: str, text: str) -> TextPart:
        length = protocol.context_length

        def measure() -> TextPart:
            try:
                return measure_text(*loaded(), text, length)
            except FrozenGlyphError as error:
                raise FrozenGlyphError(f"{model}, text {name}: {error}") from None

        return part(f"text-{name}", [text, length, "by document"], measure)

    def task_part(task: LoadedTask, seed: int, name: str) -> TaskPart:
        chosen = task.choose(protocol.limit, protocol.seed)
        found = part(name, [task.digest, chosen, seed], lambda: measure_task(lm(), task, chosen, seed))
        clusters = task.clusters(chosen)  # not kept: parts of earlier versions lack them
        return found if clusters is None else found | {"clusters": clusters}

    return Measurements(
        facts=part("model", None, lambda: measure_facts(loaded()[0])),
        texts={name: text_part(name, text) for name, text in protocol.texts.items()},
        tasks={task.name: task_part(task, protocol.seed, task.name) for task in protocol.tasks},
        runs={
            task.name: [
                task_part(task, protocol.seed + run, f"{task.name}-run-{run + 1}") for run in range(SAMPLED_RUNS)
            ]
            for task in protocol.sampled
        },
        continuations=part("continuations", protocol.prompts, lambda: continue_prompts(*loaded(), protocol.prompts)),
    )


def measure_facts(model: Any) -> Facts:
    """Count blocks and parameters; a merged model's own number of layers also counts a cache layer."""
    config = model.config
    merged = hasattr(config, "experts")
    return {
        "num_hidden_layers": stored_blocks(config.to_dict()) if merged else getattr(config, "num_hidden_layers", None),
        "parameters": model.num_parameters(),
        "trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }


def measure_text(model: Any, tokenizer: Any, text: str, context_length: int) -> TextPart:
    """Return the loss of every block of ``text``, read with ``context_length`` tokens of context."""
    from frozen_glyph.text.loss import text_loss

    loss = text_loss(model, tokenizer, text, context_length=context_length)
    return {
        "nats": [float(value) if math.isfinite(value) else None for value in loss.nats],
        "characters": [int(value) for value in loss.characters],
        "bytes": [int(value) for value in loss.bytes],
        "documents": [int(place) for place in loss.documents],
        "tokens": int(loss.tokens),
    }


def opening(text: str) -> str:
    """The beginning of a text as a prompt: its first words, or characters where it has no spaces."""
    line = text.strip().splitlines()[0]
    if len(line) <= PROMPT_CHARACTERS:
        return line
    head = line[:PROMPT_CHARACTERS]
    return head.rsplit(" ", 1)[0] if " " in head else head[: PROMPT_CHARACTERS // 3]


def continue_prompts(model: Any, tokenizer: Any, prompts: Iterable[str]) -> dict[str, str]:
    """Continue every prompt greedily by ``GENERATED_TOKENS`` tokens, or fewer where the context is full."""
    import torch

    positions = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    continuations = {}
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
        inputs = {name: tensor[:, 1 - positions :].to(model.device) for name, tensor in inputs.items()}
        read = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=min(GENERATED_TOKENS, positions - read), do_sample=False)
        continuations[prompt] = tokenizer.decode(ids[0, read:], skip_special_tokens=True)
    return continuations

"""Measure one model on one text or one task, as a small JSON-serialisable part with a value for every item."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from frozen_glyph.checkpoint.files import sha256_json

if TYPE_CHECKING:
    from frozen_glyph.evaluation.choices import ChoiceQuestion
    from frozen_glyph.evaluation.harness import LoadedTask, Tasks

GENERATED_TOKENS = 40
PROMPT_CHARACTERS = 60


class TextPart(TypedDict):
    """Nats, characters and UTF-8 bytes of every block of a text."""

    nats: list[float]
    characters: list[int]
    bytes: list[int]
    tokens: int


class Translations(TypedDict):
    """What corpus BLEU is computed from: one hypothesis and one reference an item."""

    hypotheses: list[str]
    references: list[str]
    tokenize: str  # sacrebleu's name of a tokenizer: "13a", or "zh" into Chinese


class TaskPart(TypedDict):
    """Metric values of every item of a task, in item order; ``items`` identifies the items for paired tests."""

    protocol: str
    values: dict[str, list[float]]  # by metric; the first metric is the one compared
    options: list[int] | None  # how many options each item has; None for free text
    items: str
    published: NotRequired[bool]  # the papers' own protocol: reported apart
    groups: NotRequired[list[str]]  # of each item: MMLU's subject
    translations: NotRequired[Translations]  # then ``values`` is empty


class Facts(TypedDict):
    """What a loaded model says of itself."""

    num_hidden_layers: int | None
    parameters: int
    trainable_parameters: int


@dataclass
class Measurements:
    """Everything measured of one model at one growth stage."""

    facts: Facts
    texts: dict[str, TextPart]
    tasks: dict[str, TaskPart]
    runs: dict[str, list[TaskPart]] = field(default_factory=dict)  # repeated sampled runs, by task
    continuations: dict[str, str] = field(default_factory=dict)  # by prompt


def measure_facts(model: Any) -> Facts:
    """Count blocks and parameters; a merged model's own number of layers also counts a cache layer."""
    experts = getattr(model.config, "experts", None)
    layers = getattr(model.config, "num_hidden_layers", None)
    return {
        "num_hidden_layers": sum(expert["num_hidden_layers"] for expert in experts) if experts else layers,
        "parameters": model.num_parameters(),
        "trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }


def measure_text(model: Any, tokenizer: Any, text: str, context_length: int) -> TextPart:
    """Return the loss of every block of ``text``, read with ``context_length`` tokens of context."""
    from frozen_glyph.text.loss import text_loss

    loss = text_loss(model, tokenizer, text, context_length=context_length)
    return {
        "nats": [float(value) for value in loss.nats],
        "characters": [int(value) for value in loss.characters],
        "bytes": [int(value) for value in loss.bytes],
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
    """Continue every prompt greedily by ``GENERATED_TOKENS`` tokens."""
    import torch

    continuations = {}
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False)
        inputs = inputs.to(model.device)
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=GENERATED_TOKENS, do_sample=False)
        continuations[prompt] = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return continuations


def measure_questions(model: Any, tokenizer: Any, questions: "Sequence[ChoiceQuestion]") -> TaskPart:
    """Score questions whose choices follow the prompt literally."""
    from frozen_glyph.evaluation.choices import score_questions

    results = score_questions(model, tokenizer, questions)
    return {
        "protocol": "log-likelihood of each choice after the prompt, zero-shot",
        "values": {"acc": [float(result.correct) for result in results]},
        "options": [len(question.choices) for question in questions],
        "items": sha256_json([[question.prompt, list(question.choices), question.answer] for question in questions]),
    }


def _protocol(config: dict[str, Any]) -> str:
    """One line that says how a task scores: its own, or for lm-eval's tasks what their configuration says."""
    metadata = config.get("metadata") or {}
    shots = "zero-shot" if not config["num_fewshot"] else f"{config['num_fewshot']}-shot"
    ways = {
        "multiple_choice": "log-likelihood of each choice",
        "generate_until": "generated text",
        "loglikelihood_rolling": "log-likelihood of the whole text",
    }
    standard = f"lm-eval's own task, {shots}, {ways.get(config['output_type'], config['output_type'])}"
    return f"{metadata.get('protocol', standard)} (version {metadata.get('version', 'unknown')})"


def measure_task(lm: Any, tasks: "Tasks", task: "LoadedTask", limit: int | None, seed: int) -> TaskPart:
    """Run one lm-eval task or group on ``limit`` items of it (None: all) and keep every item's metric values."""
    chosen = task.choose(limit, seed)
    results = tasks.run(lm, task, chosen, seed)
    samples = [
        sample for leaf in chosen for sample in sorted(results["samples"][leaf], key=lambda sample: sample["doc_id"])
    ]
    config = results["configs"][next(iter(chosen))]
    part: TaskPart = {
        "protocol": _protocol(config),
        "values": _item_values(samples),
        "options": [len(sample["arguments"]) for sample in samples]
        if config["output_type"] == "multiple_choice"
        else None,
        "items": sha256_json([sample["doc_hash"] for sample in samples]),
    }
    metadata = config.get("metadata") or {}
    if metadata.get("published"):
        part["published"] = True
    if metadata.get("options"):
        part["options"] = [len(sample["doc"][metadata["options"]]) for sample in samples]
    if all("subject" in sample["doc"] for sample in samples):
        part["groups"] = [sample["doc"]["subject"] for sample in samples]
    return part

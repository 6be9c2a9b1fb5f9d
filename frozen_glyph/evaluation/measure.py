"""Measure one model on one text or one task, as a small JSON-serialisable part with a value for every item."""

from collections.abc import Iterable, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.evaluation.measurements import Facts, TaskPart, TextPart
from frozen_glyph.evaluation.tasks.suites import tasks_folder

if TYPE_CHECKING:
    from frozen_glyph.evaluation.tasks.choices import ChoiceQuestion
    from frozen_glyph.evaluation.tasks.harness import LoadedTask, Tasks

GENERATED_TOKENS = 40
PROMPT_CHARACTERS = 60


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
    from frozen_glyph.evaluation.tasks.choices import score_questions

    results = score_questions(model, tokenizer, questions)
    return {
        "protocol": "log-likelihood of each choice after the prompt, zero-shot",
        "values": {"acc": [float(result.correct) for result in results]},
        "options": [len(question.choices) for question in questions],
        "items": sha256_json([[question.prompt, list(question.choices), question.answer] for question in questions]),
    }


def _protocol(task: Any, lm: Any) -> str:
    """One line that says how a task scores: its own, or for lm-eval's tasks what their configuration says."""
    config = task.config
    metadata = config.metadata or {}
    way = {
        "multiple_choice": "log-likelihood of each choice",
        "generate_until": "generated text",
        "loglikelihood_rolling": "log-likelihood of the whole text",
    }.get(task.OUTPUT_TYPE, task.OUTPUT_TYPE)
    shots = f"{config.num_fewshot}-shot" if config.num_fewshot else "zero-shot"
    line = metadata.get("protocol") or f"lm-eval's own task, {shots}, {way}"
    if task.OUTPUT_TYPE == "generate_until" and "max_gen_toks" not in (config.generation_kwargs or {}):
        line += f", at most {lm.max_gen_toks} new tokens"
    if (config.generation_kwargs or {}).get("do_sample"):
        line += ", sampled at temperature 1"
    return f"{line} (version {metadata.get('version', 'unknown')})"


def _squad_scorer() -> Any:
    """``score_answer`` of the file beside the tasks that lm-eval and evaluate load as well."""
    spec = spec_from_file_location("squad_scoring", tasks_folder() / "squad_scoring.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.score_answer


def _item_values(samples: list[dict[str, Any]]) -> dict[str, list[float]]:
    """By metric, every item's value. The pairs that squadv2 gives all its metrics become exact match and F1."""
    metrics = samples[0]["metrics"]
    first = samples[0][metrics[0]]
    if isinstance(first, tuple) and isinstance(first[0], dict):
        score = _squad_scorer()
        pairs = [sample[metrics[0]] for sample in samples]
        items = [score(prediction["prediction_text"], gold["answers"]["text"]) for prediction, gold in pairs]
        return {name: [item[name] for item in items] for name in ("exact", "f1")}
    return {metric: [float(sample[metric]) for sample in samples] for metric in metrics}


def measure_task(
    lm: Any, tasks: "Tasks", task: "LoadedTask", chosen: dict[str, list[int]], sampling_seed: int
) -> TaskPart:
    """Run one lm-eval task or group on the ``chosen`` items of its leaves and keep every item's metric values."""
    results = tasks.run(lm, task, chosen, sampling_seed)
    samples = [
        sample for leaf in chosen for sample in sorted(results["samples"][leaf], key=lambda sample: sample["doc_id"])
    ]
    leaf = task.leaves[next(iter(chosen))]
    metadata = leaf.config.metadata or {}
    docs = [sample["doc"] for sample in samples]
    options = None
    if leaf.OUTPUT_TYPE == "multiple_choice":
        options = [len(sample["arguments"]) for sample in samples]
    elif all("options" in doc for doc in docs):  # letters of the published protocol
        options = [len(doc["options"]) for doc in docs]
    part: TaskPart = {
        "protocol": _protocol(leaf, lm),
        "values": {},
        "options": options,
        "items": sha256_json([sample["doc_hash"] for sample in samples]),
    }
    if metadata.get("published"):
        part["published"] = True
    if all(doc.get("subject") for doc in docs):
        part["groups"] = [doc["subject"] for doc in docs]
    if "bleu" in samples[0]:
        references, hypotheses = zip(*(sample["bleu"] for sample in samples), strict=True)
        tokenize = metadata.get("tokenize", "13a")
        part["translations"] = {"hypotheses": [*hypotheses], "references": [*references], "tokenize": tokenize}
    else:
        part["values"] = _item_values(samples)
    return part

"""What a model scores on every item of a task, read from what lm-eval logs of them."""

from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.evaluation.measurements import TaskPart
from frozen_glyph.evaluation.tasks.harness import LoadedTask
from frozen_glyph.evaluation.tasks.suites import tasks_folder


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


def measure_task(lm: Any, task: LoadedTask, chosen: dict[str, list[int]], sampling_seed: int) -> TaskPart:
    """Run one lm-eval task or group on the ``chosen`` items of its leaves and keep every item's metric values."""
    results = task.run(lm, chosen, sampling_seed)
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

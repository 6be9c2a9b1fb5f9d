"""What a model scores on every item of a task, read from what lm-eval logs of them."""

import math
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.measurements import TaskPart
from frozen_glyph.evaluation.tasks.answers import NOT_A_NUMBER, request_key
from frozen_glyph.evaluation.tasks.baselines import answers_of, baselines
from frozen_glyph.evaluation.tasks.harness import LoadedTask
from frozen_glyph.evaluation.tasks.suites import tasks_folder

if TYPE_CHECKING:
    from frozen_glyph.evaluation.tasks.asking import AskedLM


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


def _without_answer(samples: list[dict[str, Any]], lm: "AskedLM") -> list[str | None]:
    """Of every item why it has no answer: the reason of its first request that the model could not answer."""
    reasons = [[lm.unscored.get(request_key(arguments)) for arguments in sample["arguments"]] for sample in samples]
    return [next(filter(None, own), None) for own in reasons]


def _as_wrong(values: list[float], reasons: list[str | None], higher_is_better: bool) -> list[float]:
    """The values, but the worst one for every item that has no answer."""
    known = [value for value, reason in zip(values, reasons, strict=True) if reason is None]
    worst = min([0.0, *known]) if higher_is_better else max([1.0, *known])
    return [value if reason is None else worst for value, reason in zip(values, reasons, strict=True)]


def _item_values(name: str, samples: list[dict[str, Any]]) -> dict[str, list[float]]:
    """By metric, every item's value. The pairs that squadv2 gives all its metrics become exact match and F1."""
    metrics = samples[0]["metrics"]
    first = samples[0][metrics[0]]
    if isinstance(first, tuple) and isinstance(first[0], dict):
        score = _squad_scorer()
        pairs = [sample[metrics[0]] for sample in samples]
        items = [score(prediction["prediction_text"], gold["answers"]["text"]) for prediction, gold in pairs]
        return {name: [item[name] for item in items] for name in ("exact", "f1")}
    for metric in metrics:
        if isinstance(first := samples[0][metric], tuple | list | dict | str):
            raise FrozenGlyphError(
                f"metric {metric!r} of task {name!r} gives no number for an item but {type(first).__name__}; leave the "
                "task out, or name one whose items are right or wrong"
            )
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
    reasons = _without_answer(samples, lm)
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
    if options and (answers := answers_of(leaf, samples)):
        part["baselines"] = baselines(answers)
    if metadata.get("published"):
        part["published"] = True
    if all(doc.get("subject") for doc in docs):
        part["groups"] = [doc["subject"] for doc in docs]
    if "bleu" in samples[0]:
        references, hypotheses = zip(*(sample["bleu"] for sample in samples), strict=True)
        tokenize = metadata.get("tokenize", "13a")
        part["translations"] = {"hypotheses": [*hypotheses], "references": [*references], "tokenize": tokenize}
    else:
        part["values"] = _item_values(task.name, samples)
        better = leaf.higher_is_better()
        for metric, values in part["values"].items():
            reasons = [
                reason if math.isfinite(value) else reason or NOT_A_NUMBER
                for value, reason in zip(values, reasons, strict=True)
            ]
            part["values"][metric] = _as_wrong(values, reasons, better.get(metric) is not False)
    if unscored := Counter(filter(None, reasons)):
        part["unscored"] = dict(unscored)
    return part

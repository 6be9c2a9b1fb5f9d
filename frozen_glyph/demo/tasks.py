"""Write the demo's questions as lm-eval tasks: a YAML and a JSON-lines file each, for ``evaluate_models`` or lm_eval.

Command: ``frozen-glyph eval runs/demo/ru --include runs/demo/tasks --tasks facts,sums -o runs/report``
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.demo.questions import Question

PROTOCOL: dict[str, Any] = {
    "test_split": "test",
    "num_fewshot": 0,
    "output_type": "multiple_choice",
    "doc_to_text": "prompt",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "target_delimiter": "",  # choices follow the prompt literally
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 1.0, "protocol": "log-likelihood of each choice after the prompt, zero-shot"},
}


def task_name(question: Question) -> str:
    """The task of a question: facts, or facts_ru if the Russian expert alone read what it takes."""
    return question.task if question.expert == "both" else f"{question.task}_{question.expert}"


def write_tasks(folder: Path, questions: Iterable[Question]) -> list[str]:
    """Write a task for the questions of each name into ``folder`` and return the names, sorted."""
    by_name: dict[str, list[Question]] = {}
    for question in questions:
        by_name.setdefault(task_name(question), []).append(question)
    for name, group in by_name.items():
        items = [{"prompt": one.prompt, "choices": list(one.choices), "answer": one.answer} for one in group]
        data = folder.resolve() / f"{name}.jsonl"
        write_text(data, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, **PROTOCOL}
        write_text(folder / f"{name}.yaml", yaml.safe_dump(task, sort_keys=False, allow_unicode=True))
    return sorted(by_name)

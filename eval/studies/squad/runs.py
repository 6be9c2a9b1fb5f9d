"""The runs of the study of SQuAD by depth: both protocols on stages of one model."""

import time
from pathlib import Path
from typing import Any

from eval.studies.squad.report import METRICS
from frozen_glyph.checkpoint.loading import load_model
from frozen_glyph.evaluation.tasks.harness import Tasks, as_lm
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig

QUESTIONS = {"paper_squad": 256, "fg_squad": 500}


def score_stages(folder: Path, questions: dict[str, int], mirror: Path, every: bool) -> dict[str, Any]:
    """Scores of every question under ``every`` growth stage of ``folder``, or its last one: ``scores[task][metric]``
    [stages, questions], and the number of the article of every question, ``articles[task]``."""
    ladder = FrozenGlyphConfig.from_pretrained(folder).ladder
    stages = range(1 if every else len(ladder), len(ladder) + 1)
    scores: dict[str, dict[str, list[list[float]]]] = {
        task: {metric: [] for metric in metrics} for task, metrics in METRICS.items()
    }
    tasks = Tasks(mirror)
    loaded = {name: tasks.load(name) for name in METRICS}
    chosen = {name: task.choose(questions[name], seed=0) for name, task in loaded.items()}
    articles = {name: task.clusters(chosen[name]) for name, task in loaded.items()}
    for stage in stages:
        lm = as_lm(*load_model(folder, growth_stage=stage))
        for task, metrics in METRICS.items():
            samples = loaded[task].run(lm, chosen[task], seed=0)["samples"][task]
            samples = sorted(samples, key=lambda sample: sample["doc_id"])
            for metric in metrics:
                scores[task][metric].append([sample[metric] for sample in samples])
    return {
        "blocks": [ladder[stage - 1] for stage in stages],
        "scores": scores,
        "articles": articles,
        "cpu_seconds": time.process_time(),
    }

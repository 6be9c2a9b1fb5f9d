"""Does answering from a text appear with depth? Both SQuAD protocols on every stage of the growth study's models.

    python -m eval.studies.squad --grown runs/growth-study --data DIR --out eval/results/squad-by-depth

DIR holds squad/dev-v1.1.json and squad/dev-v2.0.json; ``--grown`` the folder of a finished growth study. The same
command resumes what was stopped. Tasks: the published short-answer protocol (greedy, 256 questions) and SQuAD v1.1 as
completion (500 questions drawn at random). Slopes are of score over number of blocks, all stages, by least
squares, and are drawn by question.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from eval.studies.common.jobs import job_name, read_results, run_jobs, study_arguments, write_report, write_result
from eval.studies.growth.__main__ import BASELINE

METRICS = {"paper_squad": ("hit",), "fg_squad": ("exact_match", "f1")}
QUESTIONS = {"paper_squad": 256, "fg_squad": 500}


def main() -> None:
    parser = study_arguments("squad-by-depth", __doc__, "squad/dev-v1.1.json and squad/dev-v2.0.json")
    parser.add_argument("--grown", type=Path, default=Path("runs/growth-study"), help="work folder of the growth study")
    arguments = parser.parse_args()
    mirror = (arguments.work / "mirror").resolve()
    questions = dict.fromkeys(QUESTIONS, 4) if arguments.smoke else QUESTIONS
    if arguments.run:
        folder = arguments.grown / job_name((BASELINE, arguments.run[1]))
        write_result(arguments.work, arguments.run, score_stages(folder, questions, mirror))
        return
    jobs = [("squad", seed) for seed in range(arguments.seeds)]
    if not arguments.report:
        from frozen_glyph.evaluation.tasks.mirror import write_mirror

        write_mirror(arguments.data, mirror)
        run_jobs(jobs, arguments.work, arguments.processes)
    report = summarise(read_results(arguments.work, jobs))
    write_report(arguments.out, report, as_markdown(report))


def score_stages(folder: Path, questions: dict[str, int], mirror: Path) -> dict[str, Any]:
    """Scores of every question under every growth stage of ``folder``: ``scores[task][metric]`` [stages, questions]."""
    import torch

    from frozen_glyph.evaluation.candidates import load_model
    from frozen_glyph.evaluation.tasks.harness import Tasks, as_lm
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig

    torch.set_num_threads(1)
    ladder = FrozenGlyphConfig.from_pretrained(folder).ladder
    scores: dict[str, dict[str, list[list[float]]]] = {
        task: {metric: [] for metric in metrics} for task, metrics in METRICS.items()
    }
    tasks = Tasks(mirror)
    loaded = {name: tasks.load(name) for name in METRICS}
    for stage in range(1, len(ladder) + 1):
        lm = as_lm(*load_model(folder, growth_stage=stage))
        for task, metrics in METRICS.items():
            chosen = loaded[task].choose(questions[task], seed=0)
            samples = tasks.run(lm, loaded[task], chosen, seed=0)["samples"][task]
            for metric in metrics:
                scores[task][metric].append([sample[metric] for sample in samples])
    return {"blocks": ladder, "scores": scores, "cpu_seconds": time.process_time()}


def summarise(results: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """For each task and metric the score by depth and its slope, each with interval and values by seed."""
    from frozen_glyph.checkpoint.provenance import versions
    from frozen_glyph.statistics import bootstrap_interval

    if not results:
        raise SystemExit("no finished run; name the folder of a growth study with --grown")

    def estimate(values_SQ: np.ndarray) -> dict[str, Any]:
        """Mean over seeds and questions; the interval draws questions."""
        low, high = bootstrap_interval(values_SQ.mean(0))
        return {"value": float(values_SQ.mean()), "low": low, "high": high, "by_seed": values_SQ.mean(1).tolist()}

    first = next(iter(results.values()))
    depth = np.array(first["blocks"], dtype=float)
    centred = depth - depth.mean()
    tasks: dict[str, Any] = {}
    for task, metrics in METRICS.items():
        tasks[task] = {}
        for metric in metrics:
            scores_SDQ = np.array([run["scores"][task][metric] for run in results.values()])
            tasks[task][metric] = {
                "questions": scores_SDQ.shape[-1],
                "by_depth": [estimate(scores_SDQ[:, index]) for index in range(len(depth))],
                "slope": estimate(np.einsum("d,sdq->sq", centred, scores_SDQ) / (centred**2).sum()),
            }
    return {
        "blocks": first["blocks"],
        "seeds": [seed for _, seed in results],
        "tasks": tasks,
        "cpu_seconds": sum(run["cpu_seconds"] for run in results.values()),
        "versions": versions(),
    }


def as_markdown(report: dict[str, Any]) -> str:
    """The report as one table."""
    from frozen_glyph.statistics import binomial_interval

    def cell(entry: dict[str, Any], sign: str = "") -> str:
        return f"{100 * entry['value']:{sign}.2f} ({100 * entry['low']:{sign}.2f} to {100 * entry['high']:{sign}.2f})"

    rows = [
        f"| {task}, {metric} | {found['questions']} | "
        + " | ".join(cell(entry) for entry in found["by_depth"])
        + f" | {cell(found['slope'], '+')}; {', '.join(f'{100 * value:+.3f}' for value in found['slope']['by_seed'])} |"
        for task, metrics in report["tasks"].items()
        for metric, found in metrics.items()
    ]
    columns = [f"{blocks} block{'s' if blocks > 1 else ''}" for blocks in report["blocks"]]
    return "\n".join(
        [
            "# SQuAD by depth",
            "",
            f"The models of `growth-study.md` ({BASELINE}), seeds {', '.join(map(str, report['seeds']))}, zero-shot "
            "and greedy; percent, mean over seeds, with 95% bootstrap intervals over questions. `paper_squad` "
            "is the published short-answer protocol, `fg_squad` SQuAD v1.1 as completion. Slope: percentage points "
            "for each block, then seed by seed. Longer prompts than the context of 256 tokens lose their beginning. "
            "An interval from 0 to 0 means that no answer was right, not that none could be: 0 of 256 leaves room for "
            f"{100 * binomial_interval(0, 256).high:.1f}% (exact binomial).",
            "",
            f"| task, metric | questions | {' | '.join(columns)} | slope |",
            "| --- | --- |" + " --- |" * (len(columns) + 1),
            *rows,
            "",
            f"{report['cpu_seconds']:.0f} core-seconds. Versions: "
            + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
            + ".",
            "",
        ]
    )


if __name__ == "__main__":
    main()

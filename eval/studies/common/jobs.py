"""Carry out a study: its runs, each in a process of its own with one thread, and its report.

A study starts itself once more for each run, with ``--run JOB``, which writes the job's ``result_file`` as its last
act; what has finished is never run again. So the same command resumes a study that was stopped.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from eval.processes import own_command
from eval.studies.common.tables import circumstances, made_by, write_report
from frozen_glyph.checkpoint.files import write_text

Job = tuple[str | int | float, ...]
Parts = Sequence[str | int | float]
Results = dict[Any, dict[str, Any]]
Phase = Sequence[Job] | Callable[[Results], Sequence[Job]]


def study_arguments(
    name: str, description: str | None, data: str | None = None, seeds: int = 3
) -> argparse.ArgumentParser:
    """A parser of what every study is told; ``data`` says what the folder of ``--data`` holds, None: there is none."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data is not None:
        parser.add_argument("--data", type=Path, required=True, help=f"folder with {data}")
    parser.add_argument("--out", type=Path, default=Path(f"eval/results/{name}"), help="report, without suffix")
    parser.add_argument("--work", type=Path, default=Path(f"runs/{name}"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=seeds, help="seeds 0, 1, ... of everything")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--smoke", action="store_true", help="tiny models, to see that everything runs")
    parser.add_argument("--report", action="store_true", help="report on the runs that have finished, start none")
    parser.add_argument("--run", nargs="+", metavar="JOB", help=argparse.SUPPRESS)
    return parser


def carry_out(
    arguments: argparse.Namespace,
    prepare: Callable[[], object],
    phases: Sequence[Phase],
    run: Callable[..., dict[str, Any]],
    summarise: Callable[[Results], dict[str, Any]],
    as_markdown: Callable[[dict[str, Any]], str],
) -> None:
    """Do what ``arguments`` (of ``study_arguments``) ask for: one run, the report alone, or all of the study.

    ``prepare`` makes what all runs share; ``phases`` are jobs of which a later phase needs the earlier ones', or
    follows from their results; ``run`` gets the parts of one job, as text, and returns its result, beside which
    ``made_by`` is written; ``summarise`` gets the results that there are.
    """
    if arguments.run:
        torch.set_num_threads(1)
        result = {"made_by": made_by()} | run(*arguments.run)
        write_text(result_file(arguments.work, arguments.run), json.dumps(result))
        return
    if not arguments.report:
        prepare()
    jobs: list[Job] = []
    for phase in phases:
        due = phase(read_results(arguments.work, jobs)) if callable(phase) else phase
        if not arguments.report:
            run_jobs(due, arguments.work, arguments.processes)
        jobs += due
    results = read_results(arguments.work, jobs)
    made = [result.pop("made_by") for result in results.values() if "made_by" in result]
    report = summarise(results) | circumstances(made)
    write_report(arguments.out, report, as_markdown(report))


def job_name(job: Parts) -> str:
    return "-".join(map(str, job))


def result_file(work: Path, job: Parts) -> Path:
    return work / f"{job_name(job)}.json"


def read_results(work: Path, jobs: Sequence[Job]) -> Results:
    """Results of the jobs that have finished."""
    files = {job: result_file(work, job) for job in jobs}
    return {job: json.loads(file.read_text("utf-8")) for job, file in files.items() if file.exists()}


def run_jobs(jobs: Sequence[Job], work: Path, processes: int) -> None:
    """Start this study once more for each job without a result, ``processes`` at a time."""
    work.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not result_file(work, job).exists()]

    def start(job: Job) -> None:
        log = work / f"{job_name(job)}.log"
        with log.open("w", encoding="utf-8") as output:
            done = subprocess.run(
                own_command("--run", *job), env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=output
            )
        if done.returncode:
            raise SystemExit(f"run {job_name(job)} failed; see {str(log)!r}")

    with ThreadPoolExecutor(processes) as pool:
        for done, _ in enumerate(pool.map(start, missing), start=1):
            print(f"{done} of {len(missing)} runs", file=sys.stderr)

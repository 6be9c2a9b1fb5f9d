"""Carry out the runs of a study, each in a process of its own with one thread; what has finished is never run again.

A study that calls ``run_jobs`` is started again by it with ``--run JOB``, and writes the job's ``result_file`` as its
last act, so that a study that was stopped goes on with the runs that are missing.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from eval.processes import own_command
from frozen_glyph.checkpoint.files import write_json, write_text

Job = Sequence[str | int]


def study_arguments(name: str, description: str | None, data: str) -> argparse.ArgumentParser:
    """A parser of what every study is told; ``data`` says what the folder of ``--data`` holds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {data}")
    parser.add_argument("--out", type=Path, default=Path(f"eval/results/{name}"), help="report, without suffix")
    parser.add_argument("--work", type=Path, default=Path(f"runs/{name}"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of everything")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--smoke", action="store_true", help="tiny models, to see that everything runs")
    parser.add_argument("--report", action="store_true", help="report on the runs that have finished, start none")
    parser.add_argument("--run", nargs=2, metavar=("KIND", "SEED"), help=argparse.SUPPRESS)
    return parser


def job_name(job: Job) -> str:
    return "-".join(map(str, job))


def result_file(work: Path, job: Job) -> Path:
    return work / f"{job_name(job)}.json"


def write_result(work: Path, job: Job, result: dict[str, Any]) -> None:
    write_text(result_file(work, job), json.dumps(result))


def read_results(work: Path, jobs: Sequence[Job]) -> dict[Job, dict[str, Any]]:
    """Results of the jobs that have finished."""
    files = {job: result_file(work, job) for job in jobs}
    return {job: json.loads(file.read_text("utf-8")) for job, file in files.items() if file.exists()}


def write_report(out: Path, report: dict[str, Any], text: str) -> None:
    """Write ``report`` as JSON and ``text`` as Markdown, and print the latter."""
    write_json(out.with_suffix(".json"), report)
    write_text(out.with_suffix(".md"), text)
    print(text)


def run_jobs(jobs: Sequence[Job], work: Path, processes: int) -> None:
    """Start this study once more for each job without a result, ``processes`` at a time."""
    work.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not result_file(work, job).exists()]

    def start(job: Job) -> None:
        log = work / f"{job_name(job)}.log"
        with log.open("w") as output:
            done = subprocess.run(
                own_command("--run", *job), env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=output, stderr=output
            )
        if done.returncode:
            raise SystemExit(f"run {job_name(job)} failed; see {str(log)!r}")

    with ThreadPoolExecutor(processes) as pool:
        for done, _ in enumerate(pool.map(start, missing), start=1):
            print(f"{done} of {len(missing)} runs", file=sys.stderr)

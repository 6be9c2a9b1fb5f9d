"""Walk the README as it stands, in a fresh folder, with the time and memory of every step.

Command: ``python -m eval.walk --folder runs/walk --out eval/results/walk``. Without a network: ``--replace 'data sample
=data sample --synthetic '``; shorter: ``--replace 'frozen-glyph grow =frozen-glyph grow --set stages.0.steps=9 '``.
Given the same ``--folder`` again, a walk that was stopped goes on: what went well there is not done again.

Commands run in order; a block of Python that needs what later commands make runs after them. A command that serves
(``app``) is stopped once its page answers, ``chat`` reads one line, ``push`` needs an account and is not run.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from eval.walk.steps import missing_texts, read_steps
from eval.walk.take import ROOT, take
from frozen_glyph.checkpoint.files import read_json, write_json, write_text
from frozen_glyph.checkpoint.provenance import versions

TAKEN = ".walk.json"  # in the folder: what went well there, by step


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.walk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=ROOT / "README.md", help="what to walk (default: the README)")
    parser.add_argument(
        "--folder", type=Path, help="an empty folder, or that of a walk to go on with (default: temporary)"
    )
    parser.add_argument("--texts", type=Path, help="folder with texts that the page names and does not make")
    parser.add_argument("--replace", action="append", default=[], metavar="OLD=NEW", help="in every command; repeat")
    parser.add_argument("--app", metavar="PYTHON", help="interpreter of an environment with the extra app")
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md as well, anew after every step")
    asked = parser.parse_args()
    if not all("=" in change for change in asked.replace):
        parser.error("--replace: give OLD=NEW")
    replace = dict(change.split("=", 1) for change in asked.replace)
    with tempfile.TemporaryDirectory() as temporary:
        report = walk(asked.page, asked.folder or Path(temporary), asked.texts, replace, asked.app, asked.out)
    print(table(report))
    sys.exit(0 if report["passed"] else 1)


def walk(
    page: Path,
    folder: Path,
    texts: Path | None,
    replace: dict[str, str],
    app: str | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Take every step of ``page`` in ``folder``; what each took, and whether all went well."""
    folder.mkdir(parents=True, exist_ok=True)
    steps, others = read_steps(page.read_text("utf-8"), replace)
    for name in missing_texts(steps, folder):
        if texts is not None and (texts / Path(name).name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(texts / Path(name).name, folder / name)
    before = read_json(folder / TAKEN) if (folder / TAKEN).exists() else {}
    taken: list[dict[str, Any]] = []

    def report() -> dict[str, Any]:
        return {
            "page": page.name,
            "passed": len(taken) == len(steps) and all(found["code"] == 0 for found in taken),
            "seconds": round(sum(found["seconds"] for found in taken), 1),
            "steps": taken,
            "not_run": others,
            "replaced": replace,
            "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
            "versions": versions(),
        }

    waiting = []
    for again in (False, True):
        for number, step in enumerate(waiting if again else steps, start=1):
            print(f"[{number}/{len(steps)}] {step.title}", file=sys.stderr, flush=True)
            found = before.get(step.text) or take(step, folder, app)
            print(f"    {outcome(found)}", file=sys.stderr, flush=True)
            if found["code"] and step.kind == "python" and not again:
                waiting.append(step)
                continue
            if not found["code"] and "not_run" not in found:
                before[step.text] = found
                write_json(folder / TAKEN, before)
            taken.append(found | ({"after": True} if again else {}))
            if out:
                write_json(out.with_suffix(".json"), report())
                write_text(out.with_suffix(".md"), table(report()))
    return report()


def outcome(found: dict[str, Any]) -> str:
    """One line on a step for somebody who waits."""
    if "not_run" in found:
        return str(found["not_run"])
    if found["code"]:
        return f"failed after {found['seconds']:.0f} s: {found['said'].splitlines()[-1:]}"
    return f"went well: {found['seconds']:.0f} s, {'?' if found['mebibytes'] is None else found['mebibytes']} MiB"


def table(report: dict[str, Any]) -> str:
    """The walk as Markdown."""
    rows = []
    for one in report["steps"]:
        step = f"`{one['step']}`{' (after all commands)' if one.get('after') else ''}"
        memory = "–" if one["mebibytes"] is None else one["mebibytes"]
        well = "NO" if one["code"] else one.get("not_run") or "yes"
        rows.append(f"| {step} | {well} | {one['seconds']:.0f} | {memory} |")
    failed = [f"\n`{one['step']}` said:\n\n```\n{one['said']}\n```" for one in report["steps"] if one["code"]]
    replaced = "".join(
        f"\n* `{old.strip()}` was replaced by `{new.strip()}`" for old, new in report["replaced"].items()
    )
    cores, minutes = report["machine"]["cores"], report["seconds"] / 60
    return "\n".join(
        [
            f"# {report['page']}, walked in order: {minutes:.1f} minutes on {cores} cores",
            "",
            "MiB: the most memory that a process of the step held, or the walker before it.",
            "",
            "| step | went well | seconds | MiB |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"Not run: {', '.join(f'`{other}`' for other in report['not_run']) or 'nothing'}.{replaced}",
            *failed,
            "",
        ]
    )


if __name__ == "__main__":
    main()

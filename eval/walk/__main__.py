"""Walk the README as it stands, in a fresh folder, with the time and memory of every step.

Command: ``python -m eval.walk --out eval/results/walk``. Without a network: ``--replace 'data sample =data sample
--synthetic '``; shorter: ``--replace 'frozen-glyph grow =frozen-glyph grow --set training.batch_tokens=512 '``.

Commands run in order; a block of Python that needs what later commands make runs after them. A command that serves
(``app``) is stopped after some seconds, ``chat`` reads one line, ``push`` needs an account and is not run.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from eval.walk.steps import Step, missing_texts, read_steps
from frozen_glyph.checkpoint.files import write_json, write_text
from frozen_glyph.checkpoint.provenance import versions

ROOT = Path(__file__).parents[2]
SERVES, NEEDS_ACCOUNT = {"app"}, {"push"}
SERVING_SECONDS = 60
SPOKEN = "Москва\n"  # to `chat`
YOURS = """
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
tokenizer = AutoTokenizer.from_pretrained("runs/merged")
sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
llama = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
"""  # a model of the reader's own, which a block may begin with


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.walk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=ROOT / "README.md", help="what to walk (default: the README)")
    parser.add_argument("--folder", type=Path, help="an empty folder to walk in (default: a temporary one)")
    parser.add_argument("--texts", type=Path, help="folder with texts that the page names and does not make")
    parser.add_argument("--replace", action="append", default=[], metavar="OLD=NEW", help="in every command; repeat")
    parser.add_argument("--out", type=Path, help="write PATH.json and PATH.md as well")
    asked = parser.parse_args()
    if not all("=" in change for change in asked.replace):
        parser.error("--replace: give OLD=NEW")
    replace = dict(change.split("=", 1) for change in asked.replace)
    with tempfile.TemporaryDirectory() as temporary:
        report = walk(asked.page, asked.folder or Path(temporary), asked.texts, replace)
    if asked.out:
        write_json(asked.out.with_suffix(".json"), report)
        write_text(asked.out.with_suffix(".md"), table(report))
    print(table(report))
    sys.exit(0 if report["passed"] else 1)


def walk(page: Path, folder: Path, texts: Path | None, replace: dict[str, str]) -> dict[str, Any]:
    """Take every step of ``page`` in ``folder``; what each took, and whether all went well."""
    folder.mkdir(parents=True, exist_ok=True)
    steps, others = read_steps(page.read_text("utf-8"), replace)
    for name in missing_texts(steps, folder):
        if texts is not None and (texts / Path(name).name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(texts / Path(name).name, folder / name)
    begin, taken, waiting = time.monotonic(), [], []
    for step in steps:
        found = take(step, folder)
        if step.kind == "python" and found["code"]:
            waiting.append(step)
        else:
            taken.append(found)
    taken += [take(step, folder) | {"after": True} for step in waiting]
    return {
        "page": page.name,
        "passed": all(found["code"] == 0 for found in taken),
        "seconds": round(time.monotonic() - begin, 1),
        "steps": taken,
        "not_run": others,
        "replaced": replace,
        "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
        "versions": versions(),
    }


def take(step: Step, folder: Path) -> dict[str, Any]:
    """Run one step in ``folder``: exit code, seconds, peak memory in MiB (None where the system does not tell)."""
    name = step.words[1] if step.kind == "bash" else ""
    if name in NEEDS_ACCOUNT:
        return {"step": step.title, "code": 0, "seconds": 0.0, "mebibytes": None, "said": "not run: needs an account"}
    if step.kind == "bash":
        command = [sys.executable, "-m", "frozen_glyph", *step.words[1:]]
    else:
        command = [sys.executable, "-c", (YOURS if "llama" in step.text else "") + step.text]
    print(step.title, file=sys.stderr, flush=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    begin = time.monotonic()
    with (folder / ".walk.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        stopper = threading.Timer(SERVING_SECONDS, process.terminate)
        if name in SERVES:
            stopper.start()
        if process.stdin is not None:
            process.stdin.write(SPOKEN if name == "chat" else "")
            process.stdin.close()
        code, mebibytes = finished(process)
        stopper.cancel()
        log.seek(0)
        said = log.read()
    served = name in SERVES and code != 0 and time.monotonic() - begin >= SERVING_SECONDS
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    return {
        "step": step.title,
        "code": 0 if served else code,
        "seconds": round(time.monotonic() - begin, 2),
        "mebibytes": mebibytes,
        "said": "\n".join(lines[-6:]),
    }


def finished(process: subprocess.Popen) -> tuple[int, int | None]:
    """Wait for ``process``: its exit code and peak memory, where the system keeps account of a child."""
    if not hasattr(os, "wait4"):
        return process.wait(), None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def table(report: dict[str, Any]) -> str:
    """The walk as Markdown."""
    rows = []
    for one in report["steps"]:
        step = f"`{one['step']}`{' (after all commands)' if one.get('after') else ''}"
        memory = "–" if one["mebibytes"] is None else one["mebibytes"]
        rows.append(f"| {step} | {'yes' if one['code'] == 0 else 'NO'} | {one['seconds']:.0f} | {memory} |")
    failed = [f"`{one['step']}` said:\n\n```\n{one['said']}\n```" for one in report["steps"] if one["code"]]
    replaced = "".join(
        f"\n* `{old.strip()}` was replaced by `{new.strip()}`" for old, new in report["replaced"].items()
    )
    cores, minutes = report["machine"]["cores"], report["seconds"] / 60
    return "\n".join(
        [
            f"# {report['page']}, walked in order: {minutes:.1f} minutes on {cores} cores",
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

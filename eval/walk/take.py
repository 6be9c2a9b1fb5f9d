"""Take one step of a walk in a process of its own: exit code, seconds, peak memory, and the last lines that it said."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from eval.walk.steps import Step

ROOT = Path(__file__).parents[2]
SERVES, NEEDS_ACCOUNT = "app", {"push"}
SERVING_SECONDS = 300  # until its page answers
SPOKEN = "Москва\n"  # to `chat`
YOURS = """
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
tokenizer = AutoTokenizer.from_pretrained("runs/merged")
sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
llama = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
"""  # a model of the reader's own, which a block may begin with


def take(step: Step, folder: Path, app: str | None = None) -> dict[str, Any]:
    """Run one step in ``folder``; ``mebibytes`` is None where the system does not tell.

    ``app`` is the interpreter of an environment that has Gradio, for what serves a page.
    """
    name = step.words[1] if step.kind == "bash" else ""
    if name in NEEDS_ACCOUNT:
        return not_run(step, "not run: needs an account")
    if name == SERVES and app is None and importlib.util.find_spec("gradio") is None:
        return not_run(step, "not run: needs the extra app (`--app PYTHON`)")
    if step.kind == "bash":
        command = [app if name == SERVES and app else sys.executable, "-m", "frozen_glyph", *step.words[1:]]
    else:
        command = [sys.executable, "-c", (YOURS if "llama" in step.text else "") + step.text]
    port = free_port()
    if name == SERVES:
        command += ["--port", str(port)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    begin = time.monotonic()
    with (folder / ".walk.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        answered = threading.Event()
        if name == SERVES:
            threading.Thread(target=stop_once_it_answers, args=(process, port, answered), daemon=True).start()
        if process.stdin is not None:
            process.stdin.write(SPOKEN if name == "chat" else "")
            process.stdin.close()
        code, mebibytes = finished(process)
        log.seek(0)
        said = log.read()
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    return {
        "step": step.title,
        "code": 0 if answered.is_set() else code,
        "seconds": round(time.monotonic() - begin, 2),
        "mebibytes": mebibytes,
        "said": "\n".join(lines[-6:]),
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def not_run(step: Step, reason: str) -> dict[str, Any]:
    return {"step": step.title, "code": 0, "seconds": 0.0, "mebibytes": None, "said": "", "not_run": reason}


def stop_once_it_answers(process: subprocess.Popen, port: int, answered: threading.Event) -> None:
    """Ask for the page at ``port`` until it comes, or time is over; then end ``process``."""
    until = time.monotonic() + SERVING_SECONDS
    while process.returncode is None and time.monotonic() < until and not answered.is_set():
        time.sleep(0.5)
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
            answered.set()
        except OSError:
            pass
    process.terminate()


def finished(process: subprocess.Popen) -> tuple[int, int | None]:
    """Wait for ``process``: its exit code and peak memory, where the system keeps account of a child."""
    if not hasattr(os, "wait4"):
        return process.wait(), None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)

"""How every benchmark is told what to do and says what it found; without torch, whose memory would count."""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from eval.processes import commit, own_command
from frozen_glyph.checkpoint.files import write_json
from frozen_glyph.checkpoint.provenance import versions


def bench_arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """A parser of what every benchmark is told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"turns that count (default: {repeats})")
    parser.add_argument("--out", type=Path, help="write the report to this JSON file as well")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    return parser


def add_shape_arguments(
    parser: argparse.ArgumentParser, width: int, batch: int, context: int, vocab: int = 65536
) -> None:
    """The options that say what is trained and where; defaults are for two CPU cores."""
    parser.add_argument("--width", type=int, default=width, help=f"hidden size (default: {width})")
    parser.add_argument("--heads", type=int, help="attention heads (default: one for each 32 of the width)")
    parser.add_argument("--vocab", type=int, default=vocab, help=f"token ids (default: {vocab})")
    parser.add_argument("--batch", type=int, default=batch, help=f"sequences in a step (default: {batch})")
    parser.add_argument("--context", type=int, default=context, help=f"tokens in a sequence (default: {context})")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where native")


def run_part(*part: object, timeout: float | None = None, **environment: str) -> dict[str, Any]:
    """``--part`` of this benchmark in a fresh process, with its own arguments; its last line is the result.

    Raises:
        subprocess.SubprocessError: it failed, or took more than ``timeout`` seconds.
    """
    command, variables = own_command("--part", *part), os.environ | environment
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=variables, timeout=timeout)
    result = done.stdout.splitlines()[-1]
    print(*part, result, file=sys.stderr)
    return json.loads(result)


def circumstances() -> dict[str, Any]:
    """What the numbers of a report hold for; begin with it, so that the load is that of other work."""
    return {
        "commit": commit(),
        "machine": platform.machine(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": versions(),
    }


def peak_mebibytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MAXRSS_UNITS


MAXRSS_UNITS = 2**20 if sys.platform == "darwin" else 2**10  # of ``ru_maxrss`` in a MiB


def write_report(report: dict[str, Any], out: Path | None) -> None:
    """Print ``report``, and write it to ``out`` if given."""
    if out:
        write_json(out, report)
    print(json.dumps(report, indent=2))

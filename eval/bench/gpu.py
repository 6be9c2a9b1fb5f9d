"""One script for one GPU, eight minutes at most: what must hold there, then what it reaches; JSON and Markdown.

    python -m eval.bench.gpu --out eval/results/bench-gpu.json
    python -m eval.bench.gpu --parts logits frozen --out checks.json

Needs the checkout and its packages; text is made here. Every part has a process of its own and what is left of
``--seconds``: one that fails, or for which no time is left, is told of, and the next is begun. The report is written
after each. Correctness comes first (``gpu_checks.py``), then figures (``gpu_figures.py``). ``holds`` says whether every
check that could be made holds.
"""

import argparse
import json
import subprocess
import time
from typing import Any

from eval.bench.command import add_shape_arguments, bench_arguments, circumstances, run_part
from frozen_glyph.checkpoint.files import write_json, write_text

PARTS = ("logits", "frozen", "training", "merged", "scoring", "growth")


def main() -> None:
    arguments = parse_arguments()
    if arguments.part:
        print(json.dumps(measure(arguments, *arguments.part)))
        return
    report = {**circumstances(), "hardware": hardware(arguments.device), **shape_of(arguments)}
    begun = time.monotonic()
    report["parts"] = {}
    for part in parts_of(arguments):
        report["parts"][" ".join(part)] = attempt(part, arguments.seconds - (time.monotonic() - begun))
        report["seconds"] = round(time.monotonic() - begun, 1)
        complete = len(report["parts"]) == len(parts_of(arguments))
        report["holds"] = complete and all(map(holds, report["parts"].values()))
        if arguments.out:  # after every part: who ends it early, or is ended, keeps what is there
            write_json(arguments.out, report)
            write_text(arguments.out.with_suffix(".md"), as_markdown(report))
    print(json.dumps(report, indent=2))


def holds(part: dict[str, Any]) -> bool:
    """Whether a part was made, and every check of it that could be made holds."""
    rows = [row for row in part.values() if isinstance(row, dict)]
    return "failed" not in part and all(row.get("holds", "failed" not in row) for row in rows)


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--seconds", type=float, default=480, help="for everything (default: 480)")
    parser.add_argument("--depths", type=int, nargs="+", default=[9, 16], help="blocks that are trained (9 16)")
    parser.add_argument("--steps", type=int, default=300, help="of each stage of the growth (default: 300)")
    parser.add_argument("--bytes", type=int, default=4_000_000, help="of synthetic text (default: 4,000,000)")
    add_shape_arguments(parser, width=1024, batch=32, context=1024)
    parser.set_defaults(device="cuda")
    return parser.parse_args()


def shape_of(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("device", "width", "heads", "vocab", "batch", "context", "precision", "depths", "steps", "repeats")
    return {name: getattr(arguments, name) for name in names}


def parts_of(arguments: argparse.Namespace) -> list[tuple[str, ...]]:
    """Each part as ``--part`` names it; every depth is trained in a process of its own."""
    parts: list[tuple[str, ...]] = []
    for part in arguments.parts:
        parts += [(part, str(depth)) for depth in arguments.depths] if part == "training" else [(part,)]
    return parts


def attempt(part: tuple[str, ...], seconds: float) -> dict[str, Any]:
    """What a part finds within ``seconds``, or why it finds nothing."""
    if seconds <= 0:
        return {"failed": "no time was left"}
    try:
        return run_part(*part, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in the {seconds:.0f} s that were left"}
    except subprocess.CalledProcessError as error:
        return {"failed": f"the process ended with {error.returncode}; what it said is above"}
    except (LookupError, ValueError):
        return {"failed": "its last line is no result; what it said is above"}


def measure(arguments: argparse.Namespace, part: str, *rest: str) -> dict[str, Any]:
    """One part, in this process."""
    from eval.bench import gpu_checks, gpu_figures

    match part:
        case "logits":
            return gpu_checks.check_logits(arguments)
        case "frozen":
            return gpu_checks.check_frozen(arguments)
        case "training":
            return gpu_figures.training(arguments, int(rest[0]))
    return getattr(gpu_figures, part)(arguments)


def hardware(device: str) -> str:
    """The device's name, as its driver has it."""
    if not device.startswith("cuda"):
        return device
    import torch

    if not torch.cuda.is_available():
        return f"{device}: torch finds no such device"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def as_markdown(report: dict[str, Any]) -> str:
    """A table of each part."""
    lines = [f"# {report['hardware']}", ""]
    lines += [f"Everything holds: {report['holds']}. {report['seconds']:.0f} s. {report['platform']}.", ""]
    for name, part in report["parts"].items():
        lines += [f"## {name}", ""]
        if "failed" in part:
            lines += [f"Failed: {part['failed']}", ""]
            continue
        keys = list(dict.fromkeys(key for row in part.values() for key in row))
        lines += [f"| | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
        lines += [f"| {row} | {' | '.join(as_cell(found.get(key)) for key in keys)} |" for row, found in part.items()]
        lines.append("")
    return "\n".join(lines)


def as_cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:,.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()

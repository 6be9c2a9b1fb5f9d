"""Memory of reading prompts with merged experts under the rules that read tokens, beyond that under ``mean``.

    python -m eval.bench.reading_memory --out eval/results/bench-reading-memory.json

A model of ``--experts`` experts reads one prompt, and ``--batch`` of them, into a cache, and makes the logits behind
the last token. On CUDA the peak is the allocator's, on CPU the largest total of what torch allocates (see
``eval.bench.memory``). ``posterior, sampled`` has ``prompt_sample=64``.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.generate import SAMPLED, build_merged, choose
from eval.bench.memory import to_mebibytes
from eval.bench.models import build_model
from eval.bench.training_step import describe
from frozen_glyph.model.rules_frozen_glyph import rules_with
from frozen_glyph.training.precision import uses_bf16

MEBIBYTES = 64  # beyond ``mean`` at the most


def main() -> None:
    arguments = parse_arguments()
    about = describe(arguments)
    expert = build_model(arguments, arguments.layers)
    merged = build_merged(expert, arguments.experts)
    del expert
    dtype = torch.bfloat16 if uses_bf16(arguments.precision) else torch.float32
    merged = merged.to(arguments.device, dtype).eval()
    batches = {str(batch): measure(merged, batch, arguments.context) for batch in (1, arguments.batch)}
    most = max(value for found in batches.values() for value in found["beyond_mean"].values())
    settings = {"dtype": str(dtype), "layers": arguments.layers, "experts": arguments.experts}
    write_report(
        {**about, **settings, "mebibytes": batches, "goal": MEBIBYTES, "holds": most <= MEBIBYTES}, arguments.out
    )


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=1)
    parser.add_argument("--layers", type=int, default=4, help="blocks of an expert (default: 4)")
    parser.add_argument("--experts", type=int, default=3, help="experts (default: 3)")
    add_shape_arguments(parser, width=512, batch=8, context=512)
    return parser.parse_args()


def measure(model: Any, batch: int, length: int) -> dict[str, Any]:
    """MiB under ``mean``, and how many more under each other rule."""
    ids = torch.randint(model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))
    ids = ids.to(model.device)
    peaks = {rule: peak_of_reading(model, rule, ids) for rule in ("mean", *rules_with(reads_tokens=True), SAMPLED)}
    mean = peaks.pop("mean")
    return {
        "mean": to_mebibytes(mean),
        "beyond_mean": {rule: to_mebibytes(peak - mean) for rule, peak in peaks.items()},
    }


@torch.no_grad()
def peak_of_reading(model: Any, rule: str, ids: torch.Tensor) -> int:
    """Bytes that reading ``ids`` [B, T] under ``rule`` takes at the most, those of the cache and the result too."""
    choose(model, rule)
    model(ids[:, :4], logits_to_keep=1)  # libraries keep some for themselves
    if ids.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model(ids, use_cache=True, logits_to_keep=1)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        model(ids, use_cache=True, logits_to_keep=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = [
            event["args"] for event in json.loads(path.read_bytes())["traceEvents"] if event["name"] == "[memory]"
        ]
    before = events[0]["Total Allocated"] - events[0]["Bytes"]
    return max(event["Total Allocated"] for event in events) - before


if __name__ == "__main__":
    main()

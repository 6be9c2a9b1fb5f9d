"""Memory and time of a merge, against copying the same bytes: two experts of the shape of best_bvv (PAPER section 2).

    python -m eval.bench.merge --out eval/results/bench-merge.json

Random weights are written piece by piece, 16 blocks, 1,024 wide, 131,072 ids each: 2.7 GB in all, and as much again
while a turn runs. `merge_experts` (a process of its own, imports, hashing, fsync included) and `cp -r` with `sync` of
the copied files take turns, so that whatever else the machine does slows both; processor seconds say how much of the
time was work: beyond `cp`, merging computes the sha256 of every byte, on two cores. Resident memory is the largest of
the merging process, as the kernel counts it. `--blocks` and `--vocab` make a quick try of it.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eval.bench.command import MAXRSS_UNITS, bench_arguments, circumstances, write_report
from eval.bench.timing import alternate
from frozen_glyph.checkpoint.config import identity
from frozen_glyph.checkpoint.contract import DEFAULT_INDEX, SUBSTRATE_SHARD
from frozen_glyph.checkpoint.files import hash_contents, read_header, write_index, write_json
from frozen_glyph.checkpoint.tensors import SUBSTRATE_PREFIX, fingerprint, model_shapes

PUBLISHED_PARAMETERS = 671_649_792  # of two such experts on one substrate
ALLOWED_RATIO, ALLOWED_MEBIBYTES = 1.3, 700
PIECE = 1 << 20  # numbers
MERGE = "import sys; from frozen_glyph import merge_experts; merge_experts(sys.argv[1:-1], sys.argv[-1])"


def main() -> None:
    parser = bench_arguments(__doc__, repeats=5)
    parser.add_argument("--folder", help="where 6 GB are free (default: the system's temporary folder)")
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=131_072)
    arguments = parser.parse_args()
    about = circumstances()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = about | measure(arguments, Path(folder))
    write_report(report, arguments.out)


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    experts = [folder / "experts" / name for name in ("ru", "zh")]
    for seed, expert in enumerate(experts):
        write_expert(expert, arguments, seed, experts[0])
    os.sync()  # or the disk would still be writing the experts while they are merged
    out, copy = folder / "merged", folder / "copy"
    merge = [sys.executable, "-c", MERGE, *map(str, [*experts, out])]
    merged: dict[str, int] = {}

    def merging() -> Usage:
        used = run(merge)
        merged.update(describe(out))
        shutil.rmtree(out)
        return used

    def copying() -> Usage:
        copied = run(["cp", "-r", str(folder / "experts"), str(copy)])
        synced = run(["sync", *(str(path) for path in copy.rglob("*") if path.is_file())])
        shutil.rmtree(copy)
        return Usage(copied.seconds + synced.seconds, copied.mebibytes, copied.processor + synced.processor)

    turns = alternate({"merge": merging, "copy": copying}, arguments.repeats, warm_up=1)  # warm caches for both
    seconds = {name: [used.seconds for used in own] for name, own in turns.items()}
    processor = {name: [used.processor for used in own] for name, own in turns.items()}
    mebibytes = [used.mebibytes for used in turns["merge"]]
    ratios = [one / other for one, other in zip(seconds["merge"], seconds["copy"], strict=True)]
    published = (arguments.blocks, arguments.width, arguments.vocab) == (16, 1024, 131_072)
    return {
        **{name: getattr(arguments, name) for name in ("blocks", "width", "vocab", "repeats")},
        "expert_bytes": sum(path.stat().st_size for path in experts[0].glob("*.safetensors")),
        **merged,
        "parameters_as_published": merged["parameters"] == PUBLISHED_PARAMETERS if published else None,
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "median_seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "median_processor_seconds": {name: round(statistics.median(values), 3) for name, values in processor.items()},
        "merge_over_copy": [round(ratio, 3) for ratio in ratios],
        "median_merge_over_copy": round(statistics.median(ratios), 3),
        "peak_resident_mebibytes": max(mebibytes),
        "allowed": {"merge_over_copy": ALLOWED_RATIO, "peak_resident_mebibytes": ALLOWED_MEBIBYTES},
        "holds": statistics.median(ratios) <= ALLOWED_RATIO and max(mebibytes) < ALLOWED_MEBIBYTES,
    }


class Usage(NamedTuple):
    """Wall-clock seconds, largest resident memory in MiB, and processor seconds of a process."""

    seconds: float
    mebibytes: int
    processor: float


def run(command: list[str]) -> Usage:
    """What a process used, which must succeed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with code {process.returncode}")
    return Usage(time.perf_counter() - started, usage.ru_maxrss // MAXRSS_UNITS, usage.ru_utime + usage.ru_stime)


def describe(merged: Path) -> dict:
    headers = {path.name: read_header(path) for path in merged.glob("*.safetensors")}
    tensors = {name: tensor for header in headers.values() for name, tensor in header.tensors.items()}
    return {
        "parameters": sum(
            math.prod(tensor.shape) for name, tensor in tensors.items() if not name.startswith(SUBSTRATE_PREFIX)
        ),
        "substrate_bytes": headers[SUBSTRATE_SHARD].nbytes,
        "merged_bytes": sum(header.nbytes for header in headers.values()),
    }


def write_expert(folder: Path, arguments: argparse.Namespace, seed: int, first: Path) -> None:
    """A grown checkpoint with random weights; all experts stand on the substrate of ``first``."""
    config = {
        **identity(merged=False),
        "vocab_size": arguments.vocab,
        "hidden_size": arguments.width,
        "intermediate_size": 4 * arguments.width,
        "num_hidden_layers": arguments.blocks,
        "num_attention_heads": 32,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "max_position_embeddings": 1024,
        "substrate_bits": 1024,
        "tokenizer_sha256": "none",
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "dtype": "float32",
    }  # fmt: skip
    shards: dict[str, dict[str, tuple[int, ...]]] = {
        SUBSTRATE_SHARD: {},
        "blocks-1.safetensors": {},
        "head-1.safetensors": {},
    }
    for name, shape in model_shapes(config).items():
        kind = "blocks-1.safetensors" if name.startswith("model.layers.") else "head-1.safetensors"
        shards[SUBSTRATE_SHARD if name.startswith(SUBSTRATE_PREFIX) else kind][name] = shape
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    if folder == first:
        digests = write_random(folder / SUBSTRATE_SHARD, shards.pop(SUBSTRATE_SHARD), "U8", generator)
        config["substrate_fingerprint"] = fingerprint(digests, config["tokenizer_sha256"])
    else:
        shutil.copyfile(first / SUBSTRATE_SHARD, folder / SUBSTRATE_SHARD)
        config["substrate_fingerprint"] = json.loads((first / "config.json").read_bytes())["substrate_fingerprint"]
    for shard in ("blocks-1.safetensors", "head-1.safetensors"):
        write_random(folder / shard, shards[shard], "F32", generator)
    names = {path.name: read_header(path).tensors for path in folder.glob("*.safetensors")}
    write_index(folder / DEFAULT_INDEX, {name: shard for shard, tensors in names.items() for name in tensors})
    write_json(folder / "config.json", config)


def write_random(
    path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, generator: np.random.Generator
) -> dict[str, str]:
    """Write a shard of random numbers in pieces; the sha256 of each tensor."""
    size, entries, end = {"F32": 4, "U8": 1}[dtype], {}, 0
    for name in sorted(shapes):
        start, end = end, end + size * math.prod(shapes[name])
        entries[name] = {"dtype": dtype, "shape": shapes[name], "data_offsets": [start, end]}

    def header(content: str) -> bytes:
        text = json.dumps({"__metadata__": {"content_sha256": content, "format": "pt"}} | entries).encode()
        text = text.ljust(-(-len(text) // 8) * 8)
        return len(text).to_bytes(8, "little") + text

    digests = {}
    with path.open("wb") as file:
        file.write(header("0" * 64))
        for name in sorted(shapes):
            digest = hashlib.sha256()
            for first in range(0, math.prod(shapes[name]), PIECE):
                count = min(PIECE, math.prod(shapes[name]) - first)
                numbers = generator.random(count, np.float32) - 0.5 if size == 4 else generator.bytes(count)
                digest.update(memoryview(numbers))
                file.write(numbers)
            digests[name] = digest.hexdigest()
        file.seek(0)
        file.write(header(hash_contents((name, dtype, shapes[name], digests[name]) for name in shapes)))
    return digests


if __name__ == "__main__":
    main()

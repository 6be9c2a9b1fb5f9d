"""Time, memory and size of building a substrate, against the published recipe done plainly in the same run.

    python -m eval.bench.substrate --out eval/results/substrate.json [--wide] [--step]

Every part runs in a process of its own, so that its peak memory is its own. The stand-in vocabulary holds every code
point below U+10000 except surrogates and private use, whose ids hold specials, bytes and n-grams.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from eval.processes import own_command

BMP_SIZE, WIDE_SIZE = 0x10000, 0x20000
FREE_IDS = range(0xD800, 0xF900)  # surrogates and private use
LETTERS = "etaoinshrdluтеоаинслрк的一是在"


def main() -> None:
    arguments = parse_arguments()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments)))
        return
    report: dict = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
    names = ["build", "naive", *(["wide"] if arguments.wide else []), *(["step"] if arguments.step else [])]
    for name in names:
        report[name] = run_part(name)
        print(name, json.dumps(report[name]), file=sys.stderr)
    report["times_faster"] = round(report["naive"]["seconds"] / report["build"]["seconds"], 1)
    report["times_faster_cpu_seconds"] = round(report["naive"]["cpu_seconds"] / report["build"]["cpu_seconds"], 1)
    text = json.dumps(report, indent=2) + "\n"
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)
    print(text, end="")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the report to this JSON file as well")
    parser.add_argument("--wide", action="store_true", help="also build 131,072 tokens x 4096 (a minute or two)")
    parser.add_argument(
        "--step", action="store_true", help="also time vectors against a training step (minutes on CPU)"
    )
    parser.add_argument("--sample", type=int, default=2048, help="tokens that the plain recipe draws; scaled up")
    parser.add_argument("--batch", type=int, default=1, help="sequences of 1024 tokens in the training step (paper: 8)")
    parser.add_argument("--device", default="cpu", help="where the training step runs")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def run_part(name: str) -> dict:
    """One part in a fresh process, with this process's own arguments."""
    done = subprocess.run(own_command("--part", name), stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_build(arguments: argparse.Namespace) -> dict:
    """65,536 tokens x 1024: from the font's file to the saved artifact."""
    return build(BMP_SIZE, 1024)


def measure_wide(arguments: argparse.Namespace) -> dict:
    """131,072 tokens x 4096."""
    return build(WIDE_SIZE, 4096)


def build(vocab_size: int, width: int) -> dict:
    from frozen_glyph.checkpoint.contract import SUBSTRATE_SHARD
    from frozen_glyph.substrate import GlyphSubstrate, load_font

    tokenizer = stand_in_tokenizer(vocab_size)
    before = peak_mebibytes()
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        substrate = GlyphSubstrate.build(tokenizer, width=width, font=load_font())
        substrate.save_pretrained(folder)
        times = clock.read()
        size = (Path(folder) / SUBSTRATE_SHARD).stat().st_size
    return {
        "tokens": substrate.vocab_size,
        "width": substrate.width,
        **times,
        "peak_mebibytes": peak_mebibytes(),
        "peak_mebibytes_before": before,
        "tensor_megabytes": round(size / 1e6, 2),
        "dense_float32_megabytes": round(4 * substrate.vocab_size * substrate.width / 1e6, 2),
        "collision_groups_resolved": substrate.provenance["collisions"]["groups"],
        "fingerprint": substrate.fingerprint,
    }


def measure_naive(arguments: argparse.Namespace) -> dict:
    """The recipe of ``published_recipe``: drawing on every n-th token and scaled up, the analysis on all tokens."""
    import numpy as np

    import eval.bench.published_recipe as recipe
    from frozen_glyph.substrate.codes import random_code
    from frozen_glyph.substrate.font import load_outline_font
    from frozen_glyph.substrate.published import open_outlines

    texts = stand_in_texts(BMP_SIZE)[:: BMP_SIZE // arguments.sample]
    outlines = open_outlines(load_outline_font(), 32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeddings.txt"
        clock = Clock()
        recipe.write_bit_lists(texts, outlines, 32, path)
        bits = recipe.read_bit_lists(path)
        drawing = clock.read()
    scale = BMP_SIZE / len(texts)
    # Its cost depends on the shape alone: the sample's pictures again and again, with random bits to make them differ.
    full = np.resize(bits, (BMP_SIZE, bits.shape[1]))
    full ^= np.unpackbits(random_code(BMP_SIZE, bits.shape[1], seed=0), axis=1)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        np.save(Path(folder) / "table.npy", recipe.principal_components(full))
        analysis = clock.read()
    return {
        "tokens": BMP_SIZE,
        "seconds": round(drawing["seconds"] * scale + analysis["seconds"], 2),
        "cpu_seconds": round(drawing["cpu_seconds"] * scale + analysis["cpu_seconds"], 2),
        "drawn_tokens": len(texts),
        "drawing_scaled": {name: round(value * scale, 2) for name, value in drawing.items()},
        "analysis": analysis,
        "peak_mebibytes": peak_mebibytes(),
    }


def measure_step(arguments: argparse.Namespace) -> dict:
    """Vectors of a batch against one training step (forward, backward, AdamW) of the 9-layer, 1024-wide model."""
    import torch

    from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
    from frozen_glyph.substrate.codes import random_code

    torch.manual_seed(0)
    device = torch.device(arguments.device)
    model = FrozenGlyphForCausalLM(FrozenGlyphConfig()).to(device).train()
    embedding = model.get_input_embeddings()
    embedding.packed_bits.copy_(torch.from_numpy(random_code(BMP_SIZE, 1024, seed=0)))
    embedding.center.fill_(8)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    ids = torch.randint(BMP_SIZE, (arguments.batch, 1024), device=device)
    # On a CPU other work may run beside; processor seconds do not count it.
    clock = time.perf_counter if device.type == "cuda" else time.process_time

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def best_of(repeats: int, work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repeats + 1):  # the first is warm-up
            start = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(clock() - start)
        return min(seconds[1:])

    vectors = best_of(5, lambda: embedding.compute(ids))
    whole = best_of(5 if device.type == "cuda" else 1, step)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "batch": arguments.batch,
        "trainable_parameters": sum(parameter.numel() for parameter in trainable),
        "vectors_seconds": round(vectors, 5),
        "step_seconds": round(whole, 4),
        "vectors_percent_of_step": round(100 * vectors / whole, 2),
        "peak_mebibytes": peak_mebibytes(),
    }


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "seconds": round(time.perf_counter() - self.wall, 2),
            "cpu_seconds": round(time.process_time() - self.processor, 2),
        }


def peak_mebibytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)


def stand_in_texts(vocab_size: int) -> list[str]:
    """Token texts by id: code points, and in the free ids specials, bytes and n-grams."""
    from frozen_glyph.substrate.vocabulary import BYTE_TOKENS, SPECIAL_TOKENS

    ngrams = (
        "".join(letters) for length in itertools.count(2) for letters in itertools.product(LETTERS, repeat=length)
    )
    others = itertools.chain(SPECIAL_TOKENS, BYTE_TOKENS, ngrams)
    return [
        next(others) if token_id in FREE_IDS or token_id >= BMP_SIZE else chr(token_id)
        for token_id in range(vocab_size)
    ]


def stand_in_tokenizer(vocab_size: int):
    from tokenizers import AddedToken, Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    from frozen_glyph.substrate.vocabulary import SPECIAL_TOKENS

    vocab = {text: token_id for token_id, text in enumerate(stand_in_texts(vocab_size))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=SPECIAL_TOKENS[0])


PARTS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "build": measure_build,
    "naive": measure_naive,
    "wide": measure_wide,
    "step": measure_step,
}

if __name__ == "__main__":
    main()

"""Time, memory and size of building a substrate, against the published recipe done plainly in the same run.

    python -m eval.bench.substrate --out eval/results/substrate.json [--wide] [--step]

Every part runs in a process of its own, so that its peak memory is its own. The stand-in vocabulary holds every code
point below U+10000 except surrogates and private use, whose ids hold specials, bytes and n-grams.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from eval.bench.command import bench_arguments, circumstances, peak_mebibytes, run_part, write_report
from eval.bench.timing import Clock, Seconds, alternate, summary, timed

COMPACT_SIZE, BMP_SIZE, WIDE_SIZE = 0x1000, 0x10000, 0x20000
FREE_IDS = range(0xD800, 0xF900)  # surrogates and private use
LETTERS = "etaoinshrdluтеоаинслрк的一是在"


def main() -> None:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--wide", action="store_true", help="also build 131,072 tokens x 4096 (a minute or two)")
    parser.add_argument("--step", action="store_true", help="also time vectors in a training step (minutes on CPU)")
    parser.add_argument("--sample", type=int, default=2048, help="tokens that the plain recipe draws; scaled up")
    parser.add_argument("--batch", type=int, default=1, help="sequences of 1024 tokens in the training step (paper: 8)")
    parser.add_argument("--device", default="cpu", help="where the training step runs")
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part[0]](arguments)))
        return
    report = circumstances()
    names = [
        "build",
        "build_drawn",
        "compact",
        "compact_drawn",
        "naive",
        *(["wide"] if arguments.wide else []),
        *(["step"] if arguments.step else []),
    ]
    report |= {name: run_part(name) for name in names}
    report["times_faster"] = round(report["naive"]["seconds"] / report["build"]["seconds"], 1)
    report["times_faster_cpu_seconds"] = round(report["naive"]["cpu_seconds"] / report["build"]["cpu_seconds"], 1)
    for name in ("build", "compact"):
        report[name]["cpu_seconds_over_drawn"] = round(
            report[name]["cpu_seconds"] / report[f"{name}_drawn"]["cpu_seconds"], 2
        )
    write_report(report, arguments.out)


def measure_build(arguments: argparse.Namespace) -> dict:
    """65,536 tokens x 1024: from the font's file to the saved artifact."""
    return build(BMP_SIZE, 1024)


def measure_compact(arguments: argparse.Namespace) -> dict:
    """4,096 tokens x 256."""
    return build(COMPACT_SIZE, 256)


def measure_wide(arguments: argparse.Namespace) -> dict:
    """131,072 tokens x 4096."""
    return build(WIDE_SIZE, 4096)


def build(vocab_size: int, width: int, whiten: str | None = None) -> dict:
    """``whiten`` none: the pictures as drawn, for comparison."""
    from frozen_glyph.checkpoint.contract import SUBSTRATE_SHARD
    from frozen_glyph.substrate import GlyphSubstrate, load_font

    tokenizer = stand_in_tokenizer(vocab_size)
    before = peak_mebibytes()
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        substrate = GlyphSubstrate.build(tokenizer, width=width, font=load_font(), whiten=whiten)
        substrate.save_pretrained(folder)
        times = rounded(clock.read())
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
        drawing = rounded(clock.read())
    scale = BMP_SIZE / len(texts)
    # Its cost depends on the shape alone: the sample's pictures again and again, with random bits to make them differ.
    full = np.resize(bits, (BMP_SIZE, bits.shape[1]))
    full ^= np.unpackbits(random_code(BMP_SIZE, bits.shape[1], seed=0), axis=1)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        np.save(Path(folder) / "table.npy", recipe.principal_components(full))
        analysis = rounded(clock.read())
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
    """Whitened vectors of a batch against one training step (forward, backward, AdamW) of the 9-layer, 1024-wide model.

    Of a new substrate that is not materialised; no number takes longer than another, so any will do.
    """
    import torch

    from eval.bench.models import build_model
    from eval.bench.training_step import TrainingStep, device_name
    from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding

    settings = argparse.Namespace(
        **{"vocab": BMP_SIZE, "width": 1024, "heads": 32, "context": 1024},
        batch=arguments.batch,
        device=arguments.device,
        precision="bf16" if arguments.device == "cuda" else "fp32",
    )
    model = build_model(settings, layers=9)
    step = TrainingStep(model, settings)
    embedding = FrozenGlyphEmbedding(BMP_SIZE, 1024, 1024, rotated=True, whitened=True)
    for buffer in embedding.buffers():
        buffer.random_(1, 100)
    embedding.to(step.device)
    ids = step.inputs["input_ids"]
    turns = {"vectors": timed(lambda: embedding.compute(ids), step.device), "step": step.seconds}
    measured = alternate(turns, arguments.repeats, warm_up=1)
    # On a CPU other work may run beside; processor seconds do not count it.
    kind = "seconds_min" if step.device.type == "cuda" else "cpu_seconds_min"
    vectors, whole = (summary(measured[name])[kind] for name in ("vectors", "step"))
    return {
        "device": device_name(settings),
        "threads": torch.get_num_threads(),
        "batch": arguments.batch,
        "trainable_parameters": sum(parameter.numel() for parameter in step.trainable),
        "vectors_seconds": round(vectors, 5),
        "step_seconds": round(whole, 4),
        "vectors_percent_of_step": round(100 * vectors / whole, 2),
        "peak_mebibytes": peak_mebibytes(),
    }


def rounded(seconds: Seconds) -> dict[str, float]:
    return {"seconds": round(seconds.wall, 2), "cpu_seconds": round(seconds.cpu, 2)}


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
    "build_drawn": lambda arguments: build(BMP_SIZE, 1024, whiten="none"),
    "compact": measure_compact,
    "compact_drawn": lambda arguments: build(COMPACT_SIZE, 256, whiten="none"),
    "naive": measure_naive,
    "wide": measure_wide,
    "step": measure_step,
}

if __name__ == "__main__":
    main()

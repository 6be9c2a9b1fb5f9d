"""The benchmarks of training and of scoring run at a tiny size, and what they count is right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # a minute
ROOT = Path(__file__).parents[2]
TINY = ["--width", "64", "--heads", "2", "--vocab", "500", "--batch", "2", "--context", "32", "--precision", "fp32"]


@pytest.fixture
def bench(tmp_path):
    """``bench(name, *arguments)``: the report which that benchmark writes, at the tiny size."""

    def run(name: str, *arguments: str) -> dict:
        out = tmp_path / "report.json"
        command = [sys.executable, "-m", f"eval.bench.{name}", *TINY, *arguments, "--out", str(out)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        return json.loads(out.read_text())

    return run


def step_flops(layers: int, frozen: int) -> int:
    """By hand, two for a multiplication and an addition, attention counted whole though half of it is masked."""
    tokens, width, vocab, context = 2 * 32, 64, 500, 32
    projection, mlp, scores = tokens * width * width, 2 * tokens * width * 4 * width, tokens * context * width
    block = 4 * projection + mlp
    forward = layers * (block + 2 * scores) + tokens * width * vocab
    # Backward: each Linear twice, for its input and its weight; attention computes its scores again and four products.
    backward = (layers - frozen) * (2 * block + 5 * scores) + 2 * tokens * width * vocab
    return 2 * (forward + backward)


def test_growth_step_counts_the_flops_of_both_settings(bench):
    report = bench("growth_step", "--blocks", "1", "2", "--repeats", "2")
    (stage,) = report["stages"]
    assert (stage["layers"], stage["frozen_layers"]) == (3, 1)
    assert stage["monolithic"]["flops"] == step_flops(3, 0)
    assert stage["growth"]["flops"] == step_flops(3, 1)
    time_ratio = stage["growth"]["seconds_median"] / stage["monolithic"]["seconds_median"]
    assert report["worst_time_ratio_over_flop_ratio"] == pytest.approx(time_ratio / stage["flop_ratio"], abs=0.001)
    assert report["holds"] == (report["worst_time_ratio_over_flop_ratio"] <= 1.1)


def test_memory_beyond_the_frozen_weights_stays(bench):
    report = bench("memory", "--stages", "3")
    second, third = report["stages"]
    block_mebibytes = 4 * (12 * 64 * 64 + 4 * 64 + 64 + 4 * 64) / 2**20
    assert second["frozen_mebibytes"] == pytest.approx(block_mebibytes, abs=0.01)
    assert third["frozen_mebibytes"] == pytest.approx(2 * block_mebibytes, abs=0.01)
    assert third["peak_mebibytes"] > second["peak_mebibytes"]
    weights_gradients_and_adam = 4 * 4 * second["trainable_parameters"] / 2**20
    assert second["beyond_frozen_mebibytes"] > weights_gradients_and_adam
    assert report["holds"]


def test_throughput_compares_models_of_the_same_size(bench):
    report = bench("throughput", "--layers", "2", "--steps", "1", "--repeats", "1")
    sizes = [model["trainable_parameters"] for model in report["models"].values()]
    assert max(sizes) / min(sizes) < 1.06
    ratios = report["our_tokens_per_second_over_theirs"]
    assert ratios.keys() == {"frozen_glyph", "frozen_glyph, chunked loss"}
    assert all(theirs.keys() == {"llama", "gpt2"} for theirs in ratios.values())


def test_eval_speed_scores_both_forms_with_all_contestants(bench):
    report = bench("eval_speed", "--layers", "1", "--context", "256", "--questions", "3", "--repeats", "2")
    assert report["questions"] == 3
    parameters = report["parameters"]
    assert len(parameters) == 4
    assert parameters["frozen_glyph, lm_eval"] == 64 * 500 + 500 + 12 * 64**2 + 5 * 64 + 6 * 64
    for form in ("letters", "answers"):
        measured, found = report["measured"][form], report["time_of_llama_over_ours"][form]
        for loader in ("lm_eval", "frozen-glyph eval"):
            ours, llama = (measured[f"{name}, {loader}"]["seconds_median"] for name in ("frozen_glyph", "llama"))
            assert found[loader]["seconds_median"] == pytest.approx(llama / ours, abs=1e-4)
            low, high = found[loader]["interval_95"]
            assert low <= found[loader]["seconds_total"] <= high

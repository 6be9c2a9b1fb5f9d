"""Every benchmark runs at a tiny size in this process, and says of its numbers where they hold."""

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path

import pytest

from eval.bench import substrate
from frozen_glyph.checkpoint.files import write_json
from frozen_glyph.substrate.font import DEBIAN_HEX
from frozen_glyph.substrate.vocabulary import SPECIAL_TOKENS

BENCH = Path(__file__).parents[2] / "eval" / "bench"
SHAPE = "--width 64 --heads 2 --vocab 340 --batch 2 --context 32 --precision fp32"
TINY = {
    "costs": "--points 2 --repeats 1",
    "eval_speed": f"{SHAPE} --layers 1 --context 256 --questions 2 --repeats 1",
    "generate": f"{SHAPE} --layers 1 --experts 2 --repeats 1",
    "gpu": f"{SHAPE} --device cpu --depths 2 --steps 4 --bytes 40000 --repeats 1 --parts frozen training",
    "growth_step": f"{SHAPE} --blocks 1 1 --repeats 1",
    "head": "--width 32 --vocab 300 --repeats 1",
    "health": f"{SHAPE} --depth 2 --repeats 1",
    "loss": "--vocab 300 --width 16 --precision fp32 --ways plain ours --tokens 1024 --repeats 1",
    "memory": f"{SHAPE} --stages 3",
    "merge": "--blocks 1 --width 64 --vocab 512 --repeats 1",
    "prefix_cache": f"{SHAPE} --depth 2 --batches 2 --repeats 1",
    "quantize": f"{SHAPE} --depth 1 --steps-below 1 --repeats 1",
    "reading_memory": f"{SHAPE} --layers 1 --experts 2",
    "sparse": f"{SHAPE} --batch 1 --context 512 --layers 1 --experts 2 --paragraphs 1 --repeats 1",
    "text_loss": f"{SHAPE} --layers 1 --repeats 1",
    "throughput": f"{SHAPE} --layers 1 --steps 1 --repeats 1",
    "tokenizer": "--vocab 600 --train-mb 0.01 --sizes 0.01 --repeats 1 --text",
}
# Measure at one size only, or a model that they are given: they have a test of their own below.
FIXED = {"draft", "substrate", "switching"}


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """``bench(name, *more)``: the report that a benchmark writes at its tiny size, its parts in this process too."""

    def run(name: str, *more: str) -> dict:
        module = importlib.import_module(f"eval.bench.{name}")

        def main(*extra: str) -> str:
            monkeypatch.setattr(sys, "argv", [name, *TINY[name].split(), *more, *extra])
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                module.main()
            return printed.getvalue()

        if hasattr(module, "run_part"):
            monkeypatch.setattr(module, "run_part", lambda *part, **_: json.loads(main("--part", *map(str, part))))
        out = tmp_path / "report.json"
        printed = json.loads(main("--out", str(out)))
        report = json.loads(out.read_text("utf-8"))
        assert printed == report
        return report

    return run


def test_every_benchmark_is_tried():
    benches = {path.stem for path in BENCH.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")}
    assert benches == TINY.keys() | FIXED


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "en.txt"
    path.write_text("The cat sat on the mat, and the hat is on the cat.\n" * 500, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", TINY)
def test_benchmark_reports_and_says_where_it_was_measured(bench, name, text):
    report = bench(name, *([text] if name == "tokenizer" else []))
    assert report["cores"] >= 1 and report["versions"]["torch"] and len(report["load_average"]) == 3


def test_drafting_writes_the_same_text(experts, monkeypatch, tmp_path):
    from eval.bench import draft

    prompts = tmp_path / "prompts.txt"
    prompts.write_text(
        "\n\n".join("The cat sat on the mat, and the hat is on the cat. " * 8 for _ in range(9)), "utf-8"
    )
    monkeypatch.setattr(draft, "NEW_TOKENS", 4)
    options = ["--prompts", str(prompts), "--stages", "2", "--repeats", "1", "--out", str(tmp_path / "report.json")]
    monkeypatch.setattr(sys, "argv", ["draft", str(experts[0]), *options])
    draft.main()
    assert [row["same_text"] for row in json.loads((tmp_path / "report.json").read_text("utf-8"))["drafts"]] == [True]


def test_switching_chooses_the_rate_on_the_first_halves(merged_folder, text, monkeypatch, tmp_path):
    from eval.bench import switching

    options = ["--text", text, "--context", "64", "--windows", "1", "--out", str(tmp_path / "report.json")]
    monkeypatch.setattr(sys, "argv", ["switching", str(merged_folder), *options])
    switching.main()
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    mixture = report["development"]["mixture"]
    assert mixture[f"fixed_share {report['chosen_rate']}"] == min(
        mixture[f"fixed_share {rate}"] for rate in switching.RATES
    )


def test_loss_of_chunks_is_the_plain_loss(bench):
    rows = {row["way"]: row for row in bench("loss")["rows"]}
    for value in ("loss", "head_gradient"):
        assert rows["ours"][value] == pytest.approx(rows["plain"][value], rel=1e-4)


def test_cached_and_uncached_training_lose_the_same(bench):
    report = bench("prefix_cache")
    assert max(report["largest_loss_difference_to_uncached"].values()) < 0.01
    assert report["steps"].keys() == {"memory", "disk", "uncached", "depth 1"}


def test_merged_experts_have_the_parameters_of_both(bench):
    report = bench("merge")
    block, head, norm = 12 * 64**2 + 9 * 64, 64 * 512, 2 * 64
    assert report["parameters"] == pytest.approx(2 * (block + head + norm) + 512, rel=0.02)
    assert len(report["seconds"]["merge"]) == len(report["merge_over_copy"]) == 1


@pytest.mark.skipif(not DEBIAN_HEX.is_file(), reason="GNU Unifont is not installed")
def test_substrate_is_built_and_its_size_told():
    built = substrate.build(0x400, 256)
    # In a vocabulary this small there are no free ids that hold the special tokens.
    assert (built["tokens"], built["width"]) == (0x400 + len(SPECIAL_TOKENS), 256)
    assert built["tensor_megabytes"] < 0.5 and built["fingerprint"].startswith("sha256:")


def test_a_gpu_report_goes_on_after_a_part_that_fails(bench, monkeypatch, tmp_path):
    from eval.bench import gpu, gpu_checks

    monkeypatch.setattr(gpu_checks, "quantize_frozen", lambda *_: 1 // 0)
    written = []

    def write(path, report):
        written.append([*report["parts"], report["holds"]])
        write_json(path, report)

    monkeypatch.setattr(gpu, "write_json", write)
    report = bench("gpu")
    assert written == [["frozen", False], ["frozen", "training 2", False]]  # after each part: an early end loses none
    frozen = report["parts"]["frozen"]
    assert frozen["int8 prefix"]["failed"].startswith("ZeroDivisionError") and not report["holds"]
    assert frozen["frozen bits after steps"]["holds"] and frozen["flash attention reached"]["holds"]
    steps = report["parts"]["training 2"]
    assert [name.split(",")[0] for name in steps] == ["grown stage", "monolithic", "llama"]
    assert all(step["tokens_per_second"] > 0 for step in steps.values())
    page = (tmp_path / "report.md").read_text("utf-8")
    assert page.startswith("# cpu") and "ZeroDivisionError" in page


def test_every_part_of_a_gpu_report_holds_on_a_cpu(bench):
    report = bench("gpu", "--parts", "logits", "frozen", "training", "merged", "scoring", "growth")
    assert report["holds"], report["parts"]
    losses = report["parts"]["growth"]["three stages"]["nats_per_character"]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_costs_say_what_is_above_linear(bench):
    report = bench("costs")
    assert {row["by"] for row in report["rows"]} == {"depth", "experts", "ids", "documents", "items"}
    steep = [row["cost"] for row in report["rows"] if row["slope"] > report["allowed"]]
    assert report["above_linear"] == steep

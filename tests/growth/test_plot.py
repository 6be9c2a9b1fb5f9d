"""The picture of a growth shows every phase that has metrics, at the tokens it was trained on."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.growth.history import points, read_phases, read_run
from frozen_glyph.growth.plot import draw, plot_growth, smooth, visible_range

BATCH = 128  # tokens of a step of the tiny recipe


def write_metrics(folder, name: str, losses: dict[int, float], held_out: dict[int, float] | None = None) -> None:
    entries = [{"step": step, "loss": loss} for step, loss in losses.items()]
    entries += [{"step": step, "eval_loss": loss} for step, loss in (held_out or {}).items()]
    (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.fixture
def run_folder(copied):
    """The finished run with known losses, evaluations and a LoRA phase."""
    for path in copied.glob("metrics-*.jsonl"):
        path.unlink()
    write_metrics(copied, "metrics-1.jsonl", {10: 9.0, 20: 5.0, 30: 4.0}, {30: 4.2})
    write_metrics(copied, "metrics-2.jsonl", {10: 4.5, 20: 3.5})
    write_metrics(copied, "metrics-2-lora.jsonl", {10: 3.4})
    return copied


def test_phases_follow_each_other(run_folder):
    one, two, lora = read_phases(run_folder, read_run(run_folder))
    assert [phase["title"] for phase in (one, two, lora)] == ["stage 1\n1 block", "stage 2\n3 blocks", "LoRA"]
    assert [(phase["begin"], phase["end"]) for phase in (one, two, lora)] == [
        (0, 30 * BATCH), (30 * BATCH, 50 * BATCH), (50 * BATCH, 60 * BATCH),
    ]  # fmt: skip
    assert points(one, "loss", BATCH) == [(10 * BATCH, 9), (20 * BATCH, 5), (30 * BATCH, 4)]
    assert points(one, "eval_loss", BATCH) == [(30 * BATCH, 4.2)]
    assert [phase["kind"] for phase in (one, two, lora)] == ["blocks", "blocks", "lora"]


def test_losses_are_drawn_over_tokens_with_the_phases_marked(run_folder):
    (axes,) = draw("tiny", read_phases(run_folder, read_run(run_folder)), BATCH).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training loss", "smoothed", "held-out loss", "LoRA phase",
    ]  # fmt: skip
    assert axes.get_xlim() == (0, 60 * BATCH)
    assert len([line for line in axes.get_lines() if len(set(line.get_xdata())) == 1 and line.get_ls() == "--"]) == 1


def test_a_picture_is_written_and_an_old_one_replaced(run_folder):
    (run_folder / "growth.png").write_bytes(b"old")
    path = plot_growth(run_folder)
    assert path == run_folder / "growth.png"
    assert imread(path).std() > 0.05
    assert not list(run_folder.glob(".growth.png*"))


def test_metrics_of_a_stage_that_is_not_in_the_provenance_yet(run_folder):
    run = read_run(run_folder) | {"stages": []}
    assert [phase["title"] for phase in read_phases(run_folder, run)] == ["stage 1", "stage 2", "LoRA"]


def test_a_folder_without_metrics(run_folder):
    for path in run_folder.glob("metrics-*.jsonl"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"has no metrics-1\.jsonl"):
        plot_growth(run_folder)


def test_smoothing_keeps_ends_and_mean():
    straight = np.linspace(5, 1, 201)
    assert np.allclose(smooth(straight), straight)
    noisy = straight + np.random.default_rng(0).normal(0, 0.1, 201)
    assert smooth(noisy)[0] == pytest.approx(noisy[0])
    assert np.abs(smooth(noisy) - straight)[5:-5].mean() < 0.5 * np.abs(noisy - straight)[5:-5].mean()


def test_the_first_fall_is_left_out_of_the_axis():
    entries = [{"step": step, "loss": 10.0 if step == 0 else 3.0} for step in range(20)]
    low, high = visible_range([{"begin": 0, "entries": entries}], BATCH)
    assert low < 3 < high < 4

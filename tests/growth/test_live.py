"""A run can be watched while it trains: metrics grow, the page says how far it is, and none of it changes the run."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from markupsafe import escape

from frozen_glyph.checkpoint.contract import control_folder
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.growth.control import control_recipe
from frozen_glyph.growth.history import (
    control_points,
    planned_steps,
    progress_of,
    read_metrics,
    read_phases,
    read_run,
)
from frozen_glyph.growth.live import LivePage, Seldom
from frozen_glyph.growth.page import write_page
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.growth.samples import MOST_TOKENS, TRAINED_TOKENS, write_samples
from frozen_glyph.health.measure import METRICS


@pytest.fixture
def training(copied):
    """The folder as it is while stage 2 trains: half of its metrics, the last line not yet whole."""
    provenance = json.loads((copied / "provenance.json").read_text())
    provenance["stages"].pop()
    (copied / "provenance.json").write_text(json.dumps(provenance))
    lines = (copied / "metrics-2.jsonl").read_text().splitlines()
    (copied / "metrics-2.jsonl").write_text(f"{lines[0]}\n{lines[1]}\n{lines[2][:20]}")
    return copied


class TestGrowing:
    def test_metrics_grow_and_the_page_is_there_while_a_stage_trains(self, grow_tiny, tmp_path, monkeypatch):
        """Each entry is in the file when it is logged; nothing vouches for what is renewed, until the stage is over."""
        seen = []

        def look(self, args, state, control, **kwargs):
            folder = tmp_path / "run"
            stage = len(read_provenance(folder)["stages"]) + 1
            entries = read_metrics(folder / f"metrics-{stage}.jsonl")
            write_page(folder, live=True)
            seen.append((stage, [entry["step"] for entry in entries], (folder / "growth.html").read_text("utf-8")))
            recorded = read_provenance(folder)["companions"].keys()
            assert not recorded & {"growth.html", "growth.png", f"metrics-{stage}.jsonl"}

        monkeypatch.setattr(LivePage, "on_log", look)
        grow_tiny(tmp_path / "run")
        expected = [(stage, [4, 8, 10, 12][:count]) for stage in (1, 2) for count in (1, 2, 3, 4, 4)]
        assert [(stage, steps) for stage, steps, _ in seen] == expected
        steps = [int(re.search(r"step (\d+) of 24", page)[1]) for _, _, page in seen]
        assert steps == [4, 8, 10, 12, 12, 16, 20, 22, 24, 24]
        assert all('http-equiv="refresh"' in page for _, _, page in seen)
        over = (tmp_path / "run" / "growth.html").read_text("utf-8")
        assert "refresh" not in over and "<progress" not in over
        assert {"growth.html", "growth.png", "metrics-2.jsonl"} <= read_provenance(tmp_path / "run")[
            "companions"
        ].keys()

    def test_what_cannot_be_drawn_stops_nothing(self, caplog):
        def fails():
            raise OSError("no room")

        seldom = Seldom(fails, 0)
        with caplog.at_level(logging.WARNING, "frozen_glyph"):
            for _ in range(3):
                seldom.call()
        assert [record.getMessage()[:7] for record in caplog.records] == ["no room"]

    def test_it_is_drawn_seldom(self):
        drawn = []
        seldom = Seldom(lambda: drawn.append(1), 1000)
        seldom.call()
        assert drawn == []
        seldom.due = 0
        seldom.call()
        seldom.call()
        assert drawn == [1]


class TestHistory:
    def test_progress_and_time_left(self, training):
        run = read_run(training)
        phases = read_phases(training, run)
        assert planned_steps(run) == {(1, "blocks"): 12, (2, "blocks"): 12}
        progress = progress_of(run, phases)
        assert (progress["steps"], progress["planned"]) == (12 + 8, 24)
        speed = json.loads((training / "metrics-2.jsonl").read_text().splitlines()[1])["tokens_per_second"]
        assert progress["seconds_left"] == pytest.approx(4 * 128 / speed)

    def test_a_lora_phase_counts(self, training):
        run = read_run(training)
        run["recipe"]["lora"] = {"from_stage": 2, "every": 1, "steps": None, "tokens": 500}
        assert planned_steps(run)[2, "lora"] == 4

    def test_flops_are_those_of_the_dry_run(self, finished, make_recipe):
        from frozen_glyph.growth.estimate import estimate

        config = json.loads((finished[0] / "config.json").read_text())
        sizes = {name: config[name] for name in ("hidden_size", "num_attention_heads", "vocab_size", "substrate_bits")}
        foretold = [phase["flops"] for phase in estimate(make_recipe({"model": sizes}))]
        phases = read_phases(finished[0], read_run(finished[0]))
        assert [phase["flops"] for phase in phases] == [foretold[0], sum(foretold)]

    def test_metrics_of_an_earlier_version_have_no_flops(self, training):
        line = json.dumps({"step": 12, "loss": 3.0})
        (training / "metrics-1.jsonl").write_text(f"{line}\n")
        run = read_run(training)
        assert [phase["flops"] for phase in read_phases(training, run)] == [None, None]
        assert "–" in write_page(training).read_text("utf-8")

    def test_the_control_beside_a_run(self, training):
        assert control_points(training) == []
        shutil.copytree(training, training.with_name("run-control"))
        (stage,) = control_points(training)
        assert stage["losses"].keys() == {"valid.txt"}
        page = write_page(training).read_text("utf-8")
        assert "valid.txt, control" in page and "valid.txt minus control" in page and "+0.0000" in page


class TestControl:
    def test_it_spends_the_same_without_new_blocks(self, make_recipe):
        recipe = make_recipe({"model.num_hidden_layers": 3, "stages.1.learning_rate": 1e-3})
        control = control_recipe(recipe)
        assert [stage.layers for stage in control.stages] == [1, 0]
        assert [stage.steps for stage in control.stages] == [stage.steps for stage in recipe.stages]
        assert (control.training, control.seed, control.stages[1].learning_rate) == (recipe.training, recipe.seed, 1e-3)

    def test_it_lies_beside_the_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert control_folder(Path("ru")) == tmp_path / "ru-control"

    @pytest.mark.slow
    def test_it_trains_beside_the_run_and_is_drawn_with_it(self, grow_tiny, make_recipe, texts, tmp_path):
        substrate = tmp_path / "run"
        grow_tiny(tmp_path / "run")
        control = control_recipe(make_recipe())
        grown = grow_from_recipe(control, control_folder(substrate), [texts[0]], [texts[1]], substrate)
        assert [stage["num_hidden_layers"] for stage in grown["stages"]] == [1, 1]
        assert [point["blocks"] for point in control_points(tmp_path / "run")] == [1, 1]


class TestPage:
    def test_texts_of_a_run_are_escaped_and_nothing_is_fetched(self, training):
        provenance = read_provenance(training)
        provenance["recipe"]["name"] = "<script>alert(1)</script>"
        stage = provenance["stages"][0]
        stage["samples"] = [{"prompt": "<b>", "text": "</blockquote><i>"}]
        stage["nats_per_character"] = {"<u>.txt": 1.0}
        stage["health"]["blocks"][0]["flags"] = ["<s>"]
        page = write_page(training, provenance, live=True).read_text("utf-8")
        for tag in ("<script", "<i>", "<u>", "<s>"):
            assert tag not in page
        assert "&lt;script&gt;" in page and "&lt;u&gt;.txt" in page
        assert not re.findall(r"""(?:src|href|url)\\s*[=(]|https?:""", page)

    def test_every_metric_of_health_has_its_thresholds(self, finished):
        page = write_page(finished[0]).read_text("utf-8")
        for metric in METRICS.values():
            assert escape(f"{metric.title}, {metric.unit}") in page
        assert page.count('class="bound"') == sum(
            bound not in (float("-inf"), float("inf"))
            for metric in METRICS.values()
            for bound in (metric.low, metric.high)
        )
        assert page.count("model.layers.2 mlp.fc_in") >= 1

    def test_damage_is_named(self, training):
        (training / "metrics-1.jsonl").write_text('{"step": 1, "loss": "x"}\n')
        with pytest.raises(CheckpointError, match=r"metrics-1\.jsonl' line 1 is damaged: loss is 'x'"):
            write_page(training)


class TestSamples:
    def test_the_same_seed_gives_the_same_text_and_leaves_the_random_state(self, build_model, tokenizer):
        model = build_model()
        state = torch.random.get_rng_state()
        few = 6 * TRAINED_TOKENS
        one, again = (write_samples(model, tokenizer, [["The cat sat."], ["Кот."]], few, 3) for _ in range(2))
        assert one == again and [sample["prompt"] for sample in one] == ["The cat sat.", "Кот."]
        assert one != write_samples(model, tokenizer, [["The cat sat."], ["Кот."]], few, 4)
        assert torch.equal(torch.random.get_rng_state(), state)

    def test_a_short_stage_has_none(self, build_model, tokenizer):
        model = build_model()
        assert write_samples(model, tokenizer, [["The cat."]], TRAINED_TOKENS - 1, 0) == []
        assert MOST_TOKENS * TRAINED_TOKENS > 1e6

"""The command line: help that is fast and shows usage that parses; errors in one line; the exit codes."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import typer
from transformers.utils import logging

import frozen_glyph
from frozen_glyph import cli
from frozen_glyph.checkpoint.files import sha256_file
from frozen_glyph.checkpoint.provenance import versions

RECIPE = {
    "name": "tiny",
    "model": {"hidden_size": 48, "num_attention_heads": 4},
    "stages": [{"steps": 3}, {"steps": 3}],
    "training": {"context_length": 32, "batch_tokens": 128, "warmup_steps": 1, "precision": "fp32", "save_steps": 2},
}
ROOT = typer.main.get_command(cli.app)


def commands(group=ROOT, path=()):
    """(words that call it, command) of every command; groups are gone into."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("grow", ...)``: call the entry point in this process; returns (exit code, stdout, stderr)."""
    verbosity = logging.get_verbosity()

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["frozen-glyph", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    yield run
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture
def refused(run):
    """``refused(words)``: the message of a command that ends with exit code 1 and one line on stderr."""

    def refused(*words) -> str:
        code, out, err = run(*words)
        assert (code, out) == (1, "")
        (line,) = err.splitlines()
        return line.removeprefix("error: ") if line.startswith("error: ") else pytest.fail(line)

    return refused


@pytest.fixture
def files(tmp_path, monkeypatch, substrate):
    """The working folder: recipe.yaml, text.txt and a substrate folder ``glyphs``."""
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "text.txt").write_text("The cat sat on the mat. Кот сидел на окне.\n\n" * 30, encoding="utf-8")
    substrate.save_pretrained(tmp_path / "glyphs")
    return tmp_path


def write_recipe(path, **changes) -> None:
    path.write_text(json.dumps(RECIPE | changes), encoding="utf-8")


GROW = ("grow", "recipe.yaml", "--text", "text.txt", "--out", "run", "--substrate", "glyphs")


class TestHelp:
    def test_it_needs_neither_torch_nor_transformers(self):
        code = (
            "import sys; from frozen_glyph import cli; sys.argv = ['frozen-glyph', '--help']\n"
            "try: cli.main()\n"
            "finally: print('LOADED', sorted({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "LOADED []" in done.stdout
        for name in ROOT.commands:
            assert name in done.stdout

    @pytest.mark.parametrize("module", ["frozen_glyph", "frozen_glyph.cli"])
    def test_module_can_be_run(self, module):
        words = [sys.executable, "-m", module, "grow", "--no-such-option"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr

    def test_the_version_is_said_once(self, run):
        assert run("--version") == (0, f"frozen-glyph {frozen_glyph.__version__}\n", "")
        assert versions()["frozen-glyph"] == frozen_glyph.__version__
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
        assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
        assert project["tool"]["hatch"]["version"] == {"path": "frozen_glyph/__init__.py"}

    def test_a_shell_completes_words_without_torch(self):
        code = (
            "import sys; from frozen_glyph import cli; sys.argv = ['frozen-glyph']\n"
            "try: cli.main()\n"
            "finally: print('LOADED', sorted({'torch', 'transformers', 'numpy', 'rich'} & sys.modules.keys()))"
        )
        asked = {"_FROZEN_GLYPH_COMPLETE": "complete_bash", "COMP_WORDS": "frozen-glyph grow --d", "COMP_CWORD": "2"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=os.environ | asked
        )
        assert (done.stdout.split("\n"), done.returncode) == (["--dry-run", "LOADED []", ""], 0), done.stderr

    @pytest.mark.parametrize(
        ("path", "command"), list(commands()), ids=lambda part: part if isinstance(part, str) else ""
    )
    def test_every_command_shows_an_example_that_parses(self, run, path, command):
        code, out, _ = run(*path, "--help")
        assert code == 0
        assert f"Example: frozen-glyph {' '.join(path)}" in " ".join(out.split())
        example = shlex.split(command.epilog.split("`")[1])
        assert tuple(example[: 1 + len(path)]) == ("frozen-glyph", *path)
        command.make_context("example", example[1 + len(path) :])  # raises on wrong usage

    @pytest.mark.parametrize("words", [("grow",), ("grow", "recipe.yaml"), ("nothing",), ("merge", "--rulle", "mean")])
    def test_wrong_usage_has_exit_code_2(self, run, words):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert "Usage:" in err


class TestInspect:
    def test_table_and_json(self, run, experts):
        code, out, _ = run("inspect", experts[0])
        assert code == 0
        assert "ru: growth" in out
        code, out, _ = run("inspect", experts[0], "--json", "--verify")
        facts = json.loads(out)
        assert (code, facts["name"], facts["verified"]) == (0, "ru", True)
        assert [stage["layers"] for stage in facts["stages"]] == [1, 2]

    def test_a_damaged_folder_has_exit_code_1(self, run, experts, tmp_path):
        folder = shutil.copytree(experts[0], tmp_path / "run")
        (folder / "blocks-2.safetensors").unlink()
        code, out, _ = run("inspect", folder)
        assert code == 1
        assert "blocks-2.safetensors" in out

    def test_what_is_no_checkpoint(self, refused, tmp_path):
        assert "has no config.json" in refused("inspect", tmp_path)


class TestGrow:
    def test_it_reports_every_stage_and_again_does_nothing(self, run, files):
        code, out, err = run(*GROW, "--valid", "text.txt")
        assert code == 0
        assert "tiny stage 2/2" in err  # the progress bar
        stages = json.loads((files / "run" / "provenance.json").read_text())["stages"]
        assert out.splitlines() == [
            f"stage {k}: {k} blocks  nats per character: text.txt {stages[k - 1]['nats_per_character']['text.txt']:.4f}"
            for k in (1, 2)
        ]
        before = {path: (path.stat().st_mtime_ns, sha256_file(path)) for path in files.rglob("*.*") if path.is_file()}
        assert run(*GROW, "--valid", "text.txt") == (0, out, "")
        assert before == {path: (path.stat().st_mtime_ns, sha256_file(path)) for path in before}

    @pytest.mark.parametrize(
        ("recipe", "message"),
        [
            (json.dumps(RECIPE | {"stage": []}), "unknown recipe key 'stage'. Did you mean 'stages'?"),
            (json.dumps(RECIPE | {"model": {"hiden_size": 8}}), "unknown recipe key 'hiden_size' in model. Did you"),
            (json.dumps(RECIPE | {"model": {"hidden_size": 49}}), "recipe field model is not allowed: hidden_size=49"),
            ("a: [\n  b", "recipe 'recipe.yaml' is not YAML: "),
        ],
    )
    def test_bad_recipe(self, refused, files, recipe, message):
        (files / "recipe.yaml").write_text(recipe)
        assert message in refused(*GROW)
        assert not (files / "run").exists()

    def test_missing_recipe(self, refused, files):
        (files / "recipe.yaml").unlink()
        assert refused(*GROW).startswith("recipe 'recipe.yaml' does not exist; give")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "source file 'text.txt' does not exist; give the path of a file with documents"),
            (b"", "source 'text.txt' is empty; it must hold some text"),
            ("The кот".encode("cp1251"), "text file 'text.txt' is not UTF-8: byte 0xea at offset 4; convert it"),
            (b"cat", "fewer than one window of training.context_length=32; give more text"),
        ],
    )
    def test_bad_text(self, refused, files, content, message):
        (files / "text.txt").unlink()
        if content is not None:
            (files / "text.txt").write_bytes(content)
        assert message in refused(*GROW)
        assert not (files / "run" / "provenance.json").exists()

    def test_dry_run_prints_every_stage_and_writes_nothing(self, run, files):
        before = sorted(files.rglob("*"))
        code, out, err = run(
            "grow", "recipe.yaml", "--dry-run", "--set", "stages.1.steps=7", "--flops-per-second", "1e9"
        )
        assert (code, err) == (0, "")
        header = next(line for line in out.splitlines() if "trainable" in line)
        assert header.split()[:4] == ["stage", "blocks", "steps", "tokens"] and "days" in header
        assert [line.split()[:3] for line in out.splitlines() if line.split()[:1] in (["1"], ["2"])] == [
            ["1", "1", "3"],
            ["2", "2", "7"],
        ]
        assert sorted(files.rglob("*")) == before

    def test_dry_run_as_json(self, run, files):
        found = json.loads(run("grow", "recipe.yaml", "--dry-run", "--json", "--out", "run")[1])
        assert [phase["stage"] for phase in found["phases"]] == [1, 2]
        assert found["totals"]["tokens"] == sum(phase["tokens"] for phase in found["phases"]) == 2 * 3 * 128
        assert not (files / "run").exists()

    def test_settings_change_the_recipe(self, run, refused, files):
        assert run(*GROW, "--set", "stages=[{steps: 1}]", "--set", "name=other")[0] == 0
        recipe = json.loads((files / "run" / "provenance.json").read_text())["recipe"]
        assert (recipe["name"], len(recipe["stages"])) == ("other", 1)
        assert "'batch_token' in training. Did you mean 'batch_tokens'?" in refused(
            *GROW, "--set", "training.batch_token=1"
        )
        assert refused(*GROW, "--set", "training").startswith("setting 'training' must look like")

    def test_no_text_anywhere(self, refused, files):
        assert "no training text" in refused("grow", "recipe.yaml", "--out", "run")

    def test_folder_of_another_recipe(self, run, refused, files):
        assert run(*GROW)[0] == 0
        write_recipe(files / "recipe.yaml", seed=1)
        assert refused(*GROW).startswith("folder 'run' holds a run of another recipe (recipe_sha256 '")

    def test_missing_substrate_folder(self, refused, files):
        assert refused(*GROW[:-1], "absent").startswith("'absent/substrate.json' does not exist")

    @pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
    def test_interrupt_says_how_to_go_on(self, files):
        write_recipe(files / "recipe.yaml", stages=[{"steps": 10**6}])
        # Where the tests themselves run in the background, interrupts would be ignored.
        reset = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler)}
        words = [sys.executable, "-m", "frozen_glyph.cli", *GROW]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(words, cwd=files, env=environment, **pipes, **reset)
        try:
            end = time.monotonic() + 600
            while not list(files.glob("run/.work/stage-1/blocks/checkpoint-*/trainer_state.json")):
                assert process.poll() is None and time.monotonic() < end, "the run did not come to its first save"
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == 130
        said = "stopped; `grow`, `tune-head`, `eval` and `demo` go on from the last save when called again"
        assert err.splitlines()[-1] == said
        assert "Traceback" not in err


class TestMerge:
    def test_it_writes_a_folder(self, run, experts, tmp_path):
        code, out, err = run("merge", *experts, "-o", tmp_path / "merged", "--rule", "posterior", "--weights", "3,1")
        assert (code, out.split()[-2:], err) == (0, ["merged:", str(tmp_path / "merged")], "")
        for said in ("rule posterior", "stored once: substrate", "a Bayesian mixture"):
            assert said in out
        config = json.loads((tmp_path / "merged" / "config.json").read_text())
        assert (config["rule"], config["expert_weights"]) == ("posterior", [0.75, 0.25])

    def test_a_recipe_and_what_goes_before_it(self, run, refused, experts, tmp_path):
        recipe = {"experts": [str(experts[0]), {"source": str(experts[1]), "stage": 1}], "rule": "weighted"}
        (tmp_path / "merge.yaml").write_text(json.dumps(recipe | {"weights": [1, 1], "names": ["a", "b"]}))
        words = ("merge", "--config", tmp_path / "merge.yaml", "-o", tmp_path / "merged")
        assert run(*words, "--weights", "3,1", "--set", "names.1=c")[0] == 0
        config = json.loads((tmp_path / "merged" / "config.json").read_text())
        assert (config["expert_names"], config["expert_weights"]) == (["a", "c"], [0.75, 0.25])
        assert [expert["num_hidden_layers"] for expert in config["experts"]] == [2, 1]
        message = refused(*words[:3], "-o", tmp_path / "x", "--set", "wieghts=[1,2]")
        assert message.startswith("unknown recipe key 'wieghts'. Did you mean 'weights'?")
        message = refused(*words[:3], "-o", tmp_path / "x", "--set", "experts.1.stages=1")
        assert "unknown recipe key 'stages' in experts[1]. Did you mean 'stage'?" in message

    def test_a_dry_run_says_what_is_shared_and_writes_nothing(self, run, experts, tmp_path):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = run("merge", f"{experts[0]}@1", experts[1], "--dry-run")
        assert (code, err) == (0, "")
        assert "ru@1" in out and "stored once: substrate" in out and "merged:" not in out
        found = json.loads(run("merge", *experts, "--dry-run", "--json", "-o", tmp_path / "merged")[1])
        assert [expert["name"] for expert in found["experts"]] == ["ru", "zh"]
        assert sorted(tmp_path.rglob("*")) == before

    def test_extract_reweigh_and_inspect(self, run, refused, experts, tmp_path):
        merged = tmp_path / "merged"
        run("merge", *experts, "-o", merged)
        code, out, err = run("extract", merged, "zh", "-o", tmp_path / "zh")
        assert (code, out.split(), err) == (0, ["extracted:", str(tmp_path / "zh")], "")
        assert run("inspect", tmp_path / "zh", "--verify")[0] == 0
        code, out, err = run("reweigh", merged, "--rule", "weighted", "--weights", "0.7,0.3")
        assert (code, out.split(), err) == (0, ["reweighed:", str(merged)], "")
        code, out, _ = run("inspect", merged, "--verify")
        assert code == 0
        for said in ("rule weighted", "0.700", "one weight for all text"):
            assert said in out
        assert "has no expert 'en'" in refused("extract", merged, "en", "-o", tmp_path / "en")
        assert "choose rule='weighted'" in refused("reweigh", merged, "--rule", "mean", "--weights", "1,2")
        assert "nothing to change" in refused("reweigh", merged)

    def test_experts_that_do_not_match(self, refused, experts, tmp_path, substrate):
        config = json.loads((experts[1] / "config.json").read_text())
        shutil.copytree(experts[1], tmp_path / "other")
        (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"substrate_fingerprint": "sha256:other"}))
        message = refused("merge", experts[0], tmp_path / "other", "-o", tmp_path / "merged")
        assert message.startswith("experts differ in substrate_fingerprint: ")
        assert substrate.fingerprint in message
        assert "sha256:other" in message
        assert not (tmp_path / "merged").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--rule", "meen"), "rule='meen' is not known. Did you mean 'mean'?"),
            (("--weights", "a,b"), "--weights 'a,b' must be numbers separated by commas"),
            (("--weights", "1,2"), "weights=[1.0, 2.0] mean nothing to rule='mean', which counts all experts alike"),
            (("--rule", "posterior", "--weights", "1"), "weights=[1.0] must be 2 non-negative numbers"),
            (("--names", "a"), "recipe field names=['a'] is not allowed: it must be 2 different names"),
        ],
    )
    def test_bad_options(self, refused, experts, tmp_path, options, message):
        assert refused("merge", *experts, "-o", tmp_path / "merged", *options).startswith(message)
        assert not (tmp_path / "merged").exists()

    def test_too_few_or_missing_experts(self, refused, experts, tmp_path):
        assert "needs at least two" in refused("merge", experts[0], "-o", tmp_path / "merged")
        message = refused("merge", experts[0], tmp_path / "no", "-o", tmp_path / "merged")
        assert "no' is no folder and cannot be fetched from the Hub" in message


class TestOtherCommands:
    def test_missing_data_folder(self, refused, experts, tmp_path):
        message = refused("eval", experts[0], "--data", tmp_path / "absent", "-o", tmp_path / "report")
        assert message.startswith(f"data folder '{tmp_path / 'absent'}' does not exist")
        assert not (tmp_path / "report").exists()

    def test_substrate_of_missing_text(self, refused, tmp_path):
        message = refused("substrate", "build", "--text", tmp_path / "absent.txt", "-o", tmp_path / "glyphs")
        assert "absent.txt' does not exist" in message
        assert not (tmp_path / "glyphs").exists()

    def test_debugging_shows_where_an_error_came_from(self, monkeypatch, tmp_path):
        monkeypatch.setenv("FROZEN_GLYPH_DEBUG", "1")
        monkeypatch.setattr(sys, "argv", ["frozen-glyph", "merge", str(tmp_path), "-o", str(tmp_path / "merged")])
        with pytest.raises(ValueError, match="needs at least two"):
            cli.main()


class TestSubstrateCommands:
    def test_build_from_text_and_from_tokenizer_give_one_substrate(self, files, run, font_file):
        build = ("substrate", "build", "--font", font_file, "--width", "48")
        code, from_text, _ = run(*build, "--text", "text.txt", "--vocab", "300", "-o", "built")
        again, from_tokenizer, _ = run(*build, "--tokenizer", "built", "-o", "again")
        assert (code, again) == (0, 0)
        assert from_text.split()[-1] == from_tokenizer.split()[-1] != ""

    def test_inspect_show_and_neighbors(self, files, run, font_file):
        build = ("substrate", "build", "--font", font_file, "--width", "48", "--text", "text.txt", "--vocab", "300")
        run(*build, "-o", "built")
        facts = json.loads(run("substrate", "inspect", "built")[1])
        assert facts["collisions"]["remaining"] == 0 and facts["width"] == 48
        listed = run("substrate", "neighbors", "built", "a", "--count", "3")[1].splitlines()
        assert len(listed) == 3

    def test_text_and_tokenizer_exclude_each_other(self, refused, files):
        assert refused("substrate", "build", "-o", "x").startswith("give either --text")
        both = ("substrate", "build", "--text", "text.txt", "--tokenizer", "glyphs", "-o", "x")
        assert refused(*both).startswith("give either --text")

    def test_font_that_is_not_a_font(self, refused, files):
        (files / "bad.hex").write_text("no font", "utf-8")
        assert "bad.hex" in refused("substrate", "build", "--text", "text.txt", "--font", "bad.hex", "-o", "x")
        assert not (files / "x").exists()

    def test_options_go_before_the_config(self, files, run, refused, font_file):
        (files / "small.yaml").write_text(f"vocab: 300\nwidth: 48\nfont: {font_file}\n")
        code, out, _ = run("substrate", "build", "--config", "small.yaml", "--text", "text.txt", "-o", "a")
        assert code == 0 and out.startswith("a: 300 tokens x 48, ")
        code, out, _ = run(
            "substrate", "build", "--config", "small.yaml", "--text", "text.txt", "--width", "1024", "--pca", "-o", "b"
        )
        assert code == 0 and out.startswith("b: 300 tokens x 1024, ")
        (files / "bad.yaml").write_text("widht: 48")
        assert "Did you mean 'width'?" in refused("substrate", "build", "--config", "bad.yaml", "-o", "c")
        assert not (files / "c").exists()

    def test_layout_trainable_is_set_elsewhere(self, files, refused):
        message = refused("substrate", "build", "--tokenizer", "glyphs", "--layout", "trainable", "-o", "x")
        assert "set where a model is made, as substrate.layout in a growth recipe" in message


class TestToDense:
    def test_it_writes_a_checkpoint(self, run, experts, tmp_path):
        code, out, err = run("to-dense", experts[1], "-o", tmp_path / "dense", "--stage", "1")
        assert (code, out.split(), err) == (0, ["dense:", str(tmp_path / "dense")], "")
        config = json.loads((tmp_path / "dense" / "config.json").read_text())
        assert (config["substrate_dense"], config["num_hidden_layers"]) == (True, 1)

    def test_what_cannot_be_exported(self, refused, experts, tmp_path):
        assert "config.json' does not exist" in refused("to-dense", tmp_path / "no", "-o", tmp_path / "dense")
        assert "growth_stage=7 does not exist" in refused(
            "to-dense", experts[0], "-o", tmp_path / "dense", "--stage", "7"
        )
        assert "is not empty; choose a new folder" in refused("to-dense", experts[0], "-o", experts[1])

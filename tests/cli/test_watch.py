"""`frozen-glyph watch` shows a run from its folder alone; log files and quiet commands; warnings are one line."""

import json
import subprocess
import sys

import pytest

from frozen_glyph import cli
from frozen_glyph.cli.terminal import start_log

STAGE = {"stage": 1, "num_hidden_layers": 2, "files": {}, "nats_per_character": {"ru.txt": 2.5}}
RECIPE = {"name": "[/tiny]", "training": {"batch_tokens": 100}, "stages": [{"steps": 10}, {"tokens": 950}]}


@pytest.fixture
def folder(tmp_path):
    """A run whose second stage trains."""
    record = {"format": 1, "kind": "growth", "recipe": RECIPE, "stages": [STAGE]}
    (tmp_path / "provenance.json").write_text(json.dumps(record))
    for stage, step in ((1, 10), (2, 5)):
        entry = {"step": step, "loss": 2.0, "tokens_per_second": 50.0}
        (tmp_path / f"metrics-{stage}.jsonl").write_text(json.dumps(entry) + "\n")
    return tmp_path


def test_it_shows_stages_and_time_left(run, folder):
    code, out, err = run("watch", folder)
    assert (code, err) == (0, "")
    assert "[/tiny]" in out and out.splitlines()[-2].split() == ["1", "2", "1,000", "2.5000"]
    assert out.splitlines()[-1] == "stage 2: step 15 of 20, training loss 2.000, 50 tokens/s, about 10 s left"


def test_what_is_no_run_is_refused(refused, tmp_path):
    assert "provenance.json' does not exist" in refused("watch", tmp_path)


def test_a_checkpoint_that_was_not_grown_is_no_damaged_run(refused, merged_folder):
    assert refused("watch", merged_folder).endswith(
        "holds a merge checkpoint and no growth run; name what `grow` writes"
    )


def test_it_imports_no_torch(folder):
    code = f"import sys; from frozen_glyph.cli.watch import course; course(__import__('pathlib').Path({str(folder)!r}))"
    code += "; print(sorted({'torch', 'transformers', 'matplotlib'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_warnings_are_one_line_on_the_terminal_and_in_the_file(tmp_path, capsys):
    import logging
    import warnings

    log = logging.getLogger("frozen_glyph")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        start_log(log_file=tmp_path / "logs" / "run.log")
        warnings.warn("two\nlines \x1b[31m", UserWarning, stacklevel=1)
        log.info("a step")
        start_log(quiet=True)
        warnings.warn("unheard", UserWarning, stacklevel=1)
        log.error("heard")
    assert capsys.readouterr().err.splitlines() == ["warning: two lines \\x1b[31m", "a step", "error: heard"]
    lines = (tmp_path / "logs" / "run.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["warning two lines \\x1b[31m", "info a step"]
    start_log()


def test_a_log_file_that_cannot_be_written_leaves_the_log_as_it_is(refused, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(cli, "app", lambda **options: start_log(log_file=tmp_path / "file" / "log"))
    assert refused("grow").endswith("file' is there already, as another kind of file; choose another path")

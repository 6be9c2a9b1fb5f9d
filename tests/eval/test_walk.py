"""The README is walked as it stands: its commands are read off it in order, run in a fresh folder, timed."""

import subprocess
import sys
from pathlib import Path

import pytest

from eval.walk.__main__ import table, walk
from eval.walk.steps import Step, missing_texts, read_steps

ROOT = Path(__file__).parents[2]


def test_steps_are_those_of_the_page_in_order():
    page = (
        "```bash\npip install . && frozen-glyph demo --out \\\n  runs/demo  # minutes\nls\n```\ntext `frozen-glyph x`\n"
        "```python\nimport torch\nx = 1\n```\n```\nfrozen-glyph no\n```\n"
    )
    steps, others = read_steps(page, {"runs/demo": "d"})
    assert steps == [Step("bash", "frozen-glyph demo --out    d"), Step("python", "import torch\nx = 1\n")]
    assert [step.title for step in steps] == ["frozen-glyph demo --out    d", "python: x = 1"]
    assert others == ["pip install .", "ls"]


def test_every_command_of_the_readme_is_walked():
    readme = (ROOT / "README.md").read_text("utf-8")
    steps, _ = read_steps(readme)
    walked = {step.words[1] for step in steps if step.kind == "bash"}
    assert walked >= {"demo", "grow", "merge", "eval"} and "python" in {step.kind for step in steps}


def test_texts_that_no_command_makes_are_known(tmp_path):
    grow = Step("bash", "frozen-glyph grow r.yaml --text ru.txt --valid data/zh.valid.txt")
    assert missing_texts([grow], tmp_path) == ["ru.txt", "data/zh.valid.txt"]
    assert missing_texts([Step("bash", "frozen-glyph data sample data"), grow], tmp_path) == []


def test_a_walk_says_what_each_step_took_and_what_failed(tmp_path):
    """A block of Python waits for what later commands make; a failure is told with what was said."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(open('mine/growth-ru.yaml').read()[:1])\n```\n"
        "```bash\nfrozen-glyph recipes copy tiny-trilingual/growth-ru mine\nfrozen-glyph recipes show nothing\n```\n"
    )
    report = walk(page, tmp_path / "fresh", None, {}, out=tmp_path / "told")
    assert [(one["step"].split()[0], one["code"], one.get("after", False)) for one in report["steps"]] == [
        ("frozen-glyph", 0, False), ("frozen-glyph", 1, False), ("python:", 0, True),
    ]  # fmt: skip
    assert not report["passed"] and "no recipe 'nothing' is shipped" in table(report)
    assert all(one["seconds"] > 0 and one["mebibytes"] > 5 for one in report["steps"])
    assert (tmp_path / "told.md").read_text("utf-8") == table(report)
    went_on = walk(page, tmp_path / "fresh", None, {})
    times = {one["step"]: one["seconds"] for one in report["steps"] if not one["code"]}
    assert {one["step"]: one["seconds"] for one in went_on["steps"] if not one["code"]} == times


SHORT = "frozen-glyph grow --set training.context_length=64 --set training.batch_tokens=128 "
SHORT += "".join(f"--set stages.{stage}.steps=60 " for stage in range(3))
TEXTS = "--suite text --text ru.valid.txt"  # in place of benchmarks, which nobody ships


@pytest.mark.slow
def test_the_readme_can_be_walked(tmp_path):
    """Every command and block in order, with short steps and synthetic text; the times at full length are in eval."""
    from frozen_glyph.demo.sample import write_sample

    write_sample(tmp_path / "texts", synthetic=True)
    changes = {"frozen-glyph grow ": SHORT, "data sample ": "data sample --synthetic ", "--data DIR": TEXTS}
    command = [sys.executable, "-m", "eval.walk", "--folder", tmp_path / "fresh", "--texts", tmp_path / "texts"]
    for old, new in changes.items():
        command += ["--replace", f"{old}={new}"]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

"""The notebook runs from top to bottom, and what it shows is small and names no machine."""

import ast
import json
import re
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "eval" / "tour.ipynb"
CELLS = json.loads(TOUR.read_text("utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_small_and_speaks_of_no_machine():
    assert TOUR.stat().st_size < 200_000
    outputs = json.dumps([cell["outputs"] for cell in CELLS if cell["cell_type"] == "code"])
    assert not re.search(r'["\s(](/tmp|/home|/root|/Users|/work|[A-Z]:\\)', outputs)
    assert [cell["execution_count"] for cell in CELLS if cell["cell_type"] == "code"] == list(range(1, len(CODE) + 1))


def test_its_links_lead_somewhere():
    told = "".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", told)
    assert links and all((TOUR.parent / link).exists() for link in links)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """With few steps; the last line of each cell is shown, as a notebook does."""
    monkeypatch.chdir(tmp_path)
    shown: list[object] = []
    names: dict[str, object] = {}
    for source in CODE:
        *body, last = ast.parse(source.replace("STEPS = 150", "STEPS = 10").replace("1_000_000", "100_000")).body
        shows = isinstance(last, ast.Expr)
        exec(compile(ast.Module(body if shows else [*body, last], []), str(TOUR), "exec"), names)
        if shows:
            shown.append(eval(compile(ast.Expression(last.value), str(TOUR), "eval"), names))
    assert names["STEPS"] == 10
    pictures = [one for one in shown if hasattr(one, "size")]
    assert len(pictures) == 3 and "weight of each expert" in str(shown[-1])
    assert "background-color" in shown[-1]._repr_mimebundle_(["text/html"], [])["text/html"]

"""report.json keeps everything, and the same report gives the same bytes."""

import base64
import json
from pathlib import Path

from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.evaluation.report.schema import Report
from frozen_glyph.evaluation.report.verdict import verdict, verdict_in
from frozen_glyph.evaluation.report.write import report_json, write_report

from .conftest import PNG


def test_json_keeps_pictures_as_base64(report: Report) -> None:
    stored = json.loads(report_json(report))
    assert base64.b64decode(stored["pictures"][0]["png"]) == PNG
    assert stored["scores"] == report["scores"]


def test_same_report_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(report, tmp_path / name)
    names = ["report.html", "report.json", "report.md"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_the_answer_of_a_written_report_is_that_of_its_page(report: Report, tmp_path: Path) -> None:
    """Commands end with it; models are called as the page calls them."""
    write_report(report, tmp_path)
    assert verdict_in(tmp_path) == verdict(shown(report))
    assert verdict_in(tmp_path)

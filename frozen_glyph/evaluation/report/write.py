"""Write a report into a folder: ``report.json``, ``report.md`` and ``report.html``, pure functions of a ``Report``."""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.evaluation.report.markdown import report_markdown
from frozen_glyph.evaluation.report.page.render import report_html
from frozen_glyph.evaluation.report.schema import Report


def report_json(report: Report) -> str:
    """Return the report as JSON; picture bytes become base64 text, and what is no number null."""
    return json.dumps(_plain(report), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(entry) for name, entry in value.items()}
        case list() | tuple():
            return [_plain(entry) for entry in value]
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case float() if not math.isfinite(value):
            return None
    return value


def write_report(report: Report, out_dir: Path) -> None:
    """Write report.json, report.md and report.html into ``out_dir``."""
    writers: dict[str, Callable[[Report], str]] = {
        "report.json": report_json,
        "report.md": report_markdown,
        "report.html": report_html,
    }
    for file_name, writer in writers.items():
        write_text(out_dir / file_name, writer(report))

"""Write a report into a folder: ``report.json``, ``report.md`` and ``report.html``, pure functions of a ``Report``."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.evaluation.report.markdown import report_markdown
from frozen_glyph.evaluation.report.page.render import report_html
from frozen_glyph.evaluation.report.schema import Report


def report_json(report: Report) -> str:
    """Return the report as JSON; picture bytes become base64 text."""
    return json.dumps(report, ensure_ascii=False, indent=1, default=_base64) + "\n"


def _base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"a report holds JSON values and PNG bytes, not {type(value).__name__}")


def write_report(report: Report, out_dir: Path) -> None:
    """Write report.json, report.md and report.html into ``out_dir``."""
    writers: dict[str, Callable[[Report], str]] = {
        "report.json": report_json,
        "report.md": report_markdown,
        "report.html": report_html,
    }
    for file_name, writer in writers.items():
        write_text(out_dir / file_name, writer(report))

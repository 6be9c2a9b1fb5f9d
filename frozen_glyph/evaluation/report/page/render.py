"""The report as one self-contained page, from the templates beside this file.

Every text of a report passes through the templates' autoescape or, in a chart, through ``Markup.format``.
"""

import base64

from frozen_glyph.evaluation.report.labels import shown
from frozen_glyph.evaluation.report.page.charts import colour_class, icon
from frozen_glyph.evaluation.report.page.comparisons import comparison_sections
from frozen_glyph.evaluation.report.page.elements import Group, Row, Section, Table, plain_cells
from frozen_glyph.evaluation.report.page.growth import growth_section
from frozen_glyph.evaluation.report.page.losses import losses_section
from frozen_glyph.evaluation.report.page.scores import score_sections
from frozen_glyph.evaluation.report.schema import Report
from frozen_glyph.evaluation.report.verdict import verdict
from frozen_glyph.evaluation.report.words import (
    CONTAMINATION_HEAD,
    HINTS,
    contamination_cells,
    model_colours,
    provenance_rows,
    unique,
)
from frozen_glyph.pages import templates_of


def report_html(report: Report) -> str:
    """Return the report as one page that needs no other file and no script."""
    environment = templates_of("frozen_glyph.evaluation.report.page")
    environment.globals |= {"icon": icon, "colour_class": colour_class}
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode("ascii")
    report = shown(report)
    sections = [
        growth_section(report),
        losses_section(report),
        *score_sections(report),
        *comparison_sections(report),
        _contamination(report),
        _pictures(report),
        _samples(report),
        _provenance(report),
    ]
    lead = [
        report.get("provenance", {}).get("created", ""),
        "95% intervals in brackets",
        "losses in nats per character, lower is better" if report.get("losses") or report.get("growth") else "",
    ]
    return environment.get_template("page.html").render(
        title=report["title"],
        lead=" · ".join(filter(None, lead)),
        note=report.get("note"),
        verdict=verdict(report),
        sections=[section for section in sections if section],
    )


def _contamination(report: Report) -> Section | None:
    found = report.get("contamination", [])
    if not found:
        return None
    rows = [Row(one["task"], plain_cells(contamination_cells(one))) for one in found]
    content = {
        "table": Table(CONTAMINATION_HEAD, [Group(rows)]),
        "examples": [(one["task"], example) for one in found for example in one["examples"]],
    }
    return Section("Contamination", "contamination.html", content, HINTS["contamination"])


def _pictures(report: Report) -> Section | None:
    pictures = report.get("pictures", [])
    return Section("Substrate", "pictures.html", {"pictures": pictures}) if pictures else None


def _samples(report: Report) -> Section | None:
    samples, colours = report.get("samples", []), model_colours(report)
    prompts = {
        prompt: [
            {"model": sample["model"], "colour": colours[sample["model"]], "text": sample["text"]}
            for sample in samples
            if sample["prompt"] == prompt
        ]
        for prompt in unique(sample["prompt"] for sample in samples)
    }
    return Section("Samples", "samples.html", {"prompts": prompts}, HINTS["samples"]) if samples else None


def _provenance(report: Report) -> Section | None:
    facts = provenance_rows(report.get("provenance", {}))
    return Section("Provenance", "provenance.html", {"facts": facts}) if facts else None

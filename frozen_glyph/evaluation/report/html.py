"""The report as one self-contained page."""

import base64
import re
from html import escape
from importlib.resources import files

from frozen_glyph.evaluation.measurements import Contamination
from frozen_glyph.evaluation.report.html_comparisons import comparison_sections
from frozen_glyph.evaluation.report.html_elements import folded, grid, name, section, table, table_row
from frozen_glyph.evaluation.report.html_growth import growth_section
from frozen_glyph.evaluation.report.html_losses import losses_section
from frozen_glyph.evaluation.report.html_scores import published_section, scores_section
from frozen_glyph.evaluation.report.schema import Picture, Provenance, Report
from frozen_glyph.evaluation.report.words import HINTS, contamination_cells, model_order, provenance_rows, unique


def report_html(report: Report) -> str:
    """Return the report as one page that needs no other file and no script."""
    style = files("frozen_glyph.evaluation.report").joinpath("report.css").read_text(encoding="utf-8")
    provenance = report.get("provenance", {})
    losses = report.get("losses") or report.get("growth")
    lead = [
        provenance.get("created", ""),
        "95% intervals in brackets",
        "losses in nats per character, lower is better" if losses else "",
    ]
    sections = "\n".join(
        part
        for part in (
            growth_section(report),
            losses_section(report),
            scores_section(report),
            published_section(report),
            comparison_sections(report),
            _contamination(report.get("contamination", [])),
            _pictures(report.get("pictures", [])),
            _samples(report),
            _provenance(provenance),
        )
        if part
    )
    note = f'<p class="note" role="note">{escape(report["note"])}</p>' if report.get("note") else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report['title'])}</title>\n<style>\n{style}</style></head>\n<body><main>"
        f'<header><h1>{escape(report["title"])}</h1><p class="lead">{escape(" · ".join(filter(None, lead)))}</p>'
        f"{note}{_contents(sections)}</header>\n{sections}\n</main></body></html>\n"
    )


def _contents(sections: str) -> str:
    """Links to the sections that are there."""
    found = re.findall(r'<section id="([^"]*)"><h2>(.*?)</h2>', sections)
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in found)
    return f'<nav aria-label="Sections">{links}</nav>' if len(found) > 1 else ""


def _contamination(found: list[Contamination]) -> str:
    if not found:
        return ""
    head = ["task", "items", "shared", "share", "run length"]
    rows = [table_row(head, escape(one["task"]), [escape(cell) for cell in contamination_cells(one)]) for one in found]
    examples = [
        f"<dt>{escape(one['task'])}</dt><dd>{escape(example)}</dd>" for one in found for example in one["examples"]
    ]
    shown = folded("Examples of shared runs", f'<div class="card wide"><dl>{"".join(examples)}</dl></div>')
    return section("Contamination", table(head, rows), shown if examples else "", hint=HINTS["contamination"])


def _pictures(pictures: list[Picture]) -> str:
    if not pictures:
        return ""
    cards = [
        f'<figure class="card wide"><h3>{escape(picture["title"])}</h3><img alt="{escape(picture["title"])}" '
        f'src="data:image/png;base64,{base64.b64encode(picture["png"]).decode("ascii")}">'
        f"<figcaption>{escape(picture['caption'])}</figcaption></figure>"
        for picture in pictures
    ]
    return section("Substrate", *cards)


def _samples(report: Report) -> str:
    samples = report.get("samples", [])
    if not samples:
        return ""
    order = model_order(report)
    blocks = []
    for prompt in unique(sample["prompt"] for sample in samples):
        own = [
            f'<div class="generated c{order.index(sample["model"]) % 6}">'
            f'<p class="small">{name(sample["model"], order.index(sample["model"]))}</p>'
            f"<blockquote>{escape(sample['text'])}</blockquote></div>"
            for sample in samples
            if sample["prompt"] == prompt
        ]
        blocks.append(f'<article class="card wide"><p class="prompt">{escape(prompt)}</p>{grid(own)}</article>')
    return section("Samples", *blocks, hint=HINTS["samples"])


def _provenance(provenance: Provenance) -> str:
    rows = provenance_rows(provenance)
    if not rows:
        return ""
    entries = "".join(f"<dt>{escape(title)}</dt><dd>{escape(value)}</dd>" for title, value in rows)
    return section("Provenance", f'<div class="card wide"><dl>{entries}</dl></div>')

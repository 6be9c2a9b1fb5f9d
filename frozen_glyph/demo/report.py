"""What the demo adds to the report of its evaluation: where its text comes from, a picture, and what it took."""

import time

from frozen_glyph.demo.corpus import SYNTHETIC_NOTE, Corpus
from frozen_glyph.demo.tasks import task_name
from frozen_glyph.evaluation.report.compare import adjust
from frozen_glyph.evaluation.report.labels import labels_of
from frozen_glyph.evaluation.report.schema import Picture, Report
from frozen_glyph.memory import peak_memory
from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.picture import token_picture_png

PICTURED = 24


def tell_of_demo(report: Report, *, corpus: Corpus, substrate: GlyphSubstrate, steps: int, started: float) -> None:
    """Amend ``report``: ``steps`` trained each stage, the demo ``started`` at this time of the monotonic clock."""
    keep_own_growth(report, corpus)
    report["title"] = "frozen-glyph demo: two experts, grown in stages and merged without training"
    report["note"] = SYNTHETIC_NOTE
    report["pictures"] = [picture_of(substrate)]
    provenance, peak = report["provenance"], peak_memory()
    provenance["settings"] |= {
        "data": "synthetic",
        "substrate": substrate.fingerprint,
        "vocabulary": len(substrate.tokenizer),
        "steps per stage": steps,
        **({} if peak is None else {"peak memory (MiB)": peak // 2**20}),
    }
    provenance["seconds"] = round(time.monotonic() - started, 1)


def keep_own_growth(report: Report, corpus: Corpus) -> None:
    """Of an expert's growth show the texts and tasks that it was trained for: no stage teaches it another language."""
    labels = labels_of(report)
    for model, stages in report["growth"].items():
        expert = labels[model]
        own = {"en", expert, *(task_name(one) for one in corpus.questions if one.expert in ("both", expert))}
        for stage in stages:
            stage["losses"] = {text: loss for text, loss in stage["losses"].items() if text in own}
            stage["scores"] = {task: score for task, score in stage["scores"].items() if task in own}
        report["trends"] = [trend for trend in report["trends"] if trend["model"] != model or trend["name"] in own]
    report["comparisons"], report["trends"] = adjust(report["comparisons"], report["trends"])


def picture_of(substrate: GlyphSubstrate) -> Picture:
    """Some tokens as the model sees them."""
    names = substrate.tokenizer.convert_ids_to_tokens(list(range(len(substrate.tokenizer))))
    shown = [token_id for token_id, name in enumerate(names) if len(name) < 5]
    pictured = [*range(3), 3 + ord("A"), *shown[3 :: max(1, len(shown) // PICTURED)]][:PICTURED]
    return {
        "title": "Some tokens of the substrate",
        "caption": "Each token's frozen bits; its vector is computed from these and never trained.",
        "png": token_picture_png(substrate, pictured),
    }

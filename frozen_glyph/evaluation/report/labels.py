"""Short names for models and texts, no two alike, and where people read them: in place of a report's identities."""

from collections.abc import Sequence
from typing import Any

from frozen_glyph.evaluation.report.schema import Report

FIELDS = ("model", "first", "second")  # of the rows of a report, that hold an identity


def shortest_labels(paths: Sequence[Sequence[str]]) -> list[str]:
    """As few of the last parts of each path as tell it from all others.

    >>> shortest_labels([("h", "1", "x", "ru"), ("h", "2", "x", "ru"), ("h", "zh")])
    ['1/x/ru', '2/x/ru', 'zh']
    """
    counts = [1] * len(paths)
    while True:
        labels = ["/".join(path[-count:]) for path, count in zip(paths, counts, strict=True)]
        longer = [
            count + (labels.count(label) > 1 and count < len(path))
            for path, label, count in zip(paths, labels, counts, strict=True)
        ]
        if longer == counts:
            return numbered(labels)
        counts = longer


def numbered(labels: Sequence[str]) -> list[str]:
    """The labels, with a number behind one that was there before.

    >>> numbered(["ru", "ru", "ru (2)"])
    ['ru', 'ru (3)', 'ru (2)']
    """
    taken: set[str] = set(labels)
    found: list[str] = []
    for label in labels:
        number = 2
        unlike = label
        while unlike in found or (unlike != label and unlike in taken):
            unlike, number = f"{label} ({number})", number + 1
        found.append(unlike)
    return found


def labels_of(report: Report) -> dict[str, str]:
    """The label of each model by its identity, no two alike; none in a report of a version that kept labels only."""
    models = [model for model in report.get("provenance", {}).get("models", []) if "id" in model]
    return dict(zip((model["id"] for model in models), numbered([model["label"] for model in models]), strict=True))


def shown(report: Report) -> Report:
    """The report with labels in place of identities; one that has no identities is as it was."""
    labels = labels_of(report)

    def labelled(row: Any) -> Any:
        return row | {field: labels.get(row[field], row[field]) for field in FIELDS if field in row}

    found: Any = {
        name: [labelled(row) for row in part] if isinstance(part, list) else part for name, part in report.items()
    }
    if "growth" in report:
        found["growth"] = {labels.get(model, model): stages for model, stages in report["growth"].items()}
    if labels:
        models = [model | {"label": labels.get(model["id"], model["label"])} for model in found["provenance"]["models"]]
        found["provenance"] = found["provenance"] | {"models": models}
    return found

"""Short names for models and texts, no two alike: rows of a report are told apart by them."""

from collections.abc import Sequence


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

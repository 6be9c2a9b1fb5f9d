"""What answers score that nobody had to read a question for: the controls of a multiple-choice score.

The constant answer is the key that is right most often among the items asked ("D" is 26.6% of MMLU's key), so it is the
best of its kind; the shortest and the longest answer count as one of those that tie.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

Answers = list[tuple[Sequence[str], int]]  # of every item the texts of its options and the place of the right one


def answers_of(leaf: Any, samples: Sequence[dict[str, Any]]) -> Answers | None:
    """The options of every item as people read them; None where a task does not say which one is right."""
    found: Answers = []
    for sample in samples:
        doc = sample["doc"]
        choices = doc.get("options") or doc.get("choices") or ()
        texts = choices.get("text", ()) if isinstance(choices, dict) else choices
        if leaf.OUTPUT_TYPE == "multiple_choice" and len(texts) != len(sample["arguments"]):
            texts = leaf.doc_to_choice(doc)
        right = _place(sample.get("target"), doc, texts)
        if right is None or not 0 <= right < len(texts):
            return None
        found.append(([str(text) for text in texts], right))
    return found


def _place(target: Any, doc: dict[str, Any], texts: Sequence[str]) -> int | None:
    """The place of the right option: lm-eval's target is its place, its letter or its text."""
    if isinstance(target, int):
        return int(target)
    if isinstance(target, str) and len(target.strip()) == 1 and target.strip().isalpha():
        return ord(target.strip().upper()) - ord("A")
    if isinstance(target, str) and target in texts:
        return list(texts).index(target)
    return None


def baselines(answers: Answers) -> dict[str, float]:
    """Share right of the constant, the shortest and the longest answer, by name."""

    def extreme(choose: Any) -> float:
        total = 0.0
        for texts, right in answers:
            lengths = [len(text) for text in texts]
            ties = [place for place, length in enumerate(lengths) if length == choose(lengths)]
            total += (right in ties) / len(ties)
        return total / len(answers)

    binary = [tuple(texts) for texts, _ in answers]
    place, count = Counter(right for _, right in answers).most_common(1)[0]
    name = binary[0][place] if len(set(binary)) == 1 else chr(ord("A") + place)
    found = {f"always {name!r}": count / len(answers)}
    if len(set(binary)) > 1:  # else the shortest answer is a constant one too
        found |= {"the shortest answer": extreme(min), "the longest answer": extreme(max)}
    return found

"""A few texts in the forms of the data sets that the suites of others use, under the names of those on the Hub."""

import itertools
import json
from pathlib import Path

PAIRS = [
    ("The cat sat on", " the mat."),
    ("Кот сидел на", " окне."),
    ("猫坐在", "垫子上。"),
    ("The hat is on", " the cat."),
    ("Другой кот", " тоже сидел там."),
    ("另一只猫", "也坐在那里。"),
]
SIZES = {"train": 17, "test": 2}  # theirs, which tests of packing count


def message(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


FORMS = {
    "trl-internal-testing/zen": {
        "standard_language_modeling": lambda ask, answer: {"text": ask + answer},
        "standard_prompt_completion": lambda ask, answer: {"prompt": ask, "completion": answer},
        "standard_implicit_prompt_preference": lambda ask, answer: {"chosen": ask + answer, "rejected": ask},
        "conversational_language_modeling": lambda ask, answer: {
            "messages": message("user", ask) + message("assistant", answer)
        },
        "conversational_prompt_completion": lambda ask, answer: {
            "prompt": message("user", ask),
            "completion": message("assistant", answer),
        },
    },
    "ybelkada/english_quotes_copy": {"default": lambda ask, answer: {"quote": ask + answer}},
}


def write_texts(folder: Path) -> None:
    """A folder of each name which ``datasets`` reads as it would read the Hub's: each form, in two parts."""
    for name, forms in FORMS.items():
        target = folder / name
        target.mkdir(parents=True)
        card = ["---", "configs:"]
        for form, shape in forms.items():
            card += [f"- config_name: {form}", "  data_files:"]
            for part, size in SIZES.items():
                pairs = itertools.islice(itertools.cycle(PAIRS), size)
                lines = [json.dumps(shape(*pair), ensure_ascii=False) for pair in pairs]
                (target / f"{form}.{part}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
                card += [f"  - split: {part}", f"    path: {form}.{part}.jsonl"]
        (target / "README.md").write_text("\n".join([*card, "---", ""]), "utf-8")

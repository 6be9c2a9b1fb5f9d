"""Where the task definitions and suites are, and which data a task reads.

A suite is a file of ``eval/suites``, usable as it stands by ``lm_eval run --config``. lm-eval's own thousands of task
files take it seconds to scan; ``stock_folders`` are the few that our suites need.
"""

from pathlib import Path
from typing import Any

import yaml

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.recipes.shipped import shipped_folder

STOCK = ("mmlu/default", "arc", "commonsense_qa", "super_glue/boolq", "squadv2")
# What each task of the suites reads: a dataset of the Hub and its configuration. Tests compare it with the YAMLs.
DATASETS = {
    "mmlu": ("cais/mmlu", "all"),  # and a configuration for each subject
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
    "commonsense_qa": ("tau/commonsense_qa", None),
    "boolq": ("aps/super_glue", "boolq"),
    "squadv2": ("lighteval/squad_v2", None),
    "fg_squad": ("rajpurkar/squad", None),
    "paper_mmlu": ("cais/mmlu", "all"),
    "paper_arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
    "paper_arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
    "paper_commonsense_qa": ("tau/commonsense_qa", None),
    "paper_squad": ("lighteval/squad_v2", None),
    "paper_bleu_en_ru": ("Helsinki-NLP/opus-100", "en-ru"),
    "paper_bleu_ru_en": ("Helsinki-NLP/opus-100", "en-ru"),
    "paper_bleu_en_zh": ("Helsinki-NLP/opus-100", "en-zh"),
    "paper_bleu_zh_en": ("Helsinki-NLP/opus-100", "en-zh"),
    "text_en": ("text", "en"),
    "text_ru": ("text", "ru"),
    "text_zh": ("text", "zh"),
}


def tasks_folder() -> Path:
    """Return the folder of this project's task definitions, for lm-eval's ``include_path``."""
    return shipped_folder("evaluation/definitions/tasks", "eval/tasks")


def definitions_digest(folder: Path) -> str:
    """Return a sha256 over the task definitions: a changed protocol must not reuse old results."""
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(("yaml", ".py")) and path.is_file())
    return sha256_json([(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")) for path in files])


def suites_folder() -> Path:
    """Return the folder of suites."""
    return shipped_folder("evaluation/definitions/suites", "eval/suites")


def suite_names() -> list[str]:
    """Return the names of all suites."""
    return sorted(path.stem for path in suites_folder().glob("*.yaml"))


def read_suite(name: str) -> dict[str, Any]:
    """Return all of a suite's file: arguments of ``lm_eval run`` by name, ``tasks`` among them."""
    if name not in suite_names():
        raise FrozenGlyphError(
            f"suite {name!r} is unknown; suites are {', '.join(suite_names())}.{nearest(name, suite_names())}"
        )
    return yaml.safe_load((suites_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def load_suite(name: str) -> list[str]:
    """Return the names of a suite's tasks."""
    return list(read_suite(name)["tasks"])


def stock_folders() -> list[Path]:
    """Return lm-eval's folders with the stock tasks of our suites, for ``include_path``; without them it scans all."""
    import lm_eval.tasks

    return [Path(lm_eval.tasks.__file__).parent / name for name in STOCK]

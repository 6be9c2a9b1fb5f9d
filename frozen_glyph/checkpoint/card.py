"""The model card (README.md) of a written folder: metadata the Hub reads, usage that runs, provenance, limits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.repocard_data import EvalResult, ModelCardData

from frozen_glyph.checkpoint.contract import CARD_FILE
from frozen_glyph.checkpoint.files import CheckpointError, inside
from frozen_glyph.formats import YAML_BYTES, FormatError, parse_yaml

USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}"{trust}
tokenizer = AutoTokenizer.from_pretrained("{name}")
inputs = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```"""
TRUST = ", trust_remote_code=True)  # or import frozen_glyph, without it"
OPENINGS = {"en": "Once upon a time", "ru": "Однажды", "zh": "从前"}  # what the widget of the Hub begins with
PROTOCOL = "teacher-forced over held-out text in windows that overlap by half; each token is scored once"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
METADATA = re.compile(rb"\s*---(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$)", re.DOTALL)


def model_card(
    name: str,
    summary: str,
    sections: dict[str, str],
    tags: list[str],
    results: Sequence[EvalResult] = (),
    remote_code: bool = True,
    **metadata: Any,
) -> str:
    """Markdown with YAML front matter; ``sections`` maps headings to Markdown text.

    ``remote_code``: the model's class is ours. ``metadata`` are fields of ``ModelCardData``: license, language,
    datasets, base_model, base_model_relation; what is empty is left out. ``base_model`` may name folders too: only ids
    of the Hub, which takes nothing else, are kept.
    """
    languages = metadata.get("language") or []
    metadata["base_model"] = [name for name in dict.fromkeys(metadata.get("base_model", [])) if HUB_ID.fullmatch(name)]
    if not metadata["base_model"]:
        metadata["base_model_relation"] = None
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["frozen-glyph", *tags],
        model_name=name if results else None,
        eval_results=list(results) or None,
        widget=[{"text": OPENINGS[key]} for key in languages if key in OPENINGS] or [{"text": OPENINGS["en"]}],
        **{key: value for key, value in metadata.items() if value},
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {name}\n\n{summary}\n",
        f"## Use\n\n{USAGE.format(name=name, trust=TRUST if remote_code else ')')}\n",
        *(f"## {heading}\n\n{text}\n" for heading, text in sections.items()),
        "## Provenance\n\n`provenance.json` holds recipe, seed, versions, hashes of texts, parents and weights.\n",
    ]
    return "\n".join(parts)


def stage_usage(name: str, stages: Sequence[int]) -> str:
    """A block of Python that loads each growth stage."""
    load = 'AutoModelForCausalLM.from_pretrained("{name}", growth_stage={stage}, trust_remote_code=True)'
    lines = [f"stage_{stage} = {load.format(name=name, stage=stage)}" for stage in stages]
    return "\n".join(["```python", *lines, "```"])


def held_out_results(losses: Mapping[str, float], stage: int | None = None) -> list[EvalResult]:
    """The loss on each held-out text, of a growth stage where there are several, as entries of a model-index."""
    of_stage = {} if stage is None else {"growth_stage": stage}
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=Path(text).stem,
            dataset_name=text,
            metric_type="nats_per_character",
            metric_name="nats per character" + (f", stage {stage}" if of_stage else ""),
            metric_value=round(loss, 6),
            metric_args={**of_stage, "protocol": PROTOCOL},
        )
        for text, loss in losses.items()
    ]


def inherited(folders: Iterable[Path]) -> dict[str, Any]:
    """What a card takes over from those in ``folders``: the license that all of them name, languages, data sets.

    Raises:
        CheckpointError: the metadata of a card is no YAML.
    """
    paths = [path for folder in folders if (path := inside(folder, CARD_FILE)).exists()]
    cards = [read_metadata(path) for path in paths]
    licenses = [texts(card.get("license")) for card in cards]
    alike = licenses and all(license == licenses[0] for license in licenses)
    found: dict[str, Any] = {"license": licenses[0][0] if alike and licenses[0] else None}
    for key in ("language", "datasets"):
        found[key] = list(dict.fromkeys(text for card in cards for text in texts(card.get(key))))
    return found


def texts(value: Any) -> list[str]:
    """The texts in a field of a card, which holds one or a list."""
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]


def read_metadata(path: Path) -> dict[Any, Any]:
    """The YAML between two lines of dashes at the top of a card; nothing where there is none."""
    with path.open("rb") as file:
        block = METADATA.match(file.read(YAML_BYTES))
    try:
        metadata = parse_yaml(block[1]) if block else {}
    except FormatError as error:
        raise CheckpointError(f"the metadata of {str(path)!r} cannot be read: {error}; mend or remove them") from None
    return metadata if isinstance(metadata, dict) else {}


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *([str(row[key]) for key in header] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

"""The model card (README.md) of a written folder: metadata the Hub reads, usage that runs, provenance, limits."""

from typing import Any

import yaml

USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)  # or import frozen_glyph, without it
tokenizer = AutoTokenizer.from_pretrained("{name}")
inputs = tokenizer("Once", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```"""


def model_card(name: str, summary: str, sections: dict[str, str], tags: list[str]) -> str:
    """Markdown with YAML front matter; ``sections`` maps headings to Markdown text."""
    metadata = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["frozen-glyph", *tags]}
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n",
        f"# {name}\n\n{summary}\n",
        f"## Use\n\n{USAGE.format(name=name)}\n",
        *(f"## {heading}\n\n{text}\n" for heading, text in sections.items()),
        "## Provenance\n\n`provenance.json` holds recipe, seed, versions, hashes of texts, parents and weights.\n",
    ]
    return "\n".join(parts)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    header = list(rows[0])
    lines = [header, ["---"] * len(header), *([str(row[key]) for key in header] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

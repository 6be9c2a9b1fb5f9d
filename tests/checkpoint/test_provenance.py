"""Provenance comes back as written, and what is not provenance is refused; the card's metadata is YAML."""

import json
import re

import pytest
import yaml

from frozen_glyph.checkpoint.card import markdown_table, model_card
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.checkpoint.provenance import PROVENANCE_FILE, read_provenance, write_provenance


def test_provenance_round_trip(tmp_path):
    write_provenance(tmp_path, "growth", {"seed": 3, "text": [{"name": "ru.txt"}]})
    found = read_provenance(tmp_path)
    assert (found["format"], found["kind"], found["seed"], found["text"]) == (1, "growth", 3, [{"name": "ru.txt"}])
    assert {"python", "torch", "transformers"} <= found["versions"].keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 2, "kind": "growth"}, "has format 2, this version reads 1"),
        ({"format": 1}, "is no provenance of frozen_glyph"),
        (["format", "kind"], "is no provenance of frozen_glyph"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    (tmp_path / PROVENANCE_FILE).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"provenance.json' {message}"):
        read_provenance(tmp_path)


def test_card_has_metadata_use_and_sections():
    card = model_card("ru: {x}", "A summary.", {"Stages": "one\n\ntwo"}, ["grown"])
    metadata, body = re.fullmatch(r"---\n(.*?)---\n(.*)", card, re.DOTALL).groups()
    assert yaml.safe_load(metadata)["tags"] == ["frozen-glyph", "grown"]
    assert yaml.safe_load(metadata)["library_name"] == "transformers"
    assert re.findall(r"^#+ .*$", body, re.MULTILINE) == ["# ru: {x}", "## Use", "## Stages", "## Provenance"]
    code = re.search(r"```python\n(.*?)```", body, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert 'from_pretrained("ru: {x}"' in code


def test_table_has_a_cell_for_every_key():
    table = markdown_table([{"stage": 1, "loss": "2.5"}, {"loss": "2.25", "stage": 2}])
    assert table.splitlines() == ["| stage | loss |", "| --- | --- |", "| 1 | 2.5 |", "| 2 | 2.25 |"]

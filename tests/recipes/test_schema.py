"""Schemas and reference of recipes are what the code says, and shipped recipes are valid for an editor."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from frozen_glyph.cli import app

HUB_CONFIGS = Path(__file__).parents[2] / "hub_configs"
KINDS = ["growth", "merge", "tune", "substrate"]
SHIPPED = [path for name in ("growth*", "merge", "bvv241*") for path in sorted(HUB_CONFIGS.glob(f"*/{name}.yaml"))]
TYPES = {"string": str, "integer": int, "number": int | float, "boolean": bool, "null": type(None)}
TYPES |= {"array": list, "object": dict}
AGAIN = "write it again with `frozen-glyph schema"


class Yaml12(yaml.SafeLoader):
    """Plain values as YAML 1.2, which editors read, has them: no grouped digits, off is text, 2e-3 a number."""

    yaml_implicit_resolvers = {}


for tag, pattern in [("null", "null|~|"), ("bool", "true|false"), ("int", "[-+]?[0-9]+")]:
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), None)
Yaml12.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?$"), None
)


def command(*words):
    found = CliRunner().invoke(app, ["schema", *words])
    assert found.exit_code == 0, found.output
    return found.output


def complaints(value, schema, whole, name=""):
    """What of ``value`` the schema does not allow; only the keywords that our schemas use."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        found = [complaints(value, member, whole, name) for member in schema["anyOf"]]
        return [] if [] in found else [f"{name}={value!r}"]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{name}={value!r}"]
    if "type" in schema and (
        not isinstance(value, TYPES[schema["type"]]) or (value is True and schema["type"] != "boolean")
    ):
        return [f"{name}={value!r}"]
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return [f"{name}={value!r}"]
    if isinstance(value, list):
        return [found for entry in value for found in complaints(entry, schema["items"], whole, f"{name}[]")]
    if isinstance(value, dict):
        allowed = schema["properties"]
        wrong = [key for key in value if key not in allowed and schema.get("additionalProperties") is False]
        wrong += [key for key in schema.get("required", []) if key not in value]
        return wrong + [
            found
            for key, entry in value.items()
            for found in complaints(entry, allowed.get(key, {}), whole, f"{name}.{key}")
        ]
    low, above = schema.get("minimum", value), schema.get("exclusiveMinimum")
    return [f"{name}={value!r}"] if isinstance(value, int | float) and (value < low or above == value) else []


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_schema_is_what_the_code_says(kind):
    written = (HUB_CONFIGS / "schema" / f"{kind}.json").read_text("utf-8")
    assert command(kind) == written, f"{AGAIN} {kind} > hub_configs/schema/{kind}.json`"


def test_the_shipped_reference_is_what_the_code_says():
    written = (HUB_CONFIGS / "RECIPES.md").read_text("utf-8")
    assert written.endswith(command("--markdown")), f"{AGAIN} --markdown`, below the title of hub_configs/RECIPES.md"


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind):
    schema = json.loads(command(kind))
    parts = {schema["title"]: schema} | schema.get("$defs", {})
    fields = {f"{part}.{name}": field for part, entry in parts.items() for name, field in entry["properties"].items()}
    assert [name for name, field in fields.items() if not field.get("description")] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_shipped_recipe_names_its_schema_and_is_valid_by_it(path):
    text = path.read_text("utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    schema = json.loads((path.parent / named[1]).read_text("utf-8"))
    assert complaints(yaml.load(text, Yaml12), schema, schema) == []


@pytest.mark.parametrize(
    ("recipe", "complaint"),
    [
        ("name: x\nmodel: config.json\nstages: [{layer: 1}]", "layer"),
        ("name: x\nmodel: config.json\nstages: [{steps: 0}]", ".stages[].steps=0"),
        ("name: x\nmodel: config.json\nstages: [{init: zero}]", ".stages[].init='zero'"),
        ("name: x\nstages: []", "model"),
    ],
)
def test_an_editor_sees_what_is_wrong(recipe, complaint):
    schema = json.loads(command("growth"))
    assert complaints(yaml.load(recipe, Yaml12), schema, schema) == [complaint]


def test_what_yaml_versions_read_differently_is_valid_in_an_editor_too():
    schema = json.loads(command("growth"))
    recipe = "name: x\nmodel: {}\nstages: [{tokens: 3_000}]\nhealth: off\ntraining: {learning_rate: 2e-3}"
    assert complaints(yaml.load(recipe, Yaml12), schema, schema) == []


def test_a_kind_or_the_reference_is_asked_for():
    found = CliRunner().invoke(app, ["schema"])
    assert found.exit_code == 2

"""JSON schemas of recipes, which editors complete and check by, and their reference in Markdown.

An editor reads YAML 1.2, to which ``3_000_000`` is text: so the schema allows it.
"""

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, NoDefault

GROUPED_DIGITS = {"type": "string", "pattern": "^[0-9]+(_[0-9]+)+$"}
NULL = {"type": "null"}


class RecipeSchema(GenerateJsonSchema):
    """Pydantic's schema with every spelling of a field, lists as defaults, grouped digits, and no titles of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def int_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().int_schema(schema), GROUPED_DIGITS]}

    def get_default_value(self, schema: Any) -> Any:
        made = schema["default_factory"]() if "default_factory" in schema else None
        return made if isinstance(made, list) else schema.get("default", NoDefault)

    def dataclass_args_schema(self, schema: Any) -> dict[str, Any]:
        found = super().dataclass_args_schema(schema)
        for field in schema["fields"]:
            first, *others = (name for (name,) in field.get("validation_alias") or [[field["name"]]])
            for name in others:
                described = {"description": f"Another name of {first}."}
                found["properties"][name] = found["properties"][first] | described
        return found


def or_path(schema: dict[str, Any]) -> None:
    """Let a field be a path instead, in place."""
    mapping = {key: schema.pop(key) for key in list(schema) if key not in ("description", "default")}
    schema["anyOf"] = [{"type": "string"}, mapping]


def json_schema(kind: type) -> dict[str, Any]:
    """The JSON schema of the recipe class ``kind``."""
    schema = TypeAdapter(kind).json_schema(schema_generator=RecipeSchema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | plain_text(schema)


def plain_text(schema: Any) -> Any:
    """The schema with descriptions on one line and code in single backticks."""
    if isinstance(schema, dict):
        return {key: plain_text(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [plain_text(value) for value in schema]
    return " ".join(schema.replace("``", "`").split()) if isinstance(schema, str) else schema


def reference(schemas: dict[str, dict[str, Any]]) -> str:
    """Markdown that describes every field of recipes, given as title -> JSON schema; a part of several stands once."""
    parts: dict[str, dict[str, Any]] = {}
    sections = []
    for title, schema in schemas.items():
        if schema["title"] in parts:
            sections.append(f"## {title}\n\nThe fields of {link(schema['title'])}.\n")
            continue
        new = {name: part for name, part in schema.get("$defs", {}).items() if name not in parts}
        sections += [f"## {title}\n\n{table(schema)}", *(f"### {name}\n\n{table(part)}" for name, part in new.items())]
        parts |= new
    return "\n".join(sections)


def link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def table(schema: dict[str, Any]) -> str:
    """What a mapping is for, and its fields in rows."""
    rows = [
        [f"`{name}`", words(field), default(name, field, schema), field.get("description", "")]
        for name, field in schema["properties"].items()
    ]
    lines = [["field", "value", "default", "what it is"], ["---"] * 4, *rows]
    return f"{schema['description']}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in lines)


def default(name: str, field: dict[str, Any], schema: dict[str, Any]) -> str:
    if name in schema.get("required", []):
        return "required"
    value = field.get("default")
    shown = ", ".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else value
    return "" if shown in (None, "") else f"`{shown}`"


def words(field: dict[str, Any]) -> str:
    """The values that a schema allows."""
    if "$ref" in field:
        return link(field["$ref"].rpartition("/")[2])
    if "anyOf" in field:
        return " or ".join(words(member) for member in field["anyOf"] if member not in (NULL, GROUPED_DIGITS))
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"list of {words(field['items'])}"
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{limit} {field[key]}" for key, limit in limits.items() if key in field]
    kind = {"string": "text", "object": "mapping", "boolean": "true or false"}.get(field["type"], field["type"])
    return ", ".join([kind, *said])

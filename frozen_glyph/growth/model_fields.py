"""The field ``model`` of a growth recipe: what it may hold, and what an editor is told of it."""

import dataclasses
from typing import Any

from frozen_glyph.errors import nearest
from frozen_glyph.growth.shape import plain_fields
from frozen_glyph.recipes.errors import RecipeError, require
from frozen_glyph.recipes.schema import or_path

FILE_FIELDS = ("model_type", "auto_map", "transformers_weights")  # say of a config.json what it is, not of the model


def model_schema(schema: dict[str, Any]) -> None:
    """Name the fields of ``model``, in place; not those of transformers, which differ by its version."""
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig

    own = FrozenGlyphConfig.__annotations__
    fields = [entry for entry in dataclasses.fields(FrozenGlyphConfig) if entry.name in own]
    schema["properties"] = {entry.name: {"default": entry.default} for entry in fields}
    or_path(schema)


def check_model(model: dict[str, Any], trainable: bool) -> None:
    """Raise ``RecipeError`` unless ``model`` holds ``FrozenGlyphConfig`` fields with values that fit together.

    ``trainable``: whether ``substrate.layout`` says that the token vectors train.
    """
    plain = plain_fields(model) is not None
    if not plain:
        check_names(model)
    given = model.get("substrate_trainable", trainable)
    require(given == trainable, "model.substrate_trainable", given, "left out: say substrate.layout: trainable")
    if not plain:
        check_values(model)


def check_names(model: dict[str, Any]) -> None:
    """Raise ``RecipeError`` for a key that is no field of the configuration."""
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig

    names = {entry.name for entry in dataclasses.fields(FrozenGlyphConfig)}
    for key in model:
        if key not in names and key not in FILE_FIELDS:
            raise RecipeError(f"unknown recipe key {key!r} in model.{nearest(str(key), names)}")


def check_values(model: dict[str, Any]) -> None:
    """Raise ``RecipeError`` where the configuration refuses a value."""
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig

    try:
        FrozenGlyphConfig(**model)
    except ValueError as error:
        raise RecipeError(f"recipe field model.{error}") from None


def config_fields(model: dict[str, Any]) -> dict[str, Any]:
    """The fields of the configuration in ``model``, which a config.json may have been."""
    return {key: value for key, value in model.items() if key not in FILE_FIELDS}

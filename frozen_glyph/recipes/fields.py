"""What recipes are made of: frozen pydantic dataclasses and the types of their fields.

Fields have strict types, because a recipe is read as it is written; only what YAML 1.1 misreads is mended: ``2e-3`` is
text to it, and ``off`` is false. A text in the metadata of an annotation says what is allowed where bounds do not.
"""

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar, dataclass_transform

from annotated_types import Ge, Gt, Le
from pydantic import AllowInfNan, BeforeValidator, ConfigDict, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from frozen_glyph.recipes.errors import recipe_error

Class = TypeVar("Class")


def as_number(value: Any) -> Any:
    """YAML 1.1 reads ``2e-3`` as text."""
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise PydanticKnownError("float_type")


def as_off(value: Any) -> Any:
    """YAML 1.1 reads ``off`` as false."""
    return "off" if value is False else value


@dataclasses.dataclass(frozen=True)
class OneOf:
    """A text of a table that stands elsewhere; where the recipe itself lists what is allowed, ``Literal`` does."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.literal_schema(list(self.names))


Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict()]
Count = Annotated[Integer, Ge(1), Le(2**31 - 1)]
Tokens = Annotated[Integer, Ge(1), Le(10**15)]
Seed = Annotated[Integer, Ge(0), Le(2**31 - 1)]
AsNumber = BeforeValidator(as_number)
Finite = AllowInfNan(False)
PositiveNumber = Annotated[float, Gt(0), Finite, AsNumber]


@dataclass_transform(frozen_default=True)
def recipe(section: str = "") -> Callable[[type[Class]], type[Class]]:
    """Make a class with annotations a part of a recipe: a frozen dataclass that is validated whenever one is made.

    ``section`` is where it stands in a whole recipe, for the errors of one that is made alone in Python. A docstring
    below a field describes it in schema and reference.
    """

    def make(plain: type[Class]) -> type[Class]:
        made: Any = dataclass(frozen=True, config=ConfigDict(extra="forbid", use_attribute_docstrings=True))(plain)
        validate = made.__init__

        @wraps(validate)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                validate(self, *args, **kwargs)
            except ValidationError as error:
                raise recipe_error(made, error, section) from None

        made.__init__ = __init__
        return made

    return make


def parse(kind: type[Class], content: Any) -> Class:
    """Plain YAML data as the recipe ``kind``.

    Raises:
        RecipeError: a key is unknown or missing, or a value is not allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise recipe_error(kind, error) from None

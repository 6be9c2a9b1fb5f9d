"""What travels with the package beside its code, and the recipes among it: found by name, shown, copied.

A checkout has it at its top level, a wheel inside the package (``force-include`` of pyproject.toml). The name of a
recipe is FOLDER/FILE without the ending, such as ``tiny-trilingual/growth-ru``.
"""

from collections.abc import Mapping
from pathlib import Path

from frozen_glyph.errors import FrozenGlyphError, did_you_mean, nearest
from frozen_glyph.recipes.errors import RecipeError

PACKAGE = Path(__file__).parents[1]
KINDS = {"growth": "*/growth*.yaml", "merge": "*/merge.yaml", "substrate": "substrates/*.yaml"}
SCHEMAS = "schema"  # the folder beside those of recipes; every recipe names its own as ../schema/KIND.json


def shipped_folder(installed: str, checkout: str) -> Path:
    """The wheel's copy of a folder, else that of the source checkout.

    Raises:
        FrozenGlyphError: there is neither.
    """
    folders = PACKAGE / installed, PACKAGE.parent / checkout
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FrozenGlyphError(f"neither {str(folders[0])!r} nor {str(folders[1])!r} exists; install frozen-glyph again")


def shipped_recipes(*kinds: str) -> dict[str, Path]:
    """The file of each shipped recipe by its name, of ``kinds`` (growth, merge, substrate) or of all."""
    root = shipped_folder("hub_configs", "hub_configs")
    files = sorted(path for kind in kinds or KINDS for path in root.glob(KINDS[kind]))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in files}


def find_recipe(name: str | Path, kind: str, folder: Path = Path()) -> Path:
    """The file that ``name`` means: one in ``folder``, else a shipped recipe of ``kind``.

    >>> find_recipe("growing-unicode/growth", "growth").name
    'growth.yaml'

    Raises:
        RecipeError: there is neither; names that come near are told, and the kind of a shipped one of that name.
    """
    if is_file(folder / name):
        return folder / name
    shipped = shipped_recipes(kind) if kind in KINDS else {}
    if (found := shipped.get(without_suffix(name))) is not None:
        return found
    where = f"recipe {str(folder / name)!r}"
    if is_folder(folder / name):
        raise RecipeError(f"{where} is a folder; give the path of a file in it, such as {kind}.yaml")
    other = kind_of(name)
    said = near(name, shipped) if other is None else f" The shipped one of that name is of kind {other}, not {kind}"
    offered = f", or a name that `frozen-glyph recipes` lists.{said}" if shipped else ""
    raise RecipeError(f"{where} does not exist; give the path of a {kind}.yaml{offered}")


def kind_of(name: str | Path) -> str | None:
    """The kind of the shipped recipe ``name``; None: there is none."""
    return next((kind for kind in KINDS if without_suffix(name) in shipped_recipes(kind)), None)


def shipped_recipe(name: str) -> Path:
    """The file of the shipped recipe ``name``, of any kind.

    Raises:
        RecipeError: there is none; names that come near are told.
    """
    shipped = shipped_recipes()
    if (found := shipped.get(without_suffix(name))) is None:
        raise RecipeError(f"no recipe {name!r} is shipped; `frozen-glyph recipes` lists them.{near(name, shipped)}")
    return found


def copy_recipe(name: str, folder: str | Path) -> list[Path]:
    """Copy a shipped recipe with all that it stands on (configuration, tokenizer, JSON schema) into ``folder``.

    Returns:
        What was written, the recipe first.

    Raises:
        RecipeError: there is no such recipe, or ``folder`` holds another file of such a name.
    """
    recipe, folder = shipped_recipe(name), Path(folder)
    kind = kind_of(name)
    schema = recipe.parents[1] / SCHEMAS / f"{kind}.json"
    beside = [] if kind == "substrate" else sorted(recipe.parent.glob("*.json"))
    contents = {folder / path.name: path.read_bytes() for path in (recipe, *beside)}
    contents[folder / recipe.name] = contents[folder / recipe.name].replace(b"$schema=../schema/", b"$schema=schema/")
    contents[folder / SCHEMAS / schema.name] = schema.read_bytes()
    for path, content in contents.items():
        if path.exists() and (not path.is_file() or path.read_bytes() != content):
            raise RecipeError(f"{str(path)!r} exists and is not written over; choose a new folder")
    (folder / SCHEMAS).mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        path.write_bytes(content)
    return list(contents)


def without_suffix(name: str | Path) -> str:
    """A recipe's name as ``shipped_recipes`` writes it."""
    return Path(name).as_posix().removesuffix(".yaml")


def near(name: str | Path, shipped: Mapping[str, Path]) -> str:
    """Which shipped names may have been meant: those that hold the words of ``name``, else the nearest."""
    asked = without_suffix(name).removeprefix("hub_configs/")
    holding = [known for known in shipped if len(asked) > 2 and (asked in known or known in asked)]
    return did_you_mean(holding[:3]) if holding else nearest(asked, shipped)


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file; of a name that no file can have it is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or a zero byte
        return False


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder; of a name that no file can have it is not."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False

"""The page as a Hugging Face Space: three small files, and this package's own code: what runs is what was tried.

Command: ``frozen-glyph push runs/merged USER/merged --space USER/look``
"""

import re
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path

import frozen_glyph
from frozen_glyph.checkpoint.source import HUB_ID
from frozen_glyph.errors import FrozenGlyphError

GRADIO = "6.31.0"  # the version that the page was tried with
PACKAGE = Path(frozen_glyph.__file__).parent
CODE = (".py", ".css", ".html", ".jinja", ".typed")
APP_FILE = '''"""A page to look at {models}, made by `frozen-glyph push --space`."""

from frozen_glyph.app.page import build_page, serve_page
from frozen_glyph.talk.speakers import Speaker

serve_page(build_page([Speaker(word) for word in {models!r}]), host=None)
'''
CARD = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
app_file: app.py
models:
{models}
tags:
- frozen-glyph
---

Glyphs, voices, growth and samples of {names}.
"""


def space_files(models: Sequence[str], title: str) -> dict[str, bytes]:
    """Name and content of every file of a Space that shows ``models``, ids of the Hub, maybe with ``@STAGE``.

    Raises:
        FrozenGlyphError: a model is no id of the Hub; a Space has no other files.
    """
    for word in models:
        if not HUB_ID.fullmatch(word.partition("@")[0]) or "/" not in word:
            raise FrozenGlyphError(
                f"{word!r} is no repository of the Hub, from which alone a Space loads; push it first"
            )
    names = [word.partition("@")[0] for word in models]
    card = CARD.format(
        title=title, gradio=GRADIO, models="\n".join(f"- {name}" for name in names), names=", ".join(names)
    )
    files = {"app.py": APP_FILE.format(models=list(models)), "README.md": card, "requirements.txt": requirements()}
    code = {f"frozen_glyph/{path.relative_to(PACKAGE).as_posix()}": path.read_bytes() for path in code_files()}
    return {name: content.encode() for name, content in files.items()} | code


def code_files() -> list[Path]:
    """The files of this package that run."""
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in CODE and "__pycache__" not in path.parts)


def requirements() -> str:
    """What a Space installs: what this package needs for the page, as it says itself; Gradio comes with the Space."""
    wanted = []
    for line in requires("frozen-glyph") or []:
        word, _, marker = line.partition(";")
        if not marker or re.search(r"extra == ['\"]app['\"]", marker):
            wanted.append(word.strip())
    return "\n".join(word for word in wanted if not word.startswith("gradio")) + "\n"

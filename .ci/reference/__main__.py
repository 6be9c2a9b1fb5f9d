"""Build the API reference from the docstrings, with pdoc.

Command: ``python .ci/reference FOLDER`` (default: runs/reference), and open its ``index.html``. pdoc's own command
leaves out most of it: the names of the package load on first use, which pdoc does not ask for.
"""

import importlib
import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import frozen_glyph

HERE = Path(__file__).parent


def main(folder: str) -> None:
    inside = [module.name for module in pkgutil.walk_packages(frozen_glyph.__path__, "frozen_glyph.")]
    names = ["frozen_glyph", *(name for name in inside if not name.endswith("__main__"))]
    for name in names:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            setattr(module, public, getattr(module, public))
    warnings.simplefilter(
        "ignore"
    )  # pdoc's: of annotations that classes inherit from libraries, and of names given twice
    pdoc.render.configure(docformat="google", template_directory=HERE)
    pdoc.pdoc(*names, output_directory=Path(folder))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/reference")

"""``python -m frozen_glyph``: the command line without its script."""

from frozen_glyph.cli import main

main()

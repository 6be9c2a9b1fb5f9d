"""``python -m frozen_glyph.cli``: the same, as launchers of several processes name it."""

from frozen_glyph.cli import main

main()

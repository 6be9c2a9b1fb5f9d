"""Options that several commands have, each said once."""

from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.model.rules_frozen_glyph import RULES, rules_with

ONE_HEAD_RULES = rules_with(one_head=True)

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
OutUnlessDry = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")]
TrainingText = Annotated[
    list[Path] | None,
    typer.Option("--text", help="UTF-8 training text; repeat for several files. Not needed where the recipe names it."),
]
HeldOutText = Annotated[
    list[Path] | None, typer.Option("--valid", help="Held-out text to score on; repeat for several files.")
]
ActiveExperts = Annotated[
    int | None, typer.Option(help="Run at most so many experts while text is written; of the rule fixed_share.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; repeat for several."),
]
PushTo = Annotated[
    str | None, typer.Option("--push-to-hub", metavar="USER/NAME", help="Push it to the Hub afterwards.")
]
Private = Annotated[bool, typer.Option("--private", help="Push to a repository that others cannot see.")]
LogFile = Annotated[
    Path | None, typer.Option("--log-file", help="Append progress and warnings to this file too.", dir_okay=False)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Lines of progress on a terminal too.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Neither progress nor warnings, only errors.")]


def only_with(other: str, there: bool, **options: object) -> None:
    """Refuse ``options`` that would be passed over without ``other``."""
    for name, value in options.items():
        if value and not there:
            hint = "--" + name.replace("_", "-")
            raise typer.BadParameter(f"it is only used with {other}; give {other} too", param_hint=hint)


def rule_names() -> list[str]:
    """What a shell completes the name of a merge rule from."""
    return list(RULES)

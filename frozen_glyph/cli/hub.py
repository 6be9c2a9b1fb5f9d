"""`frozen-glyph push`, and the same after a command that wrote a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from frozen_glyph.cli.options import Private
from frozen_glyph.cli.terminal import say

app = typer.Typer()


@app.command(epilog="Example: `frozen-glyph push runs/ru USER/ru --private`. Again sends only what changed.")
def push(
    folder: Annotated[Path, typer.Argument(help="A checkpoint folder: grown, merged or dense.")],
    repo: Annotated[str, typer.Argument(help="Repository of the Hub, user/name; made if needed.")],
    private: Private = False,
    revision: Annotated[str | None, typer.Option(help="A branch of the repository; default: main.")] = None,
    space: Annotated[
        str | None, typer.Option(metavar="USER/NAME", help="Publish the page of `app` that shows it, as a Space, too.")
    ] = None,
) -> None:
    """Push a checkpoint to the Hub in one commit; nothing is seen of one that was interrupted."""
    from frozen_glyph.hub import push, push_space

    check_target(space)
    say(f"pushed: {push(folder, repo, private, revision)}")
    if space is not None:
        from frozen_glyph.app.space import space_files

        say(f"space: {push_space(space_files([repo], folder.resolve().name), space, private)}")


def check_target(repo: str | None) -> None:
    """Refuse what cannot be pushed to before the work is done."""
    if repo is not None:
        from frozen_glyph.hub import check_target

        check_target(repo)


def push_afterwards(folder: Path, repo: str | None, private: bool) -> None:
    """Push what a command wrote; when that fails the folder stays, and the error says how to go on."""
    from frozen_glyph.errors import FrozenGlyphError

    if repo is not None:
        from frozen_glyph.hub import push

        try:
            say(f"pushed: {push(folder, repo, private)}")
        except FrozenGlyphError as error:
            again = f"frozen-glyph push {folder} {repo}{' --private' if private else ''}"
            raise FrozenGlyphError(f"{error}. {str(folder)!r} is complete; push it with `{again}`") from error

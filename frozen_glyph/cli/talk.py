"""`frozen-glyph generate`, `chat` and `app`: let a model go on with a text, talk to it, look at it."""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from frozen_glyph.cli.answers import Columns, Stream, write
from frozen_glyph.cli.options import ActiveExperts, rule_names
from frozen_glyph.cli.terminal import print_json, quiet_transformers, say

if TYPE_CHECKING:
    from frozen_glyph.talk.session import Session
    from frozen_glyph.talk.speakers import Speaker
    from frozen_glyph.talk.speaking import Sampling

app = typer.Typer()

WORDS = "A folder or Hub id; NAME@STAGE, NAME+ADAPTER, or an adapter's folder."
STOPPED = 130  # what a shell says of a program that Ctrl-C ended

Rule = Annotated[str | None, typer.Option(help="Merge rule; default: the model's own.", autocompletion=rule_names)]
Weights = Annotated[str | None, typer.Option(help="With --rule: comma-separated weight of each expert.")]
Tokens = Annotated[int, typer.Option(help="The most tokens to write.")]
Temperature = Annotated[float, typer.Option(help="How freely tokens are drawn; 0: always the likeliest.")]
TopK = Annotated[int, typer.Option(help="Draw among so many of the likeliest tokens; 0: all.")]
TopP = Annotated[float, typer.Option(help="Draw among the likeliest that have this probability together.")]
Penalty = Annotated[float, typer.Option(help="Above 1: what was written already becomes less likely.")]
Seed = Annotated[int | None, typer.Option(help="Seed of what is drawn; default: another one every time.")]
Device = Annotated[str | None, typer.Option(help="Such as cuda:1; default: cuda where there is one.")]


@app.command(
    epilog='Example: `frozen-glyph generate runs/ru "Once upon" --tokens 60 --seed 0`\n\n'
    "From a pipe, as JSON: `echo Москва | frozen-glyph generate runs/merged - --rule posterior --samples 3 --json`"
)
def generate(
    model: Annotated[str, typer.Argument(help=WORDS)],
    prompt: Annotated[str, typer.Argument(help="The text to go on with; - reads standard input.")] = "",
    rule: Rule = None,
    weights: Weights = None,
    active_experts: ActiveExperts = None,
    tokens: Tokens = 100,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
    samples: Annotated[int, typer.Option(min=1, help="How many texts; each has the next seed.")] = 1,
    echo: Annotated[bool, typer.Option(help="Write the prompt before what follows it.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print texts, ids and everything that made them.")] = False,
    device: Device = None,
) -> None:
    """Go on with a text: prompt and continuation on standard output, while it is written."""
    from dataclasses import asdict, replace

    from frozen_glyph.talk.speaking import prompt_ids, speak

    sampling = make_sampling(tokens, temperature, top_k, top_p, repetition_penalty, seed)
    if prompt == "-":
        prompt = sys.stdin.read().rstrip("\n")
    speaker = open_speakers([model], rule, weights, device, active_experts)[0]
    ids, texts = prompt_ids(speaker.tokenizer, prompt), []
    try:
        for number in range(samples):
            chosen = replace(sampling, seed=sampling.seed + number)
            if as_json:
                answer = speak(speaker, ids, chosen)
                finish = "end" if answer.ended else "length"
                texts.append({"seed": chosen.seed, "text": answer.text, "ids": answer.ids, "finish": finish})
                continue
            if samples > 1:
                write(f"[{number + 1}] ")
            write(prompt if echo else "")
            answer = speak(speaker, ids, chosen, lambda piece: write(piece.text))
            write("\n")
        if len(answer.read) < len(ids):
            say(f"the prompt has {len(ids)} tokens; the model reads the last {len(answer.read)}", err=True)
    except KeyboardInterrupt:
        write("\n")
        raise typer.Exit(STOPPED) from None
    if as_json:
        facts = {"model": str(speaker.source), "stage": speaker.stage, "rule": speaker.rule, "prompt": prompt}
        options = {name: value for name, value in asdict(sampling).items() if name != "seed"}
        print_json({**facts, "tokens_read": len(answer.read), "sampling": options, "samples": texts})


@app.command(
    epilog="Example: `frozen-glyph chat runs/ru`, then `/help`.\n\n"
    "Side by side: `frozen-glyph chat runs/merged --compare`, `frozen-glyph chat runs/ru@1 runs/ru --compare`"
)
def chat(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=WORDS)],
    compare: Annotated[
        bool, typer.Option("--compare", help="All answer side by side; of one model its stages or experts.")
    ] = False,
    as_chat: Annotated[
        bool | None,
        typer.Option("--messages/--complete", help="Messages and answers, or texts to go on with; default: by model."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="What a conversation begins with.")] = None,
    colour: Annotated[
        bool, typer.Option(help="In a terminal: the colour of a token is its expert, or the stage that settled it.")
    ] = True,
    rule: Rule = None,
    weights: Weights = None,
    active_experts: ActiveExperts = None,
    tokens: Tokens = 100,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
    device: Device = None,
) -> None:
    """Talk to models; /stage, /rule, /expert, /set and others change them while you do. Ctrl-C ends an answer."""
    from frozen_glyph.talk.session import Ended, Session

    sampling = make_sampling(tokens, temperature, top_k, top_p, repetition_penalty, seed)
    listen = colour and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    speakers = open_speakers(models, rule, weights, device, active_experts)
    session = Session(speakers, sampling, as_chat, compare, system, listen)
    if sys.stdin.isatty():
        tell(f"{session.do_info('')}. /help lists what else you can say.")
    try:
        for line in lines():
            answer(session, line)
    except Ended:
        pass
    except KeyboardInterrupt:
        write("\n")


@app.command(
    "app",
    epilog="Example: `frozen-glyph app runs/merged runs/ru`, then open the address that it prints.\n\n"
    "Gradio wants an environment of its own: `pip install 'frozen-glyph[app]'`",
)
def look(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=WORDS)],
    port: Annotated[int, typer.Option(help="Port of this machine; others cannot reach it.")] = 7860,
    device: Device = None,
) -> None:
    """Look at models in the browser: glyphs and neighbours, who speaks in a text, growth, samples side by side."""
    from frozen_glyph.app.page import build_page, check_port, gradio, serve_page

    check_port(port)
    gradio()
    page = build_page(open_speakers(models, None, None, device))
    say(f"http://127.0.0.1:{port}, until Ctrl-C")
    serve_page(page, port)


def answer(session: "Session", line: str) -> None:
    """Show what a line brings; what is wrong with it is told, and the talk goes on."""
    from frozen_glyph.errors import FrozenGlyphError

    try:
        with (Columns if len(session.voices) > 1 else Stream)(session.labels()) as screen:
            found = session.handle(line, screen.add)
        if isinstance(found, str):
            tell(found)
    except FrozenGlyphError as error:
        say(f"error: {error}", err=True)
    except KeyboardInterrupt:
        write("\n")  # the answer ends, the talk does not


def tell(text: str) -> None:
    """Lines beside the talk, none wider than the terminal; what a command does stands below itself."""
    for row in text.splitlines():
        begin = len(row) - len(row.partition("  ")[2].lstrip()) if "  " in row else 0
        for line in textwrap.wrap(row, shutil.get_terminal_size().columns, subsequent_indent=" " * begin):
            say(line, err=True)


def make_sampling(
    tokens: int, temperature: float, top_k: int, top_p: float, repetition_penalty: float, seed: int | None
) -> "Sampling":
    """How tokens are chosen, as the options say."""
    from frozen_glyph.talk.speaking import Sampling

    drawn = {} if seed is None else {"seed": seed}
    return Sampling(tokens, temperature, top_k, top_p, repetition_penalty, **drawn)


def open_speakers(
    models: list[str], rule: str | None, weights: str | None, device: str | None, active_experts: int | None = None
) -> "list[Speaker]":
    """The models, merged ones under ``rule`` and with at most ``active_experts`` running where these are given."""
    from frozen_glyph.talk.session import numbers
    from frozen_glyph.talk.speakers import Speaker

    quiet_transformers()
    if weights is not None and rule is None:
        raise typer.BadParameter("weights are of a rule; give --rule too", param_hint="--weights")
    speakers = [Speaker(word, device) for word in models]
    for speaker in [own for own in speakers if own.rule is not None] or speakers:
        if rule is not None:
            speaker.set_rule(rule, None if weights is None else numbers("--weights", weights))
        if active_experts is not None:
            speaker.run_at_most(active_experts)
    return speakers


def lines() -> Iterator[str]:
    """Lines as they are typed, with a prompt and editing where somebody types, else those of standard input."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  with it input() edits and remembers lines
    while True:
        try:
            yield input("> ")
        except EOFError:
            write("\n")
            return

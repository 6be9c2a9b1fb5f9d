"""The page: what it shows of the models that it was given, and of nothing else; built with Gradio (extra ``app``).

Command: ``frozen-glyph app runs/merged runs/ru``

Gradio's telemetry is off, its theme loads no letters from elsewhere, and no file can be asked for through it.
"""

import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from frozen_glyph.app.glyphs import neighbours_html, note, tokens_html
from frozen_glyph.app.views import samples_html, stages_html
from frozen_glyph.checkpoint.contract import SUBSTRATE_FILE
from frozen_glyph.checkpoint.describe import StageFacts, describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.attribution import SHOWN_RULE, attribute
from frozen_glyph.evaluation.colours import fragment_html
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.talk.session import Voice
from frozen_glyph.talk.speakers import Speaker
from frozen_glyph.talk.speaking import Sampling, prompt_ids, speak

STYLE = Path(__file__).with_name("page.css")
LONGEST_TEXT = 4000  # characters
MOST_SLIDERS = 8  # experts whose weights can be set
EXAMPLE = "The cat, Кот, 猫"
MIXED = "The cat sleeps. Кот спит. 猫在睡觉。"
SPOKEN_TOKENS = 60


class Looking:
    """What the page shows of ``speakers``, one thing at a time: stage and rule of a model change with what is asked."""

    def __init__(self, speakers: Sequence[Speaker]) -> None:
        if not speakers:
            raise FrozenGlyphError("no model given; name at least one checkpoint folder or Hub id")
        self.speakers = {speaker.label: speaker for speaker in speakers}
        self.lock = threading.Lock()
        self.substrates = {name: open_substrate(own) for name, own in self.speakers.items()}
        self.stages: dict[str, list[StageFacts]] = {
            name: describe_checkpoint(own.folder)["stages"] if own.stages else [] for name, own in self.speakers.items()
        }

    def having(self, wanted: Callable[[Speaker], Any]) -> list[str]:
        """The names of the models of which that is true."""
        return [name for name, own in self.speakers.items() if wanted(own)]

    def voices(self) -> dict[str, Voice]:
        """Everybody who can write a sample: stages of grown models, experts and rules of merged ones, others."""
        found: dict[str, Voice] = {}
        for name, own in self.speakers.items():
            base = own.source.name
            if own.experts:
                rules = [rule for rule in RULES if RULES[rule].weights != "any"]  # with equal weights the mean again
                found |= {f"{base}: {rule}": Voice(own, rule=rule) for rule in rules}
                found |= {f"{base}: {expert} alone": Voice(own, expert=expert) for expert in own.experts}
            elif own.stages:
                found |= {f"{base}@{stage}": Voice(own, stage=stage) for stage in range(1, own.stages + 1)}
            else:
                found[name] = Voice(own)
        return found

    def glyphs(self, name: str, text: str) -> tuple[str, str]:
        """The tokens of a text as pictures, and their neighbours."""
        substrate = self.substrates[name]
        if substrate is None:
            return note("This model stands on no pictures."), ""
        return tokens_html(substrate, text), neighbours_html(substrate, text)

    def colours(self, name: str, text: str, rule: str | None, *weights: float) -> str:
        """A text coloured by the expert that predicts each token, or the stage at which its prediction settles."""
        speaker = self.speakers[name]
        if not text.strip():
            return note("Type a text.")
        with self.lock:
            if speaker.experts and rule is not None:
                given = None if RULES[rule].weights == "none" else weights[: len(speaker.experts)]
                speaker.set_rule(rule, given)
            elif speaker.stages:
                speaker.load(speaker.stages)
            return fragment_html(attribute(speaker.model, speaker.tokenizer, text))

    def growth(self, name: str, stage: float, prompt: str) -> tuple[str, str]:
        """The losses of all stages, and how stage ``stage`` goes on with a text."""
        speaker = self.speakers[name]
        with self.lock:
            speaker.load(int(stage))
            said = speak(speaker, prompt_ids(speaker.tokenizer, prompt), Sampling(SPOKEN_TOKENS, temperature=0, seed=0))
        return stages_html(self.stages[name], int(stage)), samples_html(prompt, [(f"stage {int(stage)}", said.text)])

    def samples(self, prompt: str, chosen: list[str], tokens: float, temperature: float, seed: float) -> str:
        """What each of those chosen writes, side by side."""
        sampling, known = Sampling(int(tokens), float(temperature), seed=int(seed)), self.voices()
        written = []
        with self.lock:
            for name in chosen:
                speaker = known[name].ready()
                written.append((name, speak(speaker, prompt_ids(speaker.tokenizer, prompt), sampling).text))
        return samples_html(prompt, written)


def open_substrate(speaker: Speaker) -> GlyphSubstrate | None:
    """The pictures that a model stands on; None where there are none."""
    if not (speaker.folder / SUBSTRATE_FILE).exists():
        return None
    try:
        return GlyphSubstrate.from_pretrained(speaker.folder)
    except CheckpointError:
        return None


def build_page(speakers: Sequence[Speaker], title: str = "frozen glyph") -> Any:
    """The page as ``gradio.Blocks``, which ``serve_page`` starts.

    Raises:
        FrozenGlyphError: there is no model, or Gradio is not installed.
    """
    gr, looking = gradio(), Looking(speakers)
    names = list(looking.speakers)

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose errors the page shows in words."""

        @wraps(function)
        def asked(*values: Any) -> Any:
            try:
                return function(*values)
            except FrozenGlyphError as error:
                raise gr.Error(str(error), print_exception=False) from None

        return asked

    def text_box(label: str, value: str, lines: int = 2) -> Any:
        return gr.Textbox(value, label=label, lines=lines, max_length=LONGEST_TEXT)

    with gr.Blocks(analytics_enabled=False, title=title) as page:
        gr.Markdown(f"# {title}\n{', '.join(names)}")
        with gr.Tab("Glyphs"):
            add_glyphs(gr, looking, told, text_box)
        if spoken := looking.having(lambda own: own.experts or own.stages):
            with gr.Tab("Voices"):
                add_colours(gr, looking, told, text_box, spoken)
        if grown := looking.having(lambda own: own.stages):
            with gr.Tab("Growth"):
                add_growth(gr, looking, told, text_box, grown)
        with gr.Tab("Samples"):
            add_samples(gr, looking, told, text_box)
    return page


def add_glyphs(gr: Any, looking: Looking, told: Any, text_box: Any) -> None:
    """Type, and see tokens and their neighbours."""
    names = list(looking.speakers)
    model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
    text = text_box("Text", EXAMPLE)
    shown = looking.glyphs(names[0], EXAMPLE)
    tokens = gr.HTML(shown[0], label="Tokens")
    gr.Markdown("### Nearest neighbours\nTokens whose frozen vectors point the same way, with the cosine of the angle.")
    near = gr.HTML(shown[1])
    for changed in (model.change, text.change):
        changed(told(looking.glyphs), [model, text], [tokens, near], trigger_mode="always_last", show_progress="hidden")


def add_colours(gr: Any, looking: Looking, told: Any, text_box: Any, names: list[str]) -> None:
    """A text in colours, with the rule and the weights of the experts."""
    merged = {name: looking.speakers[name].experts for name in names}
    first = names[0]
    model = gr.Dropdown(names, value=first, label="Model", visible=len(names) > 1)
    text = text_box("Text", MIXED, 3)
    rule = gr.Dropdown(list(RULES), value=SHOWN_RULE, label="Rule", visible=bool(merged[first]))
    with gr.Row():
        sliders = [
            gr.Slider(0, 1, value=0.5, step=0.01, **slider(merged[first], SHOWN_RULE, place))
            for place in range(MOST_SLIDERS)
        ]
    button = gr.Button("Colour", variant="primary")
    out = gr.HTML()
    button.click(told(looking.colours), [model, text, rule, *sliders], out, show_progress="minimal")
    for own in sliders:
        own.release(told(looking.colours), [model, text, rule, *sliders], out, show_progress="hidden")

    def chosen(name: str, rule: str) -> list[Any]:
        experts = merged[name]
        shown = [gr.update(**slider(experts, rule, place)) for place in range(MOST_SLIDERS)]
        return [gr.update(visible=bool(experts)), *shown, ""]

    for changed in (model.change, rule.change):
        changed(chosen, [model, rule], [rule, *sliders, out], show_progress="hidden")


def slider(experts: list[str], rule: str, place: int) -> dict[str, Any]:
    """Label and visibility of the slider of an expert's weight: shown where the rule takes weights."""
    there = place < len(experts)
    label = f"Weight of {experts[place]}" if there else "Weight"
    return {"label": label, "visible": there and RULES[rule].weights != "none"}


def add_growth(gr: Any, looking: Looking, told: Any, text_box: Any, names: list[str]) -> None:
    """A slider over the growth stages: their losses, and a text that the chosen one goes on with."""
    first, last = names[0], looking.speakers[names[0]].stages
    model = gr.Dropdown(names, value=first, label="Model", visible=len(names) > 1)
    stage = gr.Slider(1, max(2, last), value=last, step=1, label="Growth stage")
    table = gr.HTML(stages_html(looking.stages[first], last))
    prompt = text_box("A text to go on with", "The")
    text = gr.HTML()
    asked = [model, stage, prompt]
    stage.change(told(looking.growth), asked, [table, text], trigger_mode="always_last", show_progress="minimal")
    gr.Button("Go on", variant="primary").click(told(looking.growth), asked, [table, text], show_progress="minimal")

    def chosen(name: str) -> tuple[Any, str, str]:
        stages = looking.speakers[name].stages
        return gr.update(maximum=max(2, stages), value=stages), stages_html(looking.stages[name], stages), ""

    model.change(chosen, model, [stage, table, text])


def add_samples(gr: Any, looking: Looking, told: Any, text_box: Any) -> None:
    """One prompt, several voices."""
    voices = list(looking.voices())
    prompt = text_box("A text to go on with", "The")
    who = gr.CheckboxGroup(voices, value=voices[:2], label="Who writes")
    with gr.Row():
        tokens = gr.Slider(1, 400, value=SPOKEN_TOKENS, step=1, label="Tokens")
        temperature = gr.Slider(0, 2, value=0.8, step=0.05, label="Temperature")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    button = gr.Button("Write", variant="primary")
    out = gr.HTML()
    button.click(told(looking.samples), [prompt, who, tokens, temperature, seed], out, show_progress="minimal")


def check_port(port: int) -> None:
    """Raise ``FrozenGlyphError`` where a page cannot listen on ``port`` of this machine."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")  # one just left may be taken
        try:
            listener.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise FrozenGlyphError(f"port {port} cannot be used ({error}); give another --port") from None


def serve_page(page: Any, port: int | None = None, host: str | None = "127.0.0.1", block: bool = True) -> str:
    """Start ``page`` and return its address; ``host`` None is what the environment of a Space says.

    Raises:
        FrozenGlyphError: the port is taken.
    """
    gr = gradio()
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = page.queue(api_open=False).launch(
            server_name=host, server_port=port, theme=theme, css=STYLE.read_text("utf-8"), quiet=True, ssr_mode=False,
            share=False, enable_monitoring=False, footer_links=[], max_file_size=1, prevent_thread_lock=not block,
        )  # fmt: skip
    except OSError as error:
        raise FrozenGlyphError(f"the page cannot start: {error}; give another --port") from None
    return address


def gradio() -> Any:
    """The library, with its telemetry off; ``FrozenGlyphError`` where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise FrozenGlyphError(f'the page needs Gradio ({error}); pip install "frozen-glyph[app]"') from None
    return gr

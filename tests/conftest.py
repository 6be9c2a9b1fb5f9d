"""Tiny things made in-process and offline: a font, a trilingual tokenizer, a substrate, models, two experts, a merge.

Weights are random but nowhere degenerate: every norm, bias and output projection differs from its initial value, so
that a part left out of a computation changes the result.
"""

import hashlib
import itertools
import logging
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import that reads it
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start: tiny tensors, few cores
os.environ.pop("COLUMNS", None)  # pytest-xdist says 80; tests of tables say their width

import pytest
import torch

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, GlyphSubstrate, build_tokenizer, grow, merge_experts
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.substrate import load_font
from frozen_glyph.training.recipe import TrainingRecipe

HIDDEN_SIZE = 48
SENTENCES = [
    "The cat sat on the mat, and the hat is on the cat. " * 8,
    "Кот сидел на окне, другой кот тоже сидел там. " * 8,
    "猫坐在垫子上。另一只猫也坐在那里。" * 8,
]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors are slower on many threads than on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# What others do themselves: transformers where an assistant proposes tokens, peft 0.18 around heads of tasks.
OWN_CALLS = ("Passing `generation_config` together", "`use_return_dict` is deprecated")


@pytest.fixture(autouse=True)
def no_deprecated_calls():
    """What transformers only logs of deprecated names fails a test, as its warnings do (see pyproject.toml)."""
    said = []

    def note(record):
        message = record.getMessage()
        if "deprecated" in message and not message.startswith(OWN_CALLS):
            said.append(message)

    handler = logging.Handler()
    handler.emit = note
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert said == []


@pytest.fixture(scope="session")
def real_data():
    """The folder of real texts and questions: FROZEN_GLYPH_DATA, else ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("FROZEN_GLYPH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"{str(folder)!r} does not exist; name the folder of real data in FROZEN_GLYPH_DATA")
    return folder


@pytest.fixture(scope="session")
def font_file(tmp_path_factory):
    """A .hex font whose glyphs follow from a hash of the character."""
    characters = sorted(set("".join(SENTENCES) + "<>bdeops") - {" "})
    path = tmp_path_factory.mktemp("font") / "tiny.hex"
    lines = [f"{ord(character):04X}:{hashlib.sha256(character.encode()).hexdigest()}\n" for character in characters]
    path.write_text("".join(lines), encoding="ascii")
    return path


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer(SENTENCES, vocab_size=340)


@pytest.fixture(scope="session")
def substrate(tokenizer, font_file):
    return GlyphSubstrate.build(tokenizer, width=HIDDEN_SIZE, font=load_font(font_file))


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Stand-in for training: give everything that trains new values, and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                base = 1.0 if name.endswith("norm.weight") else 0.0
                parameter.copy_(base + 0.2 * torch.randn(parameter.shape, generator=generator))


def model_builder(substrate: GlyphSubstrate):
    """``build(seed, **config fields)``: a model on ``substrate``, in evaluation mode."""

    def build(seed: int = 0, **fields) -> FrozenGlyphForCausalLM:
        defaults = {
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "ladder": None,
        }
        config = FrozenGlyphConfig(
            vocab_size=substrate.vocab_size,
            hidden_size=HIDDEN_SIZE,
            substrate_bits=substrate.bits,
            **substrate.geometry,
            substrate_fingerprint=substrate.fingerprint,
            tokenizer_sha256=substrate.provenance["tokenizer_sha256"],
            pad_token_id=substrate.tokenizer.pad_token_id,
            bos_token_id=substrate.tokenizer.bos_token_id,
            eos_token_id=substrate.tokenizer.eos_token_id,
            **(defaults | fields),
        )
        torch.manual_seed(seed)
        model = FrozenGlyphForCausalLM(config)
        model.substrate.load_state_dict(substrate.as_embedding().state_dict())
        randomise(model, seed)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def build_model(substrate):
    """``build_model(seed, **config fields)``: a model on the tiny substrate, in evaluation mode."""
    return model_builder(substrate)


@pytest.fixture(scope="session")
def plain_substrate(tokenizer, font_file):
    """The tiny substrate as it was before pictures were whitened."""
    return GlyphSubstrate.build(tokenizer, width=HIDDEN_SIZE, font=load_font(font_file), whiten="none")


@pytest.fixture(scope="session")
def build_plain_model(plain_substrate):
    """``build_model`` on ``plain_substrate``."""
    return model_builder(plain_substrate)


@pytest.fixture(scope="session")
def write_expert(substrate, build_model, tmp_path_factory):
    """``write_expert(name, ladder, seed, **config fields)``: a checkpoint folder grown in ``len(ladder)`` stages."""

    def write(name: str, ladder: list[int], seed: int, **fields):
        folder = tmp_path_factory.mktemp("experts") / name
        substrate.save_pretrained(folder)
        model = build_model(seed, num_hidden_layers=ladder[0], ladder=ladder[:1], **fields)
        stages = [{"stage": 1, "files": write_stage(folder, model, 1)}]
        for stage, (below, above) in enumerate(itertools.pairwise(ladder), start=2):
            model = grow(model, above - below, init="random").eval()
            randomise(model, seed + 100 * stage)
            stages.append({"stage": stage, "files": write_stage(folder, model, stage)})
        write_provenance(folder, "growth", {"recipe": {"name": name, "ladder": ladder}, "stages": stages})
        return folder

    return write


@pytest.fixture(scope="session")
def experts(write_expert):
    """Two grown experts of different depth and number of heads."""
    return [
        write_expert("ru", [1, 2], seed=1, num_attention_heads=4),
        write_expert("zh", [1, 3], seed=2, num_attention_heads=2),
    ]


@pytest.fixture(scope="session")
def merged_folder(experts, tmp_path_factory):
    """The two experts merged under the default rule."""
    return merge_experts(experts, tmp_path_factory.mktemp("merged") / "ru-zh")


@pytest.fixture(scope="session")
def token_ids(substrate):
    """``token_ids(B, T, seed)``: random ids without the special tokens."""

    def draw(batch: int, length: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(3, substrate.vocab_size, (batch, length), generator=generator)

    return draw


@pytest.fixture(scope="session")
def tiny_training():
    """The section ``training`` of a recipe for tiny models, as plain data."""
    return {
        "context_length": 32,
        "batch_tokens": 128,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "precision": "fp32",
        "save_steps": 4,
    }


@pytest.fixture(scope="session")
def make_training(tiny_training):
    """``make_training(save_steps=2)``: the tiny training recipe, with changes."""
    return lambda **changes: TrainingRecipe(**(tiny_training | changes))


@pytest.fixture(scope="module")  # no longer: while it is open, nothing else may run a loop of events
def browser():
    """A headless Chromium (``pip install playwright``, ``apt-get install chromium``)."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="a browser needs playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium; apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()

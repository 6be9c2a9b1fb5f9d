"""Every file that the package reads, damaged in seeded ways: what reads it succeeds, or says in one line what is wrong.

No other exception, no endless loop, no allocation that a small file asks for.
"""

import json
import random
import shutil
import signal
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mutations
import pytest
import yaml

from frozen_glyph.checkpoint.card import inherited, model_card
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.loading import load_causal_lm
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.cli.tables import checkpoint_table
from frozen_glyph.errors import LONGEST_MESSAGE
from frozen_glyph.evaluation.tasks.benchmark_files import read_arc, read_boolq, read_squad
from frozen_glyph.growth.lora import add_adapters, drop_adapters, write_adapters
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.growth.plot import plot_growth
from frozen_glyph.growth.recipe import LoraRecipe, load_recipe
from frozen_glyph.hub import files_to_push
from frozen_glyph.merge.extract import extract_expert
from frozen_glyph.merge.plan import plan_merge
from frozen_glyph.merge.recipe import MergeRecipe, load_merge_recipe
from frozen_glyph.merge.reweigh import reweigh_experts
from frozen_glyph.merge.tune_recipe import load_tune_recipe
from frozen_glyph.merge.write import write_merged
from frozen_glyph.published.names import load_keys
from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.inspect import describe
from frozen_glyph.substrate.recipe import load_substrate_recipe
from frozen_glyph.text.documents import file_documents
from frozen_glyph.training.trainer import newest_checkpoint

resource = pytest.importorskip("resource", reason="bounds memory as POSIX systems do")

MUTATIONS, MANY = 2_000, 100_000
SECONDS = 20  # for one reading; the slowest takes a hundredth
GIGABYTES = 3  # of address space beyond what the tests have already
LOCAL_NAMES = ("recipe", "setting")  # a recipe's error may name its field in place of the file


@dataclass(frozen=True)
class Reading:
    """``read(folder)`` looks at ``file`` of a copy of the folder ``origin``, which ``mutate`` has damaged.

    ``share``: how many of the mutations it gets, in parts.
    """

    origin: str
    file: str
    read: Callable[[Path], Any]
    mutate: Callable[[bytes, random.Random], bytes]
    share: int = 2
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or self.read.__name__} {self.file}"


def fresh(folder: Path) -> Path:
    """A place beside ``folder`` to write to."""
    shutil.rmtree(out := folder.parent / "out", ignore_errors=True)
    return out


def inspect(folder: Path) -> None:
    facts = describe_checkpoint(folder, verify=True)
    checkpoint_table(facts)
    json.dumps(facts)


def plan(folder: Path) -> None:
    plan_merge(MergeRecipe([str(folder), str(folder.parent / "zh")])).report()


def plan_adapted(folder: Path) -> None:
    plan_merge(MergeRecipe([f"{folder}@2", f"{folder}@2+{folder / 'lora-2'}"])).report()


def merge(folder: Path) -> None:
    write_merged(plan_merge(MergeRecipe([str(folder), str(folder.parent / "zh")])), fresh(folder))


def extract(folder: Path) -> None:
    extract_expert(folder, "ru", fresh(folder))


def reweigh(folder: Path) -> None:
    """What it changes is a copy."""
    copied = shutil.copytree(folder, fresh(folder) / folder.name)
    reweigh_experts(copied, "weighted", [0.25, 0.75])


def adopt(folder: Path) -> None:
    adopt_parent(Source(str(folder)), fresh(folder))


def push(folder: Path) -> None:
    files_to_push(folder)


def substrate(folder: Path) -> None:
    describe(GlyphSubstrate.from_pretrained(folder))


def card(folder: Path) -> None:
    inherited([folder])


def read_yaml(content: bytes, rng: random.Random) -> bytes:
    dump = partial(yaml.safe_dump, sort_keys=False, allow_unicode=True)
    return mutations.mutate_yaml(content, rng, yaml.safe_load, dump)


def front_matter(content: bytes, rng: random.Random) -> bytes:
    _, front, rest = content.split(b"---\n", 2)
    return b"---\n" + read_yaml(front, rng) + b"\n---\n" + rest


def recipe(file: str, load: Callable[[Path], Any]) -> Reading:
    return Reading("recipes", file, lambda folder: load(folder / file), read_yaml, 4, "recipe")


def data(file: str, read: Callable[[Path], Any], mutate: Callable[[bytes, random.Random], bytes]) -> Reading:
    return Reading("recipes", file, lambda folder: read(folder / file), mutate, 2, "data")


JSON, LINES, TENSORS = mutations.mutate_json, mutations.mutate_json_lines, mutations.mutate_safetensors
CONFIG, RECORD = "config.json", "provenance.json"
INDEX, STAGE_INDEX = "model.safetensors.index.json", "stage-2.safetensors.index.json"
SUBSTRATE, BLOCKS, HEAD = "substrate.safetensors", "blocks-1.safetensors", "head-2.safetensors"
READINGS = [
    *(Reading("ru", file, read, JSON) for read in (inspect, plan, adopt, push)
      for file in (CONFIG, RECORD, INDEX, STAGE_INDEX)),
    *(Reading("ru", file, read, TENSORS) for read in (inspect, merge) for file in (SUBSTRATE, BLOCKS, HEAD)),
    *(Reading("ru-zh", file, read, JSON) for read in (inspect, plan, extract, reweigh) for file in (CONFIG, RECORD)),
    Reading("ru-zh", INDEX, extract, JSON),
    *(Reading("ru-zh", file, extract, TENSORS, 1) for file in ("expert-0.safetensors", "head.safetensors")),
    *(Reading("ru", file, load_causal_lm, JSON, 1) for file in (CONFIG, STAGE_INDEX)),
    Reading("ru", BLOCKS, load_causal_lm, TENSORS, 1),
    Reading("ru-zh", CONFIG, load_causal_lm, JSON, 1),
    Reading("adapted", "lora-2/adapter_config.json", plan_adapted, JSON, 3),
    Reading("adapted", "lora-2/adapter_model.safetensors", plan_adapted, TENSORS, 3),
    *(Reading("ru", file, substrate, JSON) for file in ("substrate.json", "tokenizer.json", "tokenizer_config.json")),
    Reading("ru", SUBSTRATE, substrate, TENSORS),
    Reading("ru-zh", "README.md", card, front_matter, 4),
    *(Reading("run", file, plot_growth, mutate, 1) for file, mutate in ((RECORD, JSON), ("metrics-1.jsonl", LINES))),
    *(Reading("run", f"checkpoint-1/{file}.json", newest_checkpoint, JSON) for file in ("manifest", "trainer_state")),
    *(recipe(*pair) for pair in (
        ("growth.yaml", load_recipe), ("merge.yaml", load_merge_recipe), ("tune.yaml", load_tune_recipe),
        ("substrate.yaml", load_substrate_recipe), ("keys.yaml", load_keys))),
    Reading("recipes", CONFIG, lambda folder: load_recipe(folder / "growth.yaml"), JSON, 2, "recipe"),
    data("notes.jsonl", lambda path: list(file_documents(path)), LINES),
    data("arc.jsonl", read_arc, LINES), data("boolq.jsonl", read_boolq, LINES), data("squad.json", read_squad, JSON),
]  # fmt: skip
PARTS = sum(reading.share for reading in READINGS)


@pytest.fixture(scope="module")
def origins(experts, merged_folder, tmp_path_factory):
    """The folders by name, as an earlier version wrote them: no record vouches for small files, so all are read."""
    root = tmp_path_factory.mktemp("origins")
    for folder, name in ((experts[0], "ru"), (experts[1], "zh"), (merged_folder, "ru-zh"), (experts[0], "adapted")):
        shutil.copytree(folder, root / name)
        record = json.loads((root / name / RECORD).read_text())
        record.pop("companions", None)
        (root / name / RECORD).write_text(json.dumps(record))
    (root / "ru" / "README.md").write_text(model_card("ru", "A card.", {}, [], license="mit", language=["ru"]))
    adapters, model = LoraRecipe(rank=3, targets=["q_proj"], merge=False), load_causal_lm(root / "adapted")
    add_adapters(model, adapters, 0)
    write_adapters(model, adapters, root / "adapted" / "lora-2")
    drop_adapters(model)
    for name, files in (("recipes", recipe_files()), ("run", run_files())):
        for file, content in files.items():
            (root / name / file).parent.mkdir(parents=True, exist_ok=True)
            (root / name / file).write_text(content)
    return root


def recipe_files() -> dict[str, str]:
    """Recipes and texts by name."""
    tiny = Path(__file__).parents[1] / "hub_configs" / "tiny-trilingual"
    question = {"stem": "?", "choices": [{"label": "A", "text": "a"}, {"label": "B", "text": "b"}]}
    asked = {"id": "1", "question": "?", "answers": [{"text": "a", "answer_start": 0}]}
    rows = {
        "notes": [{"text": f"note {number}", "id": number} for number in range(5)],
        "arc": [{"id": "x", "question": question, "answerKey": "A"}] * 3,
        "boolq": [{"question": "?", "passage": "a", "answer": True}] * 3,
    }
    return {
        **{name: (tiny / name).read_text() for name in (CONFIG, "merge.yaml")},
        "growth.yaml": yaml.safe_dump(yaml.safe_load((tiny / "growth-ru.yaml").read_text())),
        "tune.yaml": "what: low-rank\nrank: 4\nsteps: 5\ntraining: {batch_tokens: 1024, context_length: 32}\n",
        "substrate.yaml": "vocab: 512\nlayout: grid\nwidth: 64\nmax_ngram: 3\n",
        "keys.yaml": "names: {'h\\.(\\d+)\\.x': 'model.layers.\\1.y'}\nprefix: a\nconfig: {num_attention_heads: 2}\n",
        **{f"{name}.jsonl": "".join(json.dumps(row) + "\n" for row in found) for name, found in rows.items()},
        "squad.json": json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "a", "qas": [asked] * 2}]}]}),
    }


def run_files() -> dict[str, str]:
    """What a growth run holds of its losses, and of a checkpoint of the stage that trains."""
    stage = {"stage": 1, "num_hidden_layers": 1, "files": {}}
    recipe = {"name": "run", "training": {"batch_tokens": 64}}
    history = [{"step": step, "loss": 3.0 - step, "seconds": 1.0} for step in (1, 2)]
    return {
        RECORD: json.dumps({"format": 1, "kind": "growth", "recipe": recipe, "stages": [stage]}),
        "metrics-1.jsonl": "".join(json.dumps(entry) + "\n" for entry in history),
        "checkpoint-1/manifest.json": json.dumps({"finished": False, "files": {}}),
        "checkpoint-1/trainer_state.json": json.dumps({"global_step": 2, "log_history": history}),
    }


@contextmanager
def limits() -> Iterator[None]:
    """Stop what takes ``SECONDS``, and refuse memory beyond ``GIGABYTES`` more."""

    def late(signum: int, frame: object) -> None:
        raise TimeoutError(f"took {SECONDS} seconds")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (GIGABYTES << 30), before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def complaint(reading: Reading, folder: Path) -> str | None:
    """What is wrong with how ``folder`` is read; None where that succeeds or ends in one line."""
    try:
        with limits():
            reading.read(folder)
    except BaseException as error:
        text = str(error)
        foreign = type(error).__module__.partition(".")[0] not in ("frozen_glyph", "builtins")
        if foreign or not isinstance(error, ValueError | OSError) or isinstance(error, TimeoutError | UnicodeError):
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "frozen_glyph" in frame.filename]
            return f"{type(error).__name__}: {text[:200]} at {ours[-1].filename}:{ours[-1].lineno}"
        if not text.isprintable() or len(text) > LONGEST_MESSAGE + 1:
            return f"no line that can be shown: {text[:200]!r}"
        if not any(name in text for name in (Path(reading.file).name, str(folder), f"/{folder.name}'", *LOCAL_NAMES)):
            return f"names no file: {text[:200]}" if reading.name != "recipe" else None
    return None


def fuzz(reading: Reading, origins: Path, place: Path, seeds: range) -> list[str]:
    """Complaints about mutations by the numbers ``seeds``, which say how to make them again."""
    for name in {reading.origin, "zh"}:
        shutil.copytree(origins / name, place / name)
    path, found = place / reading.origin / reading.file, []
    original = path.read_bytes()
    for seed in seeds:
        path.write_bytes(reading.mutate(original, random.Random(zlib.crc32(f"{reading} {seed}".encode()))))
        if problem := complaint(reading, place / reading.origin):
            found.append(f"seed {seed}: {problem}")
    return found


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_damaged_files_end_in_one_line(reading, origins, tmp_path):
    count = -(-MUTATIONS * reading.share // PARTS)
    problems = fuzz(reading, origins, tmp_path, range(count))
    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_many_damaged_files_end_in_one_line(reading, origins, tmp_path):
    count = MANY * reading.share // PARTS
    assert fuzz(reading, origins, tmp_path, range(10_000, 10_000 + count)) == []

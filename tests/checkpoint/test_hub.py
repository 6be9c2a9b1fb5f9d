"""Stages on a Hub: real clients, each a process of its own, fetch the shards of one stage; a bad shard is named."""

import hashlib
import json
import subprocess
import sys

import pytest
from hub_cards import card_errors
from hub_server import LoopbackHub

from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.card import model_card
from frozen_glyph.checkpoint.companions import model_code
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import write_tensors

SETTINGS = {"config.json", "generation_config.json"}
UNUSED = {"modeling_frozen_glyph_moe.py", "reading_frozen_glyph.py", "prefix_frozen_glyph.py"}  # but by merged models
UNUSED |= {f"{name}_frozen_glyph.py" for name in ("evidence", "leading", "scheduling", "skimming", "switching")}
UNUSED |= {"tasks_frozen_glyph.py"}  # but by models for other tasks
CODE = {path.name for path in model_code()} - UNUSED
STAGE_1 = {"stage-1.safetensors.index.json", "substrate.safetensors", "blocks-1.safetensors", "head-1.safetensors"}
STAGE_2 = STAGE_1 | {"stage-2.safetensors.index.json", "blocks-2.safetensors", "head-2.safetensors"}

PREPARE = """
import hashlib, json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)

def digest(model):
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()

def message(call):
    try:
        call()
    except Exception as error:
        return [isinstance(error, (ValueError, OSError)), str(error)]

task = json.loads(sys.stdin.read())
found = {}
"""
OWNER = """
from frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.checkpoint.companions import model_code
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.reader import open_checkpoint
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.hub import push

push(task["folder"], "user/trunk")
push(task["folder"], "user/published")
FrozenGlyphForCausalLM.from_pretrained(task["folder"]).push_to_hub("user/saved")
found["class"] = digest(FrozenGlyphForCausalLM.from_pretrained("user/trunk", growth_stage=1))
found["deepest"] = digest(FrozenGlyphForCausalLM.from_pretrained("user/deepest"))
found["facts"] = describe_checkpoint("user/facts")
found["entries"] = adopt_parent(Source("user/parent", 2), Path(task["out"]))
found["damaged"] = {}
for repo in task["damaged"]:
    load = lambda: FrozenGlyphForCausalLM.from_pretrained(repo, growth_stage=1)
    found["damaged"][repo] = message(load)
found["two models"] = message(lambda: open_checkpoint("expert", Source("user/two-models")).shards)
found["no parent"] = message(lambda: adopt_parent(Source("user/nobody"), Path(task["out"] + "-none")))
"""
STRANGER = """
class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "frozen_glyph":
            raise ImportError("frozen_glyph is not installed here")

sys.meta_path.insert(0, NoPackage())
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

arguments = {"trust_remote_code": True, "growth_stage": 1}
found["published"] = digest(AutoModelForCausalLM.from_pretrained("user/published", **arguments))
found["saved"] = digest(AutoModelForCausalLM.from_pretrained("user/saved", trust_remote_code=True))
tokenizers = [AutoTokenizer.from_pretrained(repo) for repo in ("user/published", "user/saved")]
found["ids"] = [tokenizer("The cat")["input_ids"] for tokenizer in tokenizers]
found["auto"] = digest(AutoModelForCausalLM.from_pretrained("user/auto", **arguments))
found["base"] = sorted(AutoModel.from_pretrained("user/base", **arguments).state_dict())
found["damaged"] = {repo: message(lambda: AutoModel.from_pretrained(repo, **arguments)) for repo in task["damaged"]}
"""


def truncated(content: bytes) -> bytes:
    return content[:-9]


@pytest.fixture(scope="module")
def trunk(write_expert):
    """A run of three stages."""
    folder = write_expert("trunk", [1, 2, 3], seed=3)
    (folder / "README.md").write_text(model_card("trunk", "A trunk.", {}, ["grown"]))
    return folder


@pytest.fixture(scope="module")
def hub(trunk, tmp_path_factory):
    """A Hub with a copy of the run for every reader, to tell their requests apart, and damaged copies."""
    foreign = tmp_path_factory.mktemp("foreign") / "blocks-1.safetensors"
    state = FrozenGlyphForCausalLM.from_pretrained(trunk, growth_stage=1).state_dict()
    write_tensors(foreign, {name: tensor + 1 for name, tensor in state.items() if name.startswith("model.layers.")})
    with LoopbackHub() as hub:
        for reader in ("deepest", "facts", "parent", "auto", "base"):
            hub.commit_folder(f"user/{reader}", trunk)
        whole = hub.repos["user/auto"][-1][1]
        missing = {name: content for name, content in whole.items() if name != "blocks-1.safetensors"}
        hub.commit("user/missing", missing)
        hub.commit("user/truncated", whole | {"head-1.safetensors": truncated(whole["head-1.safetensors"])})
        hub.commit("user/foreign", whole | {"blocks-1.safetensors": foreign.read_bytes()})
        index = whole["stage-1.safetensors.index.json"].replace(b'"head-1.safetensors"', b'"/etc/hostname"')
        hub.commit("user/leading-out", whole | {"stage-1.safetensors.index.json": index})
        hub.commit("user/two-models", whole | {"model.safetensors": whole["head-1.safetensors"]})
        hub.commit("user/swapped", whole | {"blocks-1.safetensors": whole["blocks-2.safetensors"]})
        yield hub


DAMAGED = {
    "user/missing": "blocks-1.safetensors",
    "user/truncated": "head-1.safetensors cannot be read",
    "user/foreign": "blocks-1.safetensors is of another checkpoint or was changed",
    "user/leading-out": "'/etc/hostname' is no name of a file inside its folder",
    "user/swapped": "blocks-1.safetensors is of another checkpoint or was changed",
}


def client(hub, home, code: str, **task) -> dict:
    """What a client process with an empty cache finds."""
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + code + "\nprint('RESULT' + json.dumps(found))"],
        input=json.dumps(task | {"damaged": list(DAMAGED)}), env=hub.client_environment(home),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.partition("RESULT")[2])


@pytest.fixture(scope="module")
def owner(hub, trunk, tmp_path_factory):
    home = tmp_path_factory.mktemp("owner")
    return client(hub, home / "hf", OWNER, folder=str(trunk), out=str(home / "run")) | {"out": home / "run"}


@pytest.fixture(scope="module")
def stranger(hub, owner, tmp_path_factory):
    return client(hub, tmp_path_factory.mktemp("stranger"), STRANGER)


def digest(folder, stage=None) -> str:
    found = hashlib.sha256()
    state = FrozenGlyphForCausalLM.from_pretrained(folder, growth_stage=stage).state_dict()
    for name, tensor in sorted(state.items()):
        found.update(name.encode() + tensor.numpy().tobytes())
    return found.hexdigest()


def test_what_was_published_is_loaded_without_the_package(hub, owner, stranger, trunk, tokenizer):
    assert stranger["published"] == digest(trunk, 1)
    assert stranger["ids"] == [tokenizer("The cat")["input_ids"]] * 2


def test_push_to_hub_of_a_model_carries_code_tokenizer_substrate_and_card(hub, owner, stranger, trunk):
    assert stranger["saved"] == digest(trunk)
    files = hub.repos["user/saved"][-1][1]
    assert files.keys() > CODE | {"config.json", "model.safetensors", "substrate.json", "tokenizer.json"}
    card = files["README.md"].decode()
    assert card_errors(card) == [] and "- frozen-glyph" in card


def test_one_stage_fetches_its_own_files_only(hub, owner, trunk):
    assert owner["class"] == digest(trunk, 1)
    assert set(hub.fetched("user/trunk")) == STAGE_1 | SETTINGS
    assert set(hub.fetched("user/trunk").values()) == {1}


def test_a_plain_load_fetches_the_deepest(hub, owner, trunk):
    assert owner["deepest"] == digest(trunk)
    shards = {name for name in hub.fetched("user/deepest") if name.endswith(".safetensors")}
    names = ("substrate", "blocks-1", "blocks-2", "blocks-3", "head-3")
    assert shards == {f"{name}.safetensors" for name in names}


def test_one_stage_with_remote_code(hub, stranger, trunk):
    assert stranger["auto"] == digest(trunk, 1)
    assert set(hub.fetched("user/auto")) == STAGE_1 | SETTINGS | CODE
    assert set(hub.fetched("user/base")) == STAGE_1 | SETTINGS - {"generation_config.json"} | CODE
    assert "lm_head.weight" not in stranger["base"]


@pytest.mark.parametrize("repo", DAMAGED)
def test_a_bad_shard_is_named(owner, stranger, repo):
    for found in (owner, stranger):
        kind_is_right, text = found["damaged"][repo]
        assert kind_is_right
        assert DAMAGED[repo] in text
        assert repo in text


def test_facts_without_downloading_shards(hub, owner, trunk):
    expected = describe_checkpoint(trunk) | {"name": "user/facts"}
    assert owner["facts"] == json.loads(json.dumps(expected))
    sizes = [path.stat().st_size for path in trunk.glob("*.safetensors")]
    assert len(sizes) == 7
    assert set(hub.fetched("user/facts")) > {path.name for path in trunk.glob("*.safetensors")}  # ranges of them
    assert not list(owner["out"].parent.glob("hf/hub/models--user--facts/snapshots/*/*.safetensors"))


def test_a_parent_on_the_hub(hub, owner, trunk):
    assert [entry["stage"] for entry in owner["entries"]] == [1, 2]
    assert owner["entries"][1]["parents"][0]["name"] == "user/parent"
    assert digest(owner["out"]) == digest(owner["out"], 2) == digest(trunk, 2)
    assert digest(owner["out"], 1) == digest(trunk, 1)
    weights = {name for name in hub.fetched("user/parent") if name.endswith(".safetensors")}
    assert weights == {name for name in STAGE_2 if name.endswith(".safetensors")}
    assert "'user/nobody' is no folder and cannot be fetched from the Hub" in owner["no parent"][1]


def test_two_models_in_one_repository_are_refused_before_a_shard_is_fetched(hub, owner):
    kind_is_right, text = owner["two models"]
    assert kind_is_right and "'user/two-models' holds two models" in text
    assert not [name for name in hub.fetched("user/two-models") if name.endswith(".safetensors")]

"""Whatever a folder brings, no code of it runs, no pickle is opened, and nobody is asked."""

import ast
import builtins
import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

import frozen_glyph
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.cli import app
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.candidates import find_candidates, load_model
from frozen_glyph.export.dense import export_dense
from frozen_glyph.growth.parent import adopt_parent
from frozen_glyph.health.checkpoint import measure_health
from frozen_glyph.hub import files_to_push
from frozen_glyph.merge.extract import extract_expert
from frozen_glyph.merge.tune import tune_head
from frozen_glyph.merge.write import merge_experts

PACKAGE = Path(frozen_glyph.__file__).parent
CODE = "raise SystemExit('code of the folder was run')"
RUNS_CODE = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "torch.load",
    "shelve",
    "dill",
    "joblib",
    "marshal",
    "sqlite3",
    "sqlitedict",
    "CachingLM",
}


class RunsCode:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was run')",))


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch):
    def asked(*_):
        raise AssertionError("the user was asked")

    monkeypatch.setattr(builtins, "input", asked)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The cat sat on the mat. " * 200)
    return path


def change_json(path, **changes):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


@pytest.fixture
def with_code(experts, tmp_path):
    """An expert whose tokenizer and model bring code of their own, beside names that transformers knows."""
    folder = shutil.copytree(experts[0], tmp_path / "with-code")
    (folder / "evil.py").write_text(CODE)
    change_json(folder / "provenance.json", companions={})  # nobody recorded what an attacker wrote
    change_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.Tokenizer"]})
    change_json(folder / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    return folder


@pytest.fixture
def foreign(tokenizer, tmp_path):
    """A GPT-2 as transformers saves it."""
    folder = tmp_path / "gpt2"
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def uses(path):
    """Names that a file imports or takes attributes of, with their owners: ``AutoConfig.from_pretrained``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            yield from (part for alias in node.names for part in alias.name.split("."))
            yield from (f"{module}.{alias.name}" for alias in node.names)
            yield from module.split(".")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_there_is_one_way_to_what_could_run_code(path):
    """A loader of transformers without ``trust_remote_code=False`` asks; a pickle runs."""
    found = set(uses(path))
    assert not found & RUNS_CODE and "pipeline" not in found
    if path.name != "loading.py":
        loads = {use for use in found if use.startswith("Auto") and use.endswith((".from_pretrained", ".from_config"))}
        assert not loads, "load through checkpoint/loading.py"


def test_code_beside_a_known_class_is_left_alone(with_code, text, tmp_path):
    export_dense(with_code, tmp_path / "dense")
    assert measure_health(with_code, text)
    assert load_model(find_candidates([str(with_code)])[0].folder)


def test_what_only_its_own_code_can_load_is_refused_in_one_line(with_code, foreign, text, tmp_path):
    change_json(with_code / "tokenizer_config.json", tokenizer_class="EvilTokenizer")
    for refused in (
        lambda: load_tokenizer(with_code),
        lambda: export_dense(with_code, tmp_path / "dense"),
        lambda: measure_health(with_code, text),
    ):
        with pytest.raises(CheckpointError, match=r"the tokenizer of '.*with-code' loads only with code.*no such code"):
            refused()
    assert not (tmp_path / "dense").exists()
    (foreign / "evil.py").write_text(CODE)
    change_json(foreign / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(CheckpointError, match=r"the model of '.*gpt2' loads only with code"):
        find_candidates([str(foreign)])
    command = ["substrate", "build", "--tokenizer", str(with_code), "-o", str(tmp_path / "substrate")]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, CheckpointError) and "only with code" in str(result.exception)


def planted(folder, name):
    (folder / name).write_bytes(pickle.dumps(RunsCode(), protocol=2))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "consolidated.00.pth"])
def test_a_folder_of_pickles_is_refused_by_name(foreign, text, name):
    (foreign / "model.safetensors").unlink()
    planted(foreign, name)
    for refused in (
        lambda: find_candidates([str(foreign)]),
        lambda: load_model(foreign),
        lambda: measure_health(foreign, text),
    ):
        with pytest.raises(FrozenGlyphError, match=f"{name}'.*convert it"):
            refused()


def test_a_configuration_without_weights_is_named(foreign):
    (foreign / "model.safetensors").unlink()
    with pytest.raises(
        FrozenGlyphError, match=f"{foreign.name}' holds a configuration without weights; fetch or write"
    ):
        load_model(foreign)


def test_our_folder_of_pickles_is_refused_by_every_command(experts, merged_folder, text, tmp_path):
    own, both = (
        shutil.copytree(folder, tmp_path / name) for folder, name in ((experts[0], "own"), (merged_folder, "both"))
    )
    for folder in (own, both):
        for path in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
            path.unlink()
        planted(folder, "pytorch_model.bin")
        change_json(folder / "config.json", transformers_weights=None)
    for refused in every_command(own, both, experts[1], text, tmp_path):
        with pytest.raises(FrozenGlyphError, match=r"pytorch_model\.bin'.*convert it"):
            refused()


def test_an_index_that_names_a_pickle_is_refused_by_every_command(foreign, experts, merged_folder, text, tmp_path):
    planted(foreign, "expert-0.bin")
    (foreign / "model.safetensors").rename(foreign / "rest.safetensors")
    index = {"metadata": {}, "weight_map": {"transformer.wte.weight": "expert-0.bin", "rest": "rest.safetensors"}}
    (foreign / "model.safetensors.index.json").write_text(json.dumps(index))
    own, both = (
        shutil.copytree(folder, tmp_path / name) for folder, name in ((experts[0], "own"), (merged_folder, "both"))
    )
    for folder in (own, both):
        planted(folder, "expert-0.bin")
        for path in folder.glob("*.index.json"):
            index = json.loads(path.read_text())
            path.write_text(json.dumps(index | {"weight_map": dict.fromkeys(index["weight_map"], "expert-0.bin")}))
    for refused in (
        lambda: find_candidates([str(foreign)]),
        lambda: measure_health(foreign, text),
        *every_command(own, both, experts[1], text, tmp_path),
    ):
        with pytest.raises(FrozenGlyphError, match=r"expert-0\.bin"):
            refused()


def every_command(own, both, other, text, tmp_path):
    """All that reads the weights of an expert ``own`` or of a merged model ``both``."""
    return [
        lambda: find_candidates([str(own)]),
        lambda: export_dense(own, tmp_path / "dense"),
        lambda: measure_health(own, text),
        lambda: merge_experts([own, other], tmp_path / "merged"),
        lambda: extract_expert(both, "ru", tmp_path / "extracted"),
        lambda: tune_head(both, tmp_path / "tuned", text=[text]),
        lambda: files_to_push(own),
        lambda: adopt_parent(Source(str(own)), tmp_path / "run"),
    ]


def test_pickles_beside_safetensors_do_not_matter(foreign):
    planted(foreign, "pytorch_model.bin")
    planted(foreign, "training_args.bin")
    assert load_model(find_candidates([str(foreign)])[0].folder)


def test_an_adapter_beside_a_model_does_not_take_its_place(foreign, experts, text):
    """transformers would load the base that it names, and score that."""
    change_json(foreign / "adapter_config.json", peft_type="LORA", base_model_name_or_path=str(experts[0]))
    for refused in (lambda: find_candidates([str(foreign)]), lambda: measure_health(foreign, text)):
        with pytest.raises(CheckpointError, match=r"adapter_config\.json'? (lies )?beside .* folder of its own"):
            refused()


def test_an_adapter_that_is_a_pickle_is_refused_by_name(foreign):
    """transformers adds an adapter that lies beside the weights."""
    change_json(foreign / "adapter_config.json", peft_type="LORA", base_model_name_or_path=str(foreign))
    torch.save({}, foreign / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin'.*convert it"):
        find_candidates([str(foreign)])


def test_a_model_loads_where_accelerate_is_not_installed(experts, monkeypatch):
    """As beside the base install and the extra app: transformers places no model by ``device_map`` without it."""
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setattr("transformers.integrations.accelerate.is_accelerate_available", lambda: False)
    model, _ = load_model(experts[0], "cpu")
    assert model.device.type == "cpu" and not model.training

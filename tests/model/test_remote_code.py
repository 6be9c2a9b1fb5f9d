"""A machine without this package loads checkpoints with ``trust_remote_code=True``, and only with it."""

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.configuration_frozen_glyph import TASKS

STRANGER = """
import json, sys

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "frozen_glyph":
            raise ImportError("frozen_glyph is not installed here")

sys.meta_path.insert(0, NoPackage())

import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, pipeline
from transformers.utils import logging

logging.disable_progress_bar()
torch.set_num_threads(1)
task = json.loads(sys.stdin.read())
ids = torch.tensor(task["ids"])
found = {}
for name, folder in task["folders"].items():
    refused = []
    for auto in (AutoConfig, AutoModel, AutoModelForCausalLM):
        try:
            auto.from_pretrained(folder, trust_remote_code=False)
        except ValueError as error:
            refused.append("trust_remote_code" in str(error))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    base = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    entry = {
        "refused": refused,
        "classes": [type(config).__name__, type(base).__name__, type(model).__name__],
        "modules": [type(part).__module__.split(".")[0] for part in (config, base, model)],
        "trainable": sorted(key for key, parameter in model.named_parameters() if parameter.requires_grad),
        "ids": tokenizer(task["text"])["input_ids"],
        "text": pipeline("text-generation", model=folder, trust_remote_code=True, device="cpu")(
            task["text"], max_new_tokens=5, do_sample=False
        )[0]["generated_text"],
    }
    tensors = {"logits": model(ids).logits, "states": base(ids).last_hidden_state}
    if name == "grown":
        first = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, growth_stage=1).eval()
        tensors["stage 1"] = first(ids).logits
    else:
        other = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, rule="posterior").eval()
        tensors["posterior"] = other(ids).logits
        entry["posterior"] = other.generate(ids, max_new_tokens=5, do_sample=False).tolist()
    for kind in task["tasks"][name]:
        auto, saved = getattr(transformers, f"AutoModelFor{kind}"), f"{name}-{kind}"
        auto.from_pretrained(folder, trust_remote_code=True).save_pretrained(saved)
        tensors[kind] = auto.from_pretrained(saved, trust_remote_code=True).eval()(ids)[0]
    model.save_pretrained(name)
    auto.from_pretrained(name, trust_remote_code=True)  # its code lies there too
    entry["tensors"] = {key: tensor.tolist() for key, tensor in tensors.items()}
    found[name] = entry
assert "frozen_glyph" not in sys.modules
sys.stdout.write("RESULT" + json.dumps(found))
"""

TEXT = "The cat"
TASKS_OF = {"grown": TASKS[:2], "merged": TASKS[2:]}


@pytest.fixture(scope="module")
def ids(token_ids):
    return token_ids(2, 7, seed=40)


@pytest.fixture(scope="module")
def stranger(experts, merged_folder, ids, tmp_path_factory):
    """What a process that cannot import frozen_glyph finds in a grown and a merged folder."""
    home = tmp_path_factory.mktemp("home")
    task = {"folders": {"grown": str(experts[1]), "merged": str(merged_folder)}, "ids": ids.tolist(), "text": TEXT}
    task["tasks"] = TASKS_OF
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER],
        input=json.dumps(task), capture_output=True, text=True, cwd=home, timeout=300,
        env={**os.environ, "HF_HOME": str(home), "HF_MODULES_CACHE": str(home / "modules"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.partition("RESULT")[2]) | {"home": home}


@pytest.mark.parametrize("kind", ["grown", "merged"])
def test_loading_is_refused_without_trust_remote_code(stranger, kind):
    assert stranger[kind]["refused"] == [True, True, True]


@pytest.mark.parametrize(("kind", "middle"), [("grown", ""), ("merged", "MoE")])
def test_classes_come_from_the_checkpoint(stranger, kind, middle):
    names = [f"FrozenGlyph{middle}{end}" for end in ("Config", "Model", "ForCausalLM")]
    assert stranger[kind]["classes"] == names
    assert stranger[kind]["modules"] == ["transformers_modules"] * 3


@torch.no_grad()
def test_a_grown_model_is_the_same_model_there(stranger, experts, ids):
    there, here = stranger["grown"]["tensors"], FrozenGlyphForCausalLM.from_pretrained(experts[1])
    first = FrozenGlyphForCausalLM.from_pretrained(experts[1], growth_stage=1)
    torch.testing.assert_close(torch.tensor(there["logits"]), here(ids).logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(there["states"]), here.model(ids).last_hidden_state, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(there["stage 1"]), first(ids).logits, atol=1e-6, rtol=0)
    assert stranger["grown"]["trainable"] == sorted(n for n, p in here.named_parameters() if p.requires_grad)


@torch.no_grad()
def test_merged_experts_are_the_same_model_there(stranger, merged_folder, ids):
    there, here = stranger["merged"]["tensors"], FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder)
    posterior = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule="posterior")
    torch.testing.assert_close(torch.tensor(there["logits"]), here(ids).logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(there["states"]), here.model(ids).last_hidden_state, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(there["posterior"]), posterior(ids).logits, atol=1e-5, rtol=0)
    generated = posterior.generate(ids, max_new_tokens=5, do_sample=False).tolist()
    assert stranger["merged"]["posterior"] == generated
    assert stranger["merged"]["trainable"] == ["lm_head.biases", "lm_head.weight"]


@torch.no_grad()
@pytest.mark.parametrize(("kind", "task"), [(kind, task) for kind, tasks in TASKS_OF.items() for task in tasks])
def test_a_task_head_of_there_is_the_same_here(stranger, ids, kind, task):
    """Made and saved by the code of a folder, loaded by the package."""
    here = getattr(transformers, f"AutoModelFor{task}").from_pretrained(stranger["home"] / f"{kind}-{task}").eval()
    assert type(here).__module__ == "frozen_glyph.model.tasks_frozen_glyph"
    torch.testing.assert_close(torch.tensor(stranger[kind]["tensors"][task]), here(ids)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["grown", "merged"])
def test_tokenizer_and_pipeline_there(stranger, tokenizer, kind):
    assert stranger[kind]["ids"] == tokenizer(TEXT)["input_ids"]
    assert stranger[kind]["text"].startswith(TEXT)
    assert len(stranger[kind]["text"]) > len(TEXT)

"""A model in two processes that divide its Linears."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

PARALLEL = """
import json, sys, torch
import torch.distributed as dist
import frozen_glyph
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

folder, options, ids, out = json.loads(sys.argv[1])
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto", **options).eval()
ids = torch.tensor(ids)
tensors = {
    "logits": model(ids).logits,
    "vectors": model.get_input_embeddings()(ids),
    "whole": torch.tensor([p.numel() for p in model.model.parameters()]).sum(),
    "mine": torch.tensor([getattr(p, "to_local", lambda: p)().numel() for p in model.model.parameters()]).sum(),
}
tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
save_file(tensors, f"{out}/{dist.get_rank()}.safetensors")
dist.destroy_process_group()
"""


@pytest.fixture
def run_in_two(tmp_path):
    """``run_in_two(folder, ids, **options)``: what each of two processes (gloo) has of a model that they divide."""

    def run(folder, ids, **options):
        script = tmp_path / "parallel.py"
        script.write_text(PARALLEL)
        arguments = json.dumps([str(folder), options, ids.tolist(), str(tmp_path)])
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *launch, script, arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]

    return run

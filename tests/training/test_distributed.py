"""Two processes (gloo) train what one does, without sending the substrate at each step; FSDP2 shards mixed blocks."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import fully_shard
from transformers import set_seed

from frozen_glyph import grow
from frozen_glyph.training.data import TokenWindows
from frozen_glyph.training.train import Phase, frozen_digest, train_phase
from frozen_glyph.training.trainer import load_trainable, trainable, whole

pytestmark = pytest.mark.slow  # three interpreters start
STEPS = 6


@pytest.fixture(scope="module")
def launched(build_model, substrate, make_training, tmp_path_factory):
    """(folder, model, windows, phase, recipe): the two processes of this file have written to ``folder``."""
    folder = tmp_path_factory.mktemp("distributed")
    set_seed(0)
    model = grow(build_model(seed=5, num_hidden_layers=1), 1)
    ids = np.random.default_rng(0).integers(3, substrate.vocab_size, 21 * 32).astype(np.uint16)
    recipe = make_training(save_steps=2, eval_steps=3)
    np.save(folder / "tokens.npy", ids)
    arguments = model, TokenWindows(ids, 32), Phase(STEPS, 1e-2, seed=0), recipe
    (folder / "arguments").write_bytes(pickle.dumps(arguments))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, *arguments


def assert_close(stored: dict, model, digest: str) -> None:
    assert stored.keys() == trainable(model).keys()
    for name, tensor in trainable(model).items():
        # Only the order of summation differs; Adam makes a little more of it where gradients are almost zero.
        torch.testing.assert_close(stored[name], tensor.detach(), rtol=1e-3, atol=1e-3)
    assert frozen_digest(model) == digest


def test_two_processes_train_what_one_does(launched, tmp_path):
    folder, model, windows, phase, recipe = launched
    model, digest = copy.deepcopy(model), frozen_digest(model)
    metrics = train_phase(model, windows, phase, recipe, tmp_path / "one", held_out=windows)
    found = json.loads((folder / "ddp.json").read_text())
    assert found["tokens"] == metrics["tokens"] == STEPS * recipe.batch_tokens
    for mine, theirs in zip(found["history"], metrics["history"], strict=True):
        assert mine["step"] == theirs["step"]
        for key in theirs.keys() & {"loss", "eval_loss"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4)
    assert_close(load_file(folder / "ddp.safetensors"), model, digest)
    # Each process writes its random state, the first one everything else.
    names = {path.name for path in (folder / "two" / "checkpoint-6").iterdir()}
    assert names == {
        "manifest.json", "model.safetensors", "optimizer.pt", "rng_state_0.pth", "rng_state_1.pth", "scheduler.pt",
        "trainer_state.json",
    }  # fmt: skip
    assert len(json.loads((folder / "two" / "checkpoint-6" / "manifest.json").read_text())["files"]) == 6


def test_each_process_reads_its_windows_of_one_mapped_file(launched):
    """Every step of both together takes the windows of a step of one process, none of them twice."""
    folder, _, windows, _, recipe = launched
    first, second = (json.loads((folder / f"read-{rank}.json").read_text()) for rank in range(2))
    share = recipe.batch_size // 2
    assert len(first) == len(second) == STEPS * share
    for step in range(STEPS // 2):  # as many as one permutation of the windows fills
        both = first[step * share : (step + 1) * share] + second[step * share : (step + 1) * share]
        assert len(set(both)) == recipe.batch_size
    whole = len(windows) // recipe.batch_size * share
    assert not set(first[:whole]) & set(second[:whole])


def test_fully_sharded_step_is_the_step_of_one_process(launched):
    folder, model, windows, _, _ = launched
    model, digest = copy.deepcopy(model), frozen_digest(model)
    loss = step(model, windows, rows=slice(0, 4))
    assert json.loads((folder / "fsdp2.json").read_text())["loss"] == pytest.approx(loss, rel=1e-5)
    assert_close(load_file(folder / "fsdp2.safetensors"), model, digest)


def step(model, windows, rows: slice) -> float:
    """One SGD step on some windows; returns the loss before it."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    ids = torch.stack([windows[row]["input_ids"] for row in range(rows.start, rows.stop)])
    loss = model(input_ids=ids, labels=ids, skip_logits=True).loss
    loss.backward()
    optimizer.step()
    return loss.item()


class ReadWindows(TokenWindows):
    """Windows that record which are read."""

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def ddp_process(folder: Path) -> None:
    """``train_phase`` in one of two processes; watches whether DistributedDataParallel sends buffers at a step."""
    model, windows, phase, recipe = pickle.loads((folder / "arguments").read_bytes())
    wrapped, sent = [], []
    ddp = torch.nn.parallel.DistributedDataParallel
    initialise = ddp.__init__
    ddp.__init__ = lambda self, *args, **kwargs: (initialise(self, *args, **kwargs), wrapped.append(self))[0]
    ddp._sync_buffers = lambda self: sent.append(self)
    read: list[int] = []
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", mode="r")  # one copy of its pages for both
    mapped = ReadWindows(tokens, 32)
    mapped.read = read
    metrics = train_phase(model, mapped, phase, recipe, folder / "two", held_out=windows)
    assert isinstance(mapped.tokens, np.memmap)
    (folder / f"read-{torch.distributed.get_rank()}.json").write_text(json.dumps(read))
    assert len(wrapped) == 1 and not wrapped[0].broadcast_buffers and not wrapped[0].find_unused_parameters
    assert "model.embed_tokens.packed_bits" in dict(wrapped[0].module.named_buffers()) and sent == []
    store(folder / "ddp", metrics, trainable(model))


def fsdp2_process(folder: Path) -> None:
    """One step with every block sharded, the frozen one as well, on this process's half of the batch."""
    rank = torch.distributed.get_rank()
    original, windows, _, _ = pickle.loads((folder / "arguments").read_bytes())
    model = copy.deepcopy(original)
    for block in model.model.layers:
        fully_shard(block)
    fully_shard(model)
    before = frozen_digest(model)
    assert before == frozen_digest(original)
    loss = torch.tensor(step(model, windows, rows=slice(2 * rank, 2 * rank + 2)))
    assert frozen_digest(model) == before
    torch.distributed.all_reduce(loss)
    gathered = {name: whole(parameter).detach() for name, parameter in trainable(model).items()}
    load_trainable(original, gathered, folder)  # as train_phase brings them back
    store(folder / "fsdp2", {"loss": loss.item() / 2}, trainable(original))


def store(path: Path, metrics: dict, tensors: dict) -> None:
    if torch.distributed.get_rank() == 0:
        plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(plain, path.with_suffix(".safetensors"))
        path.with_suffix(".json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    torch.set_num_threads(1)
    ddp_process(Path(sys.argv[1]))
    fsdp2_process(Path(sys.argv[1]))
    torch.distributed.destroy_process_group()

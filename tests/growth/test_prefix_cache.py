"""States in place of the frozen blocks: the same logits, kept in bfloat16 through kills, truncation and damage."""

import itertools
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth import prefix_cache
from frozen_glyph.growth.lora import add_adapters
from frozen_glyph.growth.prefix_cache import PrefixCache, prefix_cache_bytes
from frozen_glyph.growth.recipe import LoraRecipe
from frozen_glyph.model.modeling_frozen_glyph import CACHE
from frozen_glyph.training.data import TokenWindows, collate

LENGTH, WINDOWS = 24, 10
LOSS_TOLERANCE = 0.01  # nats a token; bfloat16 keeps 8 bits of each number
BOUNDARY = 3


@pytest.fixture
def model(build_model):
    return build_model(seed=8, num_hidden_layers=3, num_frozen_layers=2)


class Windows(TokenWindows):
    """Windows that say which they are, and whose positions restart after each boundary where asked."""

    def __init__(self, tokens, restart):
        super().__init__(tokens, LENGTH)
        self.restart = restart

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if self.restart:
            starts = [0, *(1 + (item["input_ids"] == BOUNDARY).nonzero().flatten()).tolist(), LENGTH]
            lengths = [end - begin for begin, end in itertools.pairwise(starts)]
            item["position_ids"] = torch.cat([torch.arange(length) for length in lengths])
        return item | {"index": index}


@pytest.fixture(params=[False, True], ids=["one document", "documents apart"])
def windows(request, substrate):
    ids = np.random.default_rng(1).integers(4, substrate.vocab_size, WINDOWS * LENGTH).astype(np.uint16)
    ids[::7] = BOUNDARY
    return Windows(ids, restart=request.param)


def batch(windows, index):
    return collate([windows[at] for at in index])


def without_index(inputs):
    return {name: tensor for name, tensor in inputs.items() if name != "index"}


def test_logits_and_gradients_with_prefix_states_equal_the_full_forward(model, windows):
    inputs = without_index(batch(windows, [0, 3]))
    states = model.model.prefix(**{name: tensor for name, tensor in inputs.items() if name != "labels"})
    gradients = []
    for arguments in (inputs, inputs | {"prefix_states": states}):
        output = model(**arguments, use_cache=False)
        output.loss.backward()
        trainable = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        gradients.append((output.logits.detach(), trainable))
        model.zero_grad()
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert gradients[0][1].keys() == gradients[1][1].keys()
    assert not any(name.startswith(("model.layers.0", "model.layers.1")) for name in gradients[1][1])
    assert all(torch.equal(gradient, gradients[1][1][name]) for name, gradient in gradients[0][1].items())


def test_prefix_states_go_with_padding(model, token_ids):
    ids, mask = token_ids(2, 12), torch.ones(2, 12, dtype=torch.long)
    mask[0, :5] = 0
    states = model.model.prefix(ids, attention_mask=mask)
    full = model(ids, attention_mask=mask).logits
    assert torch.equal(model(attention_mask=mask, prefix_states=states).logits, full)
    assert not torch.allclose(model(prefix_states=states).logits, full, atol=1e-3)
    assert torch.equal(model.model(prefix_states=states, attention_mask=mask)[0], model.model(ids, mask)[0])


def test_prefix_states_that_do_not_fit_are_refused(model, build_model, token_ids):
    ids = token_ids(2, 12)
    states = model.model.prefix(ids)
    with pytest.raises(ValueError, match=r"of shape \(2, 11, 48\) must be \[B, T, D\] with \[B, T\] = \(2, 12\)"):
        model(ids, prefix_states=states[:, 1:])
    with pytest.raises(ValueError, match=r"of shape \(2, 12, 47\) must be \[B, T, D\].* D = hidden_size = 48"):
        model(prefix_states=states[..., 1:])
    with pytest.raises(ValueError, match=r"of shape \(12, 48\) must be"):
        model(prefix_states=states[0])
    with pytest.raises(ValueError, match=r"together with inputs_embeds; leave one of them out"):
        model(inputs_embeds=states, prefix_states=states)
    with pytest.raises(ValueError, match=r"together with a cache of keys and values"):
        cache = model(ids[:, :4], use_cache=True)
        model(ids, prefix_states=states, cache=cache[CACHE])
    with pytest.raises(ValueError, match=r"config\.num_frozen_layers=0; give input_ids"):
        build_model(num_frozen_layers=0)(ids, prefix_states=states)


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_cached_steps_have_the_loss_of_uncached_ones(model, windows, tmp_path, on_disk, bf16):
    cache = PrefixCache(model, windows, tmp_path if on_disk else None, "model and text", bf16)
    visits = []
    for _ in range(2):
        for index in ([4, 1, 7], [0, 9, 2]):
            inputs = batch(windows, index)
            cached = cache(inputs)
            assert "index" in inputs and "index" not in cached  # the batch itself is left as it was
            assert cached["prefix_states"].dtype == torch.bfloat16
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                visits.append(model(**cached).loss)
                full = model(**without_index(inputs), use_cache=False).loss
            assert 0 < abs(visits[-1] - full) < LOSS_TOLERANCE
    assert visits[:2] == visits[2:]  # the first visit is rounded like every other


def test_states_are_computed_once_and_do_not_depend_on_the_batch(model, windows, monkeypatch):
    cache = PrefixCache(model, windows, None, "x")
    calls = []
    compute = model.model.prefix
    monkeypatch.setattr(model.model, "prefix", lambda **inputs: calls.append(1) or compute(**inputs))
    first = cache(batch(windows, [3, 5, 6]))["prefix_states"]
    assert torch.equal(cache(batch(windows, [6, 3]))["prefix_states"], first[[2, 0]])
    assert len(calls) == 3
    alone = PrefixCache(model, windows, None, "x")(batch(windows, [5]))["prefix_states"]
    assert torch.equal(alone[0], first[1])


def filled(model, windows, folder, identity="x"):
    """A cache on disk that has seen every window; and what it gave."""
    cache = PrefixCache(model, windows, folder, identity)
    return cache, cache(batch(windows, range(WINDOWS)))["prefix_states"]


def test_a_later_run_reads_what_is_on_disk(model, windows, tmp_path, monkeypatch):
    cache, states = filled(model, windows, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == cache.nbytes + 8 * WINDOWS
    assert cache.nbytes == prefix_cache_bytes(WINDOWS, LENGTH, 48) == WINDOWS * LENGTH * 48 * 2
    monkeypatch.setattr(model.model, "prefix", None)  # nothing is left to compute
    assert torch.equal(filled(model, windows, tmp_path)[1], states)


@pytest.mark.parametrize("damage", ["bit", "cut states", "cut checksums", "empty"])
def test_damaged_and_truncated_files_are_computed_again(model, windows, tmp_path, damage):
    cache, states = filled(model, windows, tmp_path)
    del cache
    checksums, file = sorted(tmp_path.iterdir())
    content = bytearray(file.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    elif damage == "cut states":
        file.write_bytes(content[: len(content) // 3])
    elif damage == "cut checksums":
        checksums.write_bytes(checksums.read_bytes()[:20])
    else:
        file.write_bytes(b"")
    again, recomputed = filled(model, windows, tmp_path)
    assert torch.equal(recomputed, states)
    assert file.read_bytes() == again.states.view(torch.uint8).numpy().tobytes()


def test_another_identity_precision_depth_or_length_never_meets_these_files(model, build_model, windows, tmp_path):
    filled(model, windows, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    shorter = Windows(windows.tokens[: LENGTH * 4], windows.restart)
    for arguments in (
        (model, windows, tmp_path, "another model or text"),
        (model, windows, tmp_path, "x", True),
        (build_model(seed=8, num_hidden_layers=3, num_frozen_layers=1), windows, tmp_path, "x"),
        (model, shorter, tmp_path, "x"),
    ):
        PrefixCache(*arguments)
        found = {path.name for path in tmp_path.iterdir()}
        assert len(found - names) == 2
        names = found


def fill_for_ever(model, windows, folder, started):
    torch.set_num_threads(1)
    cache = PrefixCache(model, windows, folder, "x")
    while True:
        for window in range(WINDOWS):
            cache(batch(windows, [window]))
            started.set()
        cache.trusted = [False] * WINDOWS
        cache.checksums.zero_()


@pytest.mark.parametrize("delay", [0.0, 0.004, 0.013])
def test_what_a_killed_run_left_is_whole_or_absent(model, windows, tmp_path, delay):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=fill_for_ever, args=(model, windows, tmp_path, started))
    process.start()
    assert started.wait(60)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = PrefixCache(model, windows, tmp_path, "x")
    held = [window for window in range(WINDOWS) if left.holds(window)]
    expected = filled(model, windows, tmp_path / "undisturbed")[1]
    assert all(torch.equal(left.states[window], expected[window]) for window in held)
    assert torch.equal(left(batch(windows, range(WINDOWS)))["prefix_states"], expected)


def test_states_are_written_before_their_checksum(model, windows, tmp_path, monkeypatch):
    """A kill between the two leaves a window that counts as empty."""
    cache = PrefixCache(model, windows, tmp_path, "x")

    class Killed(BaseException):
        pass

    def kill(states):
        raise Killed

    monkeypatch.setattr(cache, "holds", lambda window: False)
    monkeypatch.setattr(prefix_cache, "checksum", kill)
    with pytest.raises(Killed):
        cache(batch(windows, [2]))
    monkeypatch.undo()
    left = PrefixCache(model, windows, tmp_path, "x")
    assert left.states[2].abs().max() > 0 and not left.holds(2)


def test_too_little_space_is_said_up_front(model, windows, tmp_path, monkeypatch):
    needed = prefix_cache_bytes(WINDOWS, LENGTH, 48)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(prefix_cache.shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(FrozenGlyphError, match=rf"needs {needed:,} bytes for .*states', {needed - 1:,} are free; free"):
        PrefixCache(model, windows, tmp_path, "x")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(prefix_cache.os, "sysconf", lambda name: 100)
    with pytest.raises(FrozenGlyphError, match=rf"memory needs {needed:,} bytes, the machine has 10,000; say disk"):
        PrefixCache(model, windows, None, "x")


def test_what_has_no_constant_prefix_is_refused(model, build_model, windows):
    def refused(model, match, windows=windows):
        with pytest.raises(FrozenGlyphError, match=match):
            PrefixCache(model, windows, None, "x")

    refused(build_model(num_frozen_layers=0), r"no states to keep: the model has no frozen blocks")
    refused(model, r"TokenWindows\(with_index=True\)", TokenWindows(windows.tokens, LENGTH))
    refused(build_model(num_hidden_layers=3, num_frozen_layers=1, attention_dropout=0.1), r"attention_dropout=0\.1")
    add_adapters(model, LoraRecipe())
    refused(model, r"its frozen blocks have adapters that train")


def test_a_batch_of_other_windows_is_refused(model, windows):
    inputs = batch(windows, [1, 2])
    inputs["index"] = [1, 3]
    with pytest.raises(FrozenGlyphError, match=r"window 3 of the batch is not the window 3 of this cache"):
        PrefixCache(model, windows, None, "x")(inputs)

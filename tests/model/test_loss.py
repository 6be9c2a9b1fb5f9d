"""The loss without logits is transformers' own loss, in value and gradients, and makes no tensor as large as them."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.loss.loss_utils import ForCausalLMLoss

from frozen_glyph import FrozenGlyphMoEForCausalLM
from frozen_glyph.model import head_frozen_glyph, loss_frozen_glyph, reading_frozen_glyph
from frozen_glyph.model.loss_frozen_glyph import chunked_causal_loss
from frozen_glyph.model.rules_frozen_glyph import RULES

BATCH, LENGTH, WIDTH, VOCAB = 3, 11, 16, 50


@pytest.fixture(params=[4, 10, 1000], ids="chunk{}".format)
def chunks(request, monkeypatch):
    """Chunks of so many tokens; the vocabulary in blocks of so many ids, and rows one by one where chunks are small."""
    limit_tokens(monkeypatch, request.param)
    monkeypatch.setattr(loss_frozen_glyph, "BLOCK_IDS", 2 * request.param)
    monkeypatch.setattr(loss_frozen_glyph, "ROW_BYTES", 40 * request.param)


def limit_tokens(monkeypatch, count):
    """Of a chunk, whatever their logits take."""
    for name, value in (
        ("CHUNK_BYTES", 0),
        ("ROUNDED_CHUNK_BYTES", 0),
        ("LEAST_TOKENS", count),
        ("CHECKPOINTED_TOKENS", count),
    ):
        monkeypatch.setattr(loss_frozen_glyph, name, value)


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    labels = torch.randint(VOCAB, (BATCH, LENGTH))
    labels[0, :4] = labels[2, -1] = -100
    return torch.randn(BATCH, LENGTH, WIDTH), torch.nn.Linear(WIDTH, VOCAB), labels


def whole_loss(states, head, labels, **kwargs):
    """The reference: all logits at once."""
    return ForCausalLMLoss(logits=head(states), labels=labels, vocab_size=VOCAB, **kwargs)


def loss_and_gradients(compute, states, head, labels, scale=1.0, autocast=False, **kwargs):
    states, head = states.clone().requires_grad_(), copy.deepcopy(head)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = compute(states, head, labels, **kwargs)
    (scale * loss).backward()
    assert loss.dtype == torch.float32
    return [loss.detach(), states.grad, head.weight.grad, head.bias.grad]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kwargs", [{}, {"num_items_in_batch": 70}, {"num_items_in_batch": torch.tensor(70)}], ids=str)
def test_equals_the_loss_of_whole_logits(inputs, chunks, kwargs, autocast):
    found = loss_and_gradients(chunked_causal_loss, *inputs, scale=3.0, autocast=autocast, **kwargs)
    expected = loss_and_gradients(whole_loss, *inputs, scale=3.0, autocast=autocast, **kwargs)
    for mine, theirs in zip(found, expected, strict=True):
        # bf16 rounds each product to 8 bits; both ways stay that close to each other
        torch.testing.assert_close(mine, theirs, rtol=2e-2 if autocast else 1e-5, atol=2e-3 if autocast else 1e-6)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)  # the loss itself is never rounded


def test_accumulated_micro_batches_are_one_batch(inputs, chunks):
    states, head, labels = inputs
    count = labels[:, 1:].ne(-100).sum()
    whole = loss_and_gradients(whole_loss, states, head, labels)
    rows = [slice(row, row + 1) for row in range(BATCH)]
    parts = [
        loss_and_gradients(chunked_causal_loss, states[row], head, labels[row], num_items_in_batch=count)
        for row in rows
    ]
    for place in (0, 2, 3):  # loss, gradients of weight and bias
        torch.testing.assert_close(sum(part[place] for part in parts), whole[place])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("block_ids", [7, 10, 1000])
def test_rounded_losses_of_tokens_are_those_of_whole_logits(inputs, monkeypatch, dtype, block_ids):
    """Without gradients nothing but products is rounded, so they are nearer the float32 loss than whole logits are."""
    monkeypatch.setattr(head_frozen_glyph, "BLOCK_TOKENS", block_ids)
    monkeypatch.setattr(head_frozen_glyph, "BLOCK_STATES", 4)
    states, head, labels = inputs[0].to(dtype), inputs[1].to(dtype), inputs[2]
    head.bias.data[:20] = -torch.inf  # whole blocks that say nothing
    labels[labels >= 0] = labels[labels >= 0] % 30 + 20
    with torch.no_grad():
        logits = torch.nn.functional.linear(states.float(), head.weight.float(), head.bias.float())[:, :-1]
        expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
    found = chunked_causal_loss(states, head, labels, reduction="none")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * torch.finfo(dtype).eps)


def test_rounded_losses_of_likely_tokens_are_not_below_zero():
    """Their logits are large, so one that is rounded beside one that is not would differ by a tenth."""
    torch.manual_seed(0)
    head = torch.nn.Linear(64, VOCAB, dtype=torch.bfloat16)
    states = 60 * torch.randn(1, 200, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = torch.nn.functional.linear(states, head.weight, head.bias)[:, :-1]
    labels = torch.nn.functional.pad(logits.argmax(-1), (1, 0), value=-100)
    found = chunked_causal_loss(states, head, labels, reduction="none")
    expected = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels[:, 1:], reduction="none")
    assert found.min() >= 0 and (found < 1e-3).any() and found.mean() == pytest.approx(expected.mean().item(), rel=0.05)


@pytest.mark.parametrize("frozen", ["states", "weight", "bias", "no bias"])
def test_only_what_trains_gets_a_gradient(inputs, frozen):
    states, head, labels = inputs
    if frozen == "no bias":
        head = torch.nn.Linear(WIDTH, VOCAB, bias=False)
    elif frozen != "states":
        getattr(head, frozen).requires_grad_(False)
    states.requires_grad_(frozen != "states")
    chunked_causal_loss(states, head, labels).backward()
    for tensor in (states, *head.parameters()):
        assert (tensor.grad is not None) == tensor.requires_grad


def test_any_other_head_is_run_again_in_the_backward_pass(inputs, chunks):
    """Here the same head behind a scale, as an adapter would wrap it."""

    class Wrapped(torch.nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head, self.weight, self.bias = head, head.weight, head.bias

        def forward(self, states):
            return 2 * self.head(states)

    states, head, labels = inputs
    wrapped = Wrapped(head)
    found = loss_and_gradients(chunked_causal_loss, states, wrapped, labels, scale=3.0)
    expected = loss_and_gradients(whole_loss, states, wrapped, labels, scale=3.0)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation made; only those ``width`` wide and of
    ``dtype``, if given."""

    def __init__(self, width=None, dtype=None):
        super().__init__()
        self.width, self.dtype, self.elements = width, dtype, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if not isinstance(tensor, torch.Tensor):
                continue
            if self.width in (None, *tensor.shape[-1:]) and self.dtype in (None, tensor.dtype):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("grad", [True, False])
def test_logits_are_never_whole(inputs, monkeypatch, grad):
    limit_tokens(monkeypatch, 8)
    with torch.set_grad_enabled(grad), Largest() as largest:
        loss = chunked_causal_loss(*inputs)
        if grad:
            loss.backward()
    assert largest.elements == max(8 * VOCAB, WIDTH * VOCAB)
    with torch.set_grad_enabled(grad), Largest() as largest:
        whole_loss(*inputs)
    assert largest.elements >= BATCH * LENGTH * VOCAB


def test_scoring_many_tokens_in_rounded_numbers_gathers_few_rows_of_the_head_at_once(monkeypatch):
    """Of 1,000 tokens 16: more would be hundreds of megabytes where a model is wide."""
    limit_tokens(monkeypatch, 8)
    head, labels = torch.nn.Linear(WIDTH, VOCAB, dtype=torch.bfloat16), torch.randint(VOCAB, (1, 1001))
    states = torch.randn(1, 1001, WIDTH, dtype=torch.bfloat16)
    with torch.no_grad(), Largest(WIDTH, torch.float32) as largest:
        chunked_causal_loss(states, head, labels, reduction="none")
    assert largest.elements == 16 * WIDTH


def test_skipping_logits_keeps_the_loss(build_model, token_ids):
    model = build_model()
    ids = token_ids(2, 20)
    with torch.no_grad():
        usual, fused = (model(input_ids=ids, labels=ids, skip_logits=skip) for skip in (False, True))
    assert fused.logits is None
    torch.testing.assert_close(fused.loss, usual.loss)
    with pytest.raises(ValueError, match="skip_logits=True needs labels"):
        model(input_ids=ids, skip_logits=True)


@pytest.mark.parametrize("rule", ["mean", "weighted"])
def test_merged_model_without_logits(merged_folder, token_ids, rule):
    """Loss and gradients of the joint head, the only part that trains."""
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
    if rule == "weighted":
        model.config.expert_weights = [1.5, -0.25]
    ids, gradients = token_ids(2, 20), []
    for skip in (False, True):
        output = model(input_ids=ids, labels=ids, skip_logits=skip)
        output.loss.backward()
        trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert trained.keys() == {"lm_head.weight", "lm_head.biases"}
        gradients.append({"loss": output.loss.detach()} | trained)
        model.zero_grad()
    assert output.logits is None
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


def test_no_rule_makes_all_experts_logits_at_once(merged_folder, token_ids, monkeypatch):
    """Of the logits, only the result is whole; without logits to keep, or for the loss alone, nothing is."""
    monkeypatch.setattr(reading_frozen_glyph, "PIECE_TOKENS", 8)
    monkeypatch.setattr(head_frozen_glyph, "BLOCK_STATES", 8)
    limit_tokens(monkeypatch, 8)
    ids = token_ids(2, 100)
    for rule in RULES:
        model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
        vocab = model.config.vocab_size
        with torch.no_grad(), Largest(vocab) as largest:
            model(ids)
        assert largest.elements == ids.numel() * vocab
        with torch.no_grad(), Largest(vocab) as largest:
            model(ids, logits_to_keep=1)
        assert largest.elements < ids.numel() * vocab / 2  # no more than the head's weight
        if rule in ("mean", "weighted"):
            with torch.no_grad(), Largest(vocab) as largest:
                model(ids, labels=ids, skip_logits=True)
            assert largest.elements < ids.numel() * vocab / 2  # no more than the head's weight
        else:
            with pytest.raises(ValueError, match=f"needs one of the rules mean, weighted.*rule='{rule}'"):
                model(ids, labels=ids, skip_logits=True)


@pytest.mark.parametrize("target", ["lm_head", "all-linear"])
def test_adapters_on_a_merged_model(merged_folder, token_ids, tmp_path, target):
    """peft finds the joint head by name, and leaves it out of ``all-linear``."""
    peft = pytest.importorskip("peft")
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder)
    ids = token_ids(2, 20)
    before = model(ids).logits
    config = peft.LoraConfig(r=4, target_modules=target if target == "all-linear" else [target], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    names = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert {".lm_head." in name for name in names} == {target == "lm_head"}
    torch.testing.assert_close(adapted(ids).logits, before)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    losses = []
    for skip in (False, True, False):
        loss = adapted(ids, labels=ids, skip_logits=skip).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]  # with and without logits, it learns
    with torch.no_grad():
        usual, fused = (adapted(ids, labels=ids, skip_logits=skip).loss for skip in (False, True))
    torch.testing.assert_close(fused, usual)
    if target == "lm_head":
        model.config.rule = "posterior"
        with pytest.raises(ValueError, match="which an adapter on lm_head mixes; merge the adapter"):
            adapted(ids)
        model.config.rule = "mean"
    expected = adapted(ids).logits
    merged = adapted.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path)
    for rule in RULES:
        FrozenGlyphMoEForCausalLM.from_pretrained(tmp_path, rule=rule)(ids)

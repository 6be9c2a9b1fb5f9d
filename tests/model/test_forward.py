"""The forward pass against a slow reference in plain numpy loops, and what else ``forward`` promises."""

import math

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from frozen_glyph.model.modeling_frozen_glyph import CACHE

CHECKPOINT_KEYS = {
    "model.embed_tokens.packed_bits": (340, 128),
    "model.embed_tokens.center": (1024,),
    "model.embed_tokens.gain": (48,),
    "model.embed_tokens.projection": (1024, 48),
    "model.layers.0.input_layernorm.weight": (48,),
    "model.layers.0.input_layernorm.bias": (48,),
    "model.layers.0.self_attn.q_proj.weight": (48, 48),
    "model.layers.0.self_attn.k_proj.weight": (48, 48),
    "model.layers.0.self_attn.v_proj.weight": (48, 48),
    "model.layers.0.self_attn.o_proj.weight": (48, 48),
    "model.layers.0.post_attention_layernorm.weight": (48,),
    "model.layers.0.post_attention_layernorm.bias": (48,),
    "model.layers.0.mlp.fc_in.weight": (192, 48),
    "model.layers.0.mlp.fc_in.bias": (192,),
    "model.layers.0.mlp.fc_out.weight": (48, 192),
    "model.layers.0.mlp.fc_out.bias": (48,),
    "model.norm.weight": (48,),
    "model.norm.bias": (48,),
    "lm_head.weight": (340, 48),
    "lm_head.bias": (340,),
}


@pytest.fixture(scope="module")
def model(build_model):
    return build_model(seed=3, num_hidden_layers=2, num_attention_heads=3)


def layer_norm(x, weight, bias):
    return (x - x.mean()) / math.sqrt(x.var() + 1e-5) * weight + bias


def gelu(x):
    return np.array([0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x])


def rotated(x, position):
    """A head's vector with pair (k, k + K / 2) turned by position / 10000 ** (2 k / K)."""
    half, turned = len(x) // 2, np.empty_like(x)
    for k in range(half):
        angle = position * 10000.0 ** (-2 * k / len(x))
        turned[k] = x[k] * math.cos(angle) - x[k + half] * math.sin(angle)
        turned[k + half] = x[k + half] * math.cos(angle) + x[k] * math.sin(angle)
    return turned


def attention(states, part, heads):
    """Causal attention, one head and one position at a time."""
    size = states.shape[1] // heads
    outputs = np.zeros_like(states)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        queries, keys, values = (states @ part(f"self_attn.{name}_proj.weight")[own].T for name in "qkv")
        for now in range(len(states)):
            query = rotated(queries[now], now)
            scores = [query @ rotated(keys[then], then) / math.sqrt(size) for then in range(now + 1)]
            shares = np.exp(np.array(scores) - max(scores))
            outputs[now, own] = (shares / shares.sum()) @ values[: now + 1]
    return outputs @ part("self_attn.o_proj.weight").T


def reference_logits(model, vectors):
    """Logits [T, V] in float64 from the stored tensors and the tokens' vectors [T, D]."""
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    states = vectors.astype(np.float64)
    for layer in range(model.config.num_hidden_layers):

        def part(name, layer=layer):
            return weights[f"model.layers.{layer}.{name}"]

        normed = [layer_norm(x, part("input_layernorm.weight"), part("input_layernorm.bias")) for x in states]
        states = states + attention(np.array(normed), part, model.config.num_attention_heads)
        for row, x in enumerate(states):
            x = layer_norm(x, part("post_attention_layernorm.weight"), part("post_attention_layernorm.bias"))
            x = gelu(part("mlp.fc_in.weight") @ x + part("mlp.fc_in.bias"))
            states[row] += part("mlp.fc_out.weight") @ x + part("mlp.fc_out.bias")
    normed = np.array([layer_norm(x, weights["model.norm.weight"], weights["model.norm.bias"]) for x in states])
    return normed @ weights["lm_head.weight"].T + weights["lm_head.bias"]


def test_logits_equal_the_reference(model, substrate, token_ids):
    ids = token_ids(2, 11)
    logits = model(ids).logits.detach().numpy()
    for row in range(2):
        expected = reference_logits(model, substrate.reference_vectors(ids[row]))
        np.testing.assert_allclose(logits[row], expected, atol=1e-4)


def test_checkpoint_keys(build_model):
    """Written by hand: a change here makes every published checkpoint unreadable."""
    found = {name: tuple(tensor.shape) for name, tensor in build_model(num_hidden_layers=1).state_dict().items()}
    assert found == CHECKPOINT_KEYS


def test_eager_equals_sdpa(model, token_ids):
    ids, mask = token_ids(2, 13), torch.ones(2, 13, dtype=torch.long)
    mask[0, :4] = 0
    results = []
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        results.append(model(ids, attention_mask=mask).logits[mask.bool()])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_a_token_sees_only_what_is_before_it(model, token_ids):
    ids = token_ids(1, 12)
    changed = ids.clone()
    changed[0, 7] = 5 if ids[0, 7] != 5 else 6
    before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(before[:, :7], after[:, :7], atol=1e-5, rtol=1e-5)
    assert (before[:, 7:] - after[:, 7:]).abs().amax(-1).min() > 1e-2


def test_vectors_can_be_given_instead_of_ids(model, token_ids):
    ids = token_ids(2, 6)
    assert torch.equal(model(inputs_embeds=model.substrate(ids)).logits, model(ids).logits)
    for arguments in ({}, {"input_ids": ids, "inputs_embeds": model.substrate(ids)}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**arguments)


def test_vectors_from_the_substrate_fit_a_model_of_any_precision(build_model, token_ids):
    """Looked up outside, they are float32, whatever the blocks compute in."""
    model, ids = build_model(seed=3).to(torch.bfloat16), token_ids(1, 6)
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, model(ids).logits)


def test_blocks_run_without_a_substrate(build_model, token_ids):
    """peft's shadow takes a part of the model, and gives it the whole model's vectors, in training too."""
    model = build_model(seed=3)
    vectors, expected = model.substrate(token_ids(1, 6)), model.model(token_ids(1, 6)).last_hidden_state
    del model.model.embed_tokens
    assert torch.equal(model.model.train()(inputs_embeds=vectors).last_hidden_state, expected)


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_masks_are_made_under_both_names_of_the_cache(model, token_ids, name):
    """peft, which puts tokens of its own before a prompt, asks for a mask anew, under the name that it knows."""
    if name not in ("past_key_values", CACHE):
        pytest.skip("this transformers knows one name")
    vectors, past = model.substrate(token_ids(1, 3)), DynamicCache(config=model.config)
    columns = torch.tensor([[0, 1, 1]])
    mask = model.create_masks_for_generate(model.config, vectors, columns, **{name: past})
    assert not mask[..., 0].any() and mask[0, 0, 2, 1:].all()


def test_loss_is_the_cross_entropy_of_the_next_token(model, token_ids):
    ids = token_ids(2, 9)
    labels = ids.clone()
    labels[0, :5] = -100
    output = model(ids, labels=labels)
    log_probs = output.logits.log_softmax(-1)
    wanted = [
        -log_probs[row, position - 1, ids[row, position]]
        for row, first in ((0, 5), (1, 1))
        for position in range(first, 9)
    ]
    torch.testing.assert_close(output.loss, torch.stack(wanted).mean())


def test_logits_to_keep_selects_positions(model, token_ids):
    ids = token_ids(2, 9)
    full = model(ids).logits
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, full[:, -2:])
    torch.testing.assert_close(model(ids, logits_to_keep=torch.tensor([1, 4])).logits, full[:, [1, 4]])


def test_the_last_mlp_sees_only_what_logits_are_made_of(model, token_ids):
    ids = token_ids(2, 9)
    full = model(ids, output_hidden_states=True)
    seen = []
    for block in model.model.layers:
        block.mlp.register_forward_pre_hook(lambda mlp, inputs: seen.append(inputs[0].shape[1]))
    last = model.config.num_hidden_layers - 1
    for kept, count in ((3, 3), (torch.tensor([1, 4]), 2), (0, 9)):
        model(ids, logits_to_keep=kept)
        assert seen == [9] * last + [count]
        seen.clear()
    torch.testing.assert_close(model.model(ids, states_to_keep=3).last_hidden_state, full.hidden_states[-1][:, -3:])
    recorded = model(ids, logits_to_keep=3, output_hidden_states=True)
    assert torch.equal(recorded.hidden_states[-1], full.hidden_states[-1])  # as without logits_to_keep
    torch.testing.assert_close(recorded.logits, full.logits[:, -3:])


def test_hidden_states_and_attentions(model, token_ids):
    ids = token_ids(2, 8)
    model.set_attn_implementation("eager")
    output = model(ids, output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in output.hidden_states] == [(2, 8, 48)] * 3
    assert torch.equal(output.hidden_states[0], model.substrate(ids))
    assert torch.equal(model.lm_head(output.hidden_states[-1]), output.logits)
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 3, 8, 8)] * 2
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 8))
        assert weights.triu(1).abs().max() == 0
    assert model(ids, return_dict=False)[0].shape == (2, 8, 340)


def test_the_substrate_cannot_be_resized(model):
    assert model.resize_token_embeddings(model.vocab_size) is model.substrate and model.vocab_size == 340
    with pytest.raises(ValueError, match=r"cannot resize a frozen substrate from 340 to 400 tokens: give reserved ids"):
        model.resize_token_embeddings(400)


class TestGELUInPlace:
    """On a CPU and without gradients the activation overwrites its input, where nobody can notice."""

    @pytest.mark.parametrize("activation", ["gelu", "gelu_python", "gelu_new", "silu"])
    def test_same_bits_as_with_gradients(self, build_model, token_ids, activation):
        model, ids = build_model(seed=3, hidden_act=activation), token_ids(2, 9)
        with torch.no_grad():
            in_place = model(ids).logits
        assert torch.equal(in_place, model(ids).logits.detach())

    @pytest.mark.parametrize("part", ["fc_in", "activation"])
    def test_hooks_see_both_sides_of_the_activation(self, model, token_ids, part):
        mlp, seen = model.model.layers[0].mlp, []
        handle = getattr(mlp, part).register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            with torch.no_grad():
                model(token_ids(2, 9))
        finally:
            handle.remove()
        (output,) = seen
        assert (output.min() < -0.2) == (part == "fc_in")  # GELU is nowhere below -0.17

    def test_it_overwrites_without_gradients_only(self, model, token_ids):
        mlp = model.model.layers[0].mlp
        inner = torch.randn(2, 192)
        assert not mlp.may_overwrite(inner)
        with torch.no_grad():
            assert mlp.may_overwrite(inner)

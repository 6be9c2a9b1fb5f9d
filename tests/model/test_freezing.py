"""What is frozen gets no gradient and no graph, also under activation checkpointing and after every load."""

import pytest
import torch

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM, FrozenGlyphModel, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.generation_frozen_glyph import CACHE

FROZEN, LAYERS = 2, 4
TRAINS = ("model.layers.2.", "model.layers.3.", "model.norm.", "lm_head.")


@pytest.fixture
def model(build_model):
    """Two frozen blocks below two that train."""
    return build_model(seed=4, num_hidden_layers=LAYERS, num_frozen_layers=FROZEN).train()


def trainable(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_graph_reaches(model: torch.nn.Module, ids: torch.Tensor, expected: list[bool], reentrant=False) -> None:
    """Whether the output of the embedding and of each block carries a graph."""
    if reentrant and CACHE != "cache":
        return  # before transformers 5.24 the hooks run inside of what is checkpointed, where no graph is recorded
    seen, hooks = [], []
    for module in (model.substrate, *model.model.layers):
        hooks.append(module.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad)))
    model(ids, labels=ids)
    for hook in hooks:
        hook.remove()
    assert seen == expected


def test_only_upper_blocks_norm_and_head_train(model):
    assert trainable(model) == {name for name, _ in model.named_parameters() if name.startswith(TRAINS)}
    assert len(trainable(model)) == 2 * 12 + 2 + 2


def checkpoint_activations(model, on: bool, **options) -> None:
    """By the name of this transformers version: ``gradient_checkpointing_*`` became ``activation_checkpointing_*``."""
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    arguments = [options] if options else []
    getattr(model, f"{kind}_checkpointing_{'enable' if on else 'disable'}")(*arguments)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_graph_under_the_frozen_prefix(model, token_ids, checkpointing):
    if checkpointing:
        checkpoint_activations(model, True)
    assert_graph_reaches(model, token_ids(2, 8), [False] * (1 + FROZEN) + [True] * (LAYERS - FROZEN))


def test_checkpointing_changes_no_gradient_and_recomputes_only_what_trains(model, token_ids):
    ids, calls = token_ids(2, 8), []
    plain = gradients(model, ids)
    assert set(plain) == trainable(model)
    checkpoint_activations(model, True)
    for number, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_pre_hook(lambda module, inputs, number=number: calls.append(number))
    checkpointed = gradients(model, ids)
    assert sorted(calls) == [0, 1, 2, 2, 3, 3]  # forward, and again in the backward pass of the upper blocks
    assert set(checkpointed) == set(plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)
    checkpoint_activations(model, False)
    torch.testing.assert_close(gradients(model, ids)["lm_head.bias"], plain["lm_head.bias"])


REENTRANT = pytest.mark.parametrize("reentrant", [True, False])
NO_GRADIENT = (
    "ignore:None of the inputs have requires_grad"  # torch of the frozen blocks, where that is as it should be
)


@REENTRANT
@pytest.mark.filterwarnings(NO_GRADIENT)
def test_every_way_of_checkpointing_gives_all_gradients(model, token_ids, reentrant):
    """Reentrant checkpointing passes gradients on only where an input requires them, and the token vectors never do."""
    ids = token_ids(2, 8)
    plain = gradients(model, ids)
    checkpoint_activations(model, True, use_reentrant=reentrant)
    assert_graph_reaches(model, ids, [False] * (1 + FROZEN) + [True] * (LAYERS - FROZEN), reentrant)
    checkpointed = gradients(model, ids)
    assert set(checkpointed) == set(plain) == trainable(model)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


@REENTRANT
@pytest.mark.filterwarnings(NO_GRADIENT, "ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("invocation", [None, [5]], ids=["lora", "alora"])
def test_adapters_train_under_checkpointing(model, token_ids, reentrant, invocation):
    from peft import LoraConfig, get_peft_model

    ids = token_ids(2, 8)
    ids[:, 3] = 5
    options = {} if invocation is None else {"alora_invocation_tokens": invocation}
    layers = [1, 3]  # below the first, nothing is tracked
    config = LoraConfig(
        target_modules=["q_proj", "fc_in"], layers_to_transform=layers, task_type="CAUSAL_LM", **options
    )
    adapted = get_peft_model(model, config).train()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    plain = step(adapted, ids)
    assert len(plain) == 2 * 2 * len(layers)
    checkpoint_activations(model, True, use_reentrant=reentrant)
    for name, gradient in step(adapted, ids).items():
        torch.testing.assert_close(gradient, plain[name])
    assert_graph_reaches(model, ids, [False, False, True, True, True], reentrant)


def step(adapted, ids) -> dict[str, torch.Tensor]:
    adapted.zero_grad()
    adapted(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None}


def test_input_gradients_are_required_where_training_begins(model, token_ids):
    """As libraries ask for by ``enable_input_require_grads``, checkpointing or not; and no more once it is disabled."""
    seen = []
    for block in model.model.layers:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].requires_grad))
    for switch, expected in (
        (model.enable_input_require_grads, [False, False, True, True]),
        (model.disable_input_require_grads, [False, False, False, True]),
    ):
        switch()
        model(token_ids(2, 8))
        assert seen == expected
        seen.clear()
    model.enable_input_require_grads()
    with torch.no_grad():
        model(token_ids(2, 8))
    assert seen == [False] * LAYERS


def test_training_changes_only_what_trains(model, token_ids):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(2):
        ids = token_ids(2, 8, seed=step)
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trainable(model)


def test_freezing_survives_every_load(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert trainable(FrozenGlyphForCausalLM.from_pretrained(tmp_path)) == trainable(model)
    base = trainable(FrozenGlyphModel.from_pretrained(tmp_path))
    assert base == {name.removeprefix("model.") for name in trainable(model) if not name.startswith("lm_head.")}
    thawed = FrozenGlyphForCausalLM.from_pretrained(tmp_path, num_frozen_layers=0)
    assert trainable(thawed) == {name for name, _ in thawed.named_parameters()}


def test_each_stage_is_loaded_as_it_trained(experts):
    first = FrozenGlyphForCausalLM.from_pretrained(experts[1], growth_stage=1)
    assert trainable(first) == {name for name, _ in first.named_parameters()}
    deepest = FrozenGlyphForCausalLM.from_pretrained(experts[1])
    assert not any(name.startswith("model.layers.0.") for name in trainable(deepest))
    assert sum(name.startswith("model.layers.") for name in trainable(deepest)) == 2 * 12


@pytest.mark.parametrize("rule", ["mean", "posterior"])
def test_only_the_head_of_merged_experts_trains(merged_folder, token_ids, rule):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule).train()
    assert trainable(model) == {"lm_head.weight", "lm_head.biases"}
    checkpoint_activations(model, True)
    found = gradients(model, token_ids(2, 8))
    assert set(found) == trainable(model)
    assert all(gradient.abs().max() > 0 for gradient in found.values())


def test_a_trainable_embedding_trains(build_model, token_ids):
    """The published baselines."""
    config = build_model().config.to_dict() | {"substrate_trainable": True, "substrate_fingerprint": None}
    model = FrozenGlyphForCausalLM(FrozenGlyphConfig.from_dict(config))
    assert trainable(model) == {name for name, _ in model.named_parameters()}
    assert gradients(model, token_ids(2, 8))["model.embed_tokens.weight"].abs().max() > 0

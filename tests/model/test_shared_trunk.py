"""Experts on one trunk, some with low-rank adapters, against the same experts as whole models run alone."""

import copy

import pytest
import torch

from frozen_glyph import FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM
from frozen_glyph.checkpoint.config import SUBSTRATE_GEOMETRY
from frozen_glyph.model.configuration_frozen_glyph import LORA_TARGETS
from frozen_glyph.model.generation_frozen_glyph import CACHE

SHARED, RANK, ALPHA = 2, 3, 4.5
PLAIN, FEW, ALL = None, ("self_attn.v_proj", "mlp.fc_out"), LORA_TARGETS
CASES = {  # for each expert: its own blocks, the targets of its adapters
    "branches": [(1, PLAIN), (2, PLAIN)],
    "branches and an adapter": [(1, PLAIN), (1, ALL), (0, PLAIN)],
    "adapters alone": [(0, FEW), (0, ALL)],
}


@pytest.fixture(scope="module", params=CASES)
def merged_and_experts(request, build_model):
    """A merged model, and its experts as ordinary models with the adapters added to their weights."""
    case = CASES[request.param]
    trunk = build_model(seed=30, num_hidden_layers=SHARED).model.layers
    state, experts, fields = {}, [], []
    for index, (own, targets) in enumerate(case):
        expert = build_model(seed=40 + index, num_hidden_layers=SHARED + own)
        for layer, block in enumerate(trunk):
            expert.model.layers[layer].load_state_dict(block.state_dict())
            state |= {f"model.trunk.{layer}.{name}": tensor for name, tensor in block.state_dict().items()}
        generator = torch.Generator().manual_seed(50 + index)
        for layer in range(SHARED):
            for target in targets or ():
                linear = expert.model.layers[layer].get_submodule(target)
                down = 0.2 * torch.randn(RANK, linear.in_features, generator=generator)
                up = 0.2 * torch.randn(linear.out_features, RANK, generator=generator)
                linear.weight.data += ALPHA / RANK * up @ down
                prefix = f"model.experts.{index}.adapters.{layer}.{target.replace('.', '_')}"
                state |= {f"{prefix}.lora_A": down, f"{prefix}.lora_B": up}
        for layer, block in enumerate(expert.model.layers[SHARED:]):
            own_state = block.state_dict().items()
            state |= {f"model.experts.{index}.layers.{layer}.{name}": tensor for name, tensor in own_state}
        state |= {f"model.experts.{index}.norm.{name}": t for name, t in expert.model.norm.state_dict().items()}
        experts.append(expert)
        config = expert.config.to_dict() | {"num_hidden_layers": own}
        fields.append({name: config[name] for name in FrozenGlyphMoEConfig.EXPERT_FIELDS})
        if targets:
            fields[-1]["lora"] = {"rank": RANK, "alpha": ALPHA, "targets": list(targets)}
    state |= {f"model.embed_tokens.{name}": t for name, t in experts[0].substrate.state_dict().items()}
    state["lm_head.weight"] = torch.cat([expert.lm_head.weight for expert in experts], dim=1)
    state["lm_head.bias"] = torch.stack([expert.lm_head.bias for expert in experts])
    same = ("vocab_size", "hidden_size", "substrate_bits", "substrate_fingerprint", "tokenizer_sha256", "pad_token_id")
    same += SUBSTRATE_GEOMETRY
    config = FrozenGlyphMoEConfig(
        **{name: getattr(experts[0].config, name) for name in same}, experts=fields, num_shared_layers=SHARED
    )
    merged = FrozenGlyphMoEForCausalLM(config)
    merged.load_state_dict(state)
    return merged.eval(), experts


@torch.no_grad()
def mean_of(experts, ids, **arguments):
    return torch.stack([expert(ids, **arguments).logits for expert in experts]).mean(0)


@torch.no_grad()
def test_equals_the_experts_run_alone(merged_and_experts, token_ids):
    merged, experts = merged_and_experts
    ids = token_ids(2, 9)
    torch.testing.assert_close(merged(ids).logits, mean_of(experts, ids), atol=1e-4, rtol=1e-4)
    differences = [(expert(ids).logits - experts[0](ids).logits).abs().max() for expert in experts[1:]]
    assert min(differences) > 0.1


@torch.no_grad()
def test_a_text_read_in_parts(merged_and_experts, token_ids):
    """Every block has a layer of the cache for each expert that runs it differently."""
    merged, experts = merged_and_experts
    ids, cache, parts = token_ids(2, 10, seed=11), None, []
    for begin, end in ((0, 4), (4, 5), (5, 10)):
        output = merged(ids[:, begin:end], use_cache=True, **{CACHE: cache})
        cache = output[CACHE]
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), mean_of(experts, ids), atol=1e-4, rtol=1e-4)
    assert [layer.get_seq_length() for layer in cache.layers[:-1]] == [10] * (merged.config.num_hidden_layers - 1)


@pytest.mark.parametrize("arguments", [{}, {"cache_implementation": "static"}], ids=["dynamic", "static"])
@pytest.mark.parametrize("rule", ["mean", "posterior"])
def test_generation_with_and_without_cache(merged_and_experts, token_ids, arguments, rule):
    merged = copy.deepcopy(merged_and_experts[0])
    merged.config.rule = rule
    ids = token_ids(3, 6, seed=8)
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": 2}
    uncached = merged.generate(ids, **options, use_cache=False)
    assert torch.equal(merged.generate(ids, **options, **arguments), uncached)


@torch.no_grad()
def test_the_trunk_is_run_and_stored_once(merged_and_experts, token_ids, tmp_path):
    merged, experts = merged_and_experts
    ids = token_ids(2, 9)
    calls = []
    hook = merged.model.trunk[0].register_forward_hook(lambda *_: calls.append(1))
    expected = merged(ids).logits
    hook.remove()
    adapted = sum(expert.get("lora") is not None for expert in merged.config.experts)
    assert len(calls) == adapted + (adapted < len(experts))
    merged.save_pretrained(tmp_path)
    again, info = FrozenGlyphMoEForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(again(ids).logits, expected)
    assert not any(parameter.requires_grad for parameter in again.model.parameters())
    trunk = [name for name in again.state_dict() if ".trunk." in name and name.endswith("q_proj.weight")]
    assert trunk == [f"model.trunk.{layer}.self_attn.q_proj.weight" for layer in range(SHARED)]


@torch.no_grad()
def test_offloading_to_disk_changes_no_logits(merged_and_experts, token_ids, tmp_path):
    merged, _ = merged_and_experts
    ids = token_ids(2, 9)
    merged.save_pretrained(tmp_path / "merged")
    device_map = {"model.embed_tokens": "cpu", "model.trunk": "cpu", "model.experts": "disk", "lm_head": "disk"}
    for rule in ("mean", "evidence"):
        offloaded = FrozenGlyphMoEForCausalLM.from_pretrained(
            tmp_path / "merged", device_map=device_map, offload_folder=tmp_path / "offload", rule=rule
        ).eval()
        assert {parameter.is_meta for parameter in offloaded.model.experts.parameters()} == {True}
        merged.config.rule = rule
        torch.testing.assert_close(offloaded(ids).logits, merged(ids).logits)
    merged.config.rule = "mean"


@pytest.mark.slow
@torch.no_grad()
def test_compiled_equals_eager(merged_and_experts, token_ids):
    merged, ids = merged_and_experts[0], token_ids(2, 9)
    torch._dynamo.reset()
    compiled = torch.compile(merged, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(ids).logits, merged(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_tensor_parallel(merged_and_experts, token_ids, tmp_path, run_in_two):
    """A trunk with adapters is whole in both processes, any other is divided as the experts' own blocks are."""
    (merged, _), ids = merged_and_experts, token_ids(2, 9)
    merged.save_pretrained(tmp_path / "merged")
    expected = merged(ids).logits
    for found in run_in_two(tmp_path / "merged", ids):
        torch.testing.assert_close(found["logits"], expected, atol=1e-5, rtol=1e-5)

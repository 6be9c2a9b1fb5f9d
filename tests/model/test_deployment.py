"""The frozen embedding where models are put to work: compiled, mapped to devices, offloaded, tensor parallel."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding
from frozen_glyph.model.rules_frozen_glyph import RULES


def random_embedding(bits: int = 32, hidden_size: int = 24) -> FrozenGlyphEmbedding:
    embedding = FrozenGlyphEmbedding(50, hidden_size, bits)
    generator = torch.Generator().manual_seed(0)
    embedding.packed_bits.copy_(torch.randint(256, embedding.packed_bits.shape, generator=generator))
    embedding.center.copy_(torch.randint(17, embedding.center.shape, generator=generator))
    if embedding.projection is not None:
        embedding.projection.copy_(torch.randint(-127, 128, embedding.projection.shape, generator=generator))
    return embedding


@pytest.mark.parametrize("hidden_size", [24, 32, 64], ids=["projected", "identity", "repeated"])
@pytest.mark.parametrize("materialized", [False, True], ids=["computed", "materialized"])
def test_compiled_in_one_graph(hidden_size, materialized):
    embedding, ids = random_embedding(hidden_size=hidden_size), torch.arange(50).reshape(5, 10)
    expected = embedding(ids)
    if materialized:
        embedding.materialize()
    torch._dynamo.reset()
    compiled = torch.compile(embedding, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(ids), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(compiled(ids), expected)


@pytest.mark.slow
@pytest.mark.parametrize("hidden_size", [24, 32, 64], ids=["projected", "identity", "repeated"])
def test_compiled_to_machine_code(hidden_size):
    """Inductor may round the last step, a division, differently."""
    embedding, ids = random_embedding(hidden_size=hidden_size), torch.arange(50).reshape(5, 10)
    torch._dynamo.reset()
    compiled = torch.compile(embedding, fullgraph=True)
    torch.testing.assert_close(compiled(ids), embedding(ids), atol=1e-6, rtol=0)


@pytest.mark.parametrize("device_map", [{"": "cpu"}, "cpu", "auto"], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_device_map_changes_no_logits(experts, token_ids, device_map, dtype):
    ids = token_ids(2, 9)
    expected = AutoModelForCausalLM.from_pretrained(experts[1], dtype=dtype).eval()
    mapped = AutoModelForCausalLM.from_pretrained(experts[1], dtype=dtype, device_map=device_map).eval()
    ids = ids.to(mapped.device)
    assert torch.equal(mapped.substrate.weight.cpu(), expected.substrate.weight)
    torch.testing.assert_close(mapped(ids).logits.cpu(), expected(ids.cpu()).logits)


@pytest.mark.parametrize("buffers", [False, True], ids=["substrate in memory", "substrate on disk"])
@pytest.mark.parametrize("merged", [False, True], ids=["single", "merged"])
def test_offloading_to_disk_changes_no_logits(experts, merged_folder, token_ids, tmp_path, merged, buffers):
    folder, ids = merged_folder if merged else experts[1], token_ids(2, 9)
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()
    options = {
        "device_map": {"model": "disk", "lm_head": "cpu"},
        "offload_folder": tmp_path,
        "offload_buffers": buffers,
    }
    offloaded = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    assert {parameter.is_meta for parameter in offloaded.model.parameters()} == {True}
    assert offloaded.substrate.packed_bits.is_meta == buffers
    assert torch.equal(offloaded(ids).logits, expected(ids).logits)


@pytest.mark.parametrize("rule", RULES)
def test_experts_apart(merged_folder, token_ids, tmp_path, rule):
    """One expert in memory, the other and the head on disk; with a cache, token by token."""
    device_map = {"model.embed_tokens": "cpu", "model.experts.0": "cpu", "model.experts.1": "disk", "lm_head": "disk"}
    expected = AutoModelForCausalLM.from_pretrained(merged_folder, rule=rule).eval()
    apart = AutoModelForCausalLM.from_pretrained(
        merged_folder, rule=rule, device_map=device_map, offload_folder=tmp_path
    ).eval()
    resident = [{p.is_meta for p in part.parameters()} for part in (*apart.model.experts, apart.lm_head)]
    assert resident == [{False}, {True}, {True}]
    ids = token_ids(2, 9)
    torch.testing.assert_close(apart(ids).logits, expected(ids).logits)
    outputs = [model.generate(ids, max_new_tokens=4, do_sample=False) for model in (apart, expected)]
    assert torch.equal(*outputs)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [None, "mean", "posterior"])
def test_tensor_parallel(rule, experts, merged_folder, token_ids, run_in_two):
    """Attention and MLPs are divided, of merged models as well; the substrate is whole in each process."""
    folder, options = (experts[0], {}) if rule is None else (merged_folder, {"rule": rule})
    expected, ids = AutoModelForCausalLM.from_pretrained(folder, **options).eval(), token_ids(2, 9)
    for found in run_in_two(folder, ids, **options):
        assert found["mine"] < 0.55 * found["whole"]  # norms, and biases behind a sum, are in both
        assert torch.equal(found["vectors"], expected.substrate(ids))
        torch.testing.assert_close(found["logits"], expected(ids).logits, atol=1e-5, rtol=1e-5)

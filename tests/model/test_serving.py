"""What vLLM's Transformers backend does with a checkpoint, step by step, without vLLM.

Source: vllm/model_executor/models/transformers/{base,causal}.py and models/utils.py of vLLM 0.32. It makes the BASE
model on the meta device, puts layers of its own in place of Linears and embeddings, one attention with a cache for each
of ``num_hidden_layers``, and a head of its own, ``hidden_size`` wide with one bias, behind it; then it loads every
tensor by name. Requests run packed, without a batch and without a mask.
"""

import json
import re

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from frozen_glyph import export_dense, merge_experts

HEADS = 4


class LayerCache:
    """Keys and values of one layer for one request; attends from each new token to all before it."""

    def __init__(self, num_heads: int, head_size: int) -> None:
        self.keys = self.values = torch.zeros(0, num_heads, head_size)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """[T, H * K] each -> [T, H * K]; T new tokens."""
        query, key, value = (x.view(-1, *self.keys.shape[1:]) for x in (query, key, value))
        self.keys, self.values = torch.cat([self.keys, key]), torch.cat([self.values, value])
        scores_HTS = torch.einsum("thk,shk->hts", query, self.keys) * scale
        later = torch.ones(scores_HTS.shape[1:], dtype=torch.bool).triu(len(self.keys) - len(query) + 1)
        weights_HTS = scores_HTS.masked_fill(later, -torch.inf).softmax(-1)
        return torch.einsum("hts,shk->thk", weights_HTS, self.values).flatten(1)


def attend(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """vLLM's function in ``ALL_ATTENTION_FUNCTIONS``: the mask is not read, layers are told apart by ``layer_idx``."""
    assert query.shape[0] == 1
    flat = (x.transpose(1, 2).reshape(query.shape[-2], -1) for x in (query, key, value))
    return module.served.attend(*flat, scale=scaling), None


class Server:
    """One model as vLLM serves it. ``old``: the input embedding is replaced whatever it is, as earlier versions did."""

    def __init__(self, folder, old: bool = False) -> None:
        config = AutoConfig.from_pretrained(folder)
        assert config.get_text_config() is config  # else it is served as a multimodal model
        assert config.architectures, "no architectures"
        config._attn_implementation = "served"
        with init_empty_weights(include_buffers=False):
            self.model = AutoModel.from_config(config, dtype=torch.float32)
        assert self.model._supports_attention_backend
        self.replace(self.model)
        if old or isinstance(self.model.get_input_embeddings(), nn.Embedding):
            width = getattr(config, "embedding_size", None) or config.hidden_size
            self.model.set_input_embeddings(nn.Embedding(config.vocab_size, width))
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        attentions = {}
        for name, module in self.model.named_modules():
            if hasattr(module, "layer_idx"):
                numbers = re.findall(r"(?<![^.])\d+(?![^.])", name)
                assert len(numbers) == 1, f"layer name {name} should only contain one integer"
                assert int(numbers[0]) == module.layer_idx and module.layer_idx not in attentions
                attentions[module.layer_idx] = module
        for layer in range(config.num_hidden_layers):
            assert layer in attentions, f"layer {layer} does not dispatch through the attention interface"
        self.attentions, self.heads = attentions, config.num_attention_heads
        self.head_size = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.load(folder)

    def replace(self, module: nn.Module) -> None:
        """New Linears, with real memory, in place of those on the meta device; other parameters get memory too."""
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, nn.Linear(child.in_features, child.out_features, bias=child.bias is not None))
            elif not isinstance(child, nn.Embedding):
                self.replace(child)
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device="cpu")))

    def load(self, folder) -> None:
        """Every tensor of the index, by its name; one that has no place is an error, and so is a wrong shape."""
        index = folder / "model.safetensors.index.json"
        shards = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else ["model.safetensors"]
        places = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        places |= {f"lm_head.{name}": tensor for name, tensor in self.lm_head.state_dict().items()}
        for shard in shards:
            for name, tensor in load_file(folder / shard).items():
                place = places.pop(name)
                assert place.shape == tensor.shape, name
                place.copy_(tensor)
        assert not places

    @torch.no_grad()
    def logits(self, ids: list[int], steps: list[int]) -> torch.Tensor:
        """[T, V] of one request, read in pieces of ``steps`` tokens: a prompt, then one token after the other."""
        for module in self.attentions.values():
            module.served = LayerCache(self.heads, self.head_size)
        found, begin = [], 0
        for step in steps:
            positions = torch.arange(begin, begin + step)[None]
            tokens = torch.tensor(ids[begin : begin + step])[None]
            outputs = self.model(input_ids=tokens, use_cache=False, position_ids=positions, return_dict=False)
            found.append(self.lm_head(outputs[0][0]))
            begin += step
        return torch.cat(found)


@pytest.fixture(scope="module", autouse=True)
def attention_function():
    ALL_ATTENTION_FUNCTIONS.register("served", attend)


@pytest.fixture(scope="module")
def like_experts(write_expert):
    """Experts of different depth with the same number of heads, which a server takes for all blocks."""
    return [write_expert(f"like-{depth}", [1, depth], seed=depth, num_attention_heads=HEADS) for depth in (2, 3)]


@pytest.fixture(scope="module")
def folders(like_experts, tmp_path_factory):
    """Every form that vLLM can serve."""
    out = tmp_path_factory.mktemp("served")
    merged = merge_experts(like_experts, out / "merged")
    weighted = merge_experts(like_experts, out / "weighted", rule="weighted", weights=[0.7, 0.3])
    return {
        "grown": like_experts[1],
        "grown, dense": export_dense(like_experts[1], out / "grown-dense"),
        "merged as it is": merged,
        "merged, dense": export_dense(merged, out / "merged-dense"),
        "merged, one head": export_dense(merged, out / "merged-served", one_head=True),
        "weighted as it is": weighted,
        "weighted, one head": export_dense(weighted, out / "weighted-served", one_head=True),
    }


SERVABLE = [("grown", False), ("grown, dense", True), ("merged, one head", True), ("weighted, one head", False)]


@pytest.mark.parametrize(("form", "old"), SERVABLE)
def test_served_logits_are_the_models(folders, token_ids, form, old):
    ids = token_ids(1, 12, seed=60)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folders[form]).eval()(ids).logits[0]
        parent = folders[
            form.replace("one head", "as it is").replace("merged,", "merged").replace("weighted,", "weighted")
        ]
        original = AutoModelForCausalLM.from_pretrained(parent).eval()(ids).logits[0]
    server = Server(folders[form], old)
    for steps in ([12], [7, 1, 1, 1, 1, 1]):
        found = server.logits(ids[0].tolist(), steps)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found, original, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("form", "old", "error", "message"),
    [
        ("grown", True, KeyError, "model.embed_tokens"),  # hence to-dense
        ("merged as it is", False, AssertionError, "should only contain one integer"),  # hence --one-head
        ("merged, dense", False, AssertionError, "should only contain one integer"),
    ],
)
def test_what_cannot_be_served(folders, form, old, error, message):
    with pytest.raises(error, match=message):
        Server(folders[form], old)


def test_one_head_generates_and_trains_like_the_merged_model(folders, token_ids):
    ids = token_ids(2, 6, seed=61)
    merged = AutoModelForCausalLM.from_pretrained(folders["merged as it is"]).eval()
    served = AutoModelForCausalLM.from_pretrained(folders["merged, one head"]).eval()
    assert served.to_one_head() is served and not hasattr(served.lm_head, "num_experts")
    for options in ({}, {"num_beams": 2}, {"cache_implementation": "static"}):
        options = {"max_new_tokens": 5, "do_sample": False, **options}
        assert torch.equal(served.generate(ids, **options), merged.generate(ids, **options))
    for options in ({}, {"skip_logits": True}):
        found, expected = (model(ids, labels=ids, **options).loss for model in (served, merged))
        torch.testing.assert_close(found, expected)


def test_a_shared_trunk_is_served(folders, like_experts, token_ids, tmp_path):
    """Two branches: the same first block, stored once."""
    twin = merge_experts([f"{like_experts[1]}@1", str(like_experts[1])], tmp_path / "twin")
    model = AutoModelForCausalLM.from_pretrained(twin).eval()
    assert model.config.num_shared_layers == 1
    served, ids = export_dense(twin, tmp_path / "served", one_head=True), token_ids(1, 9, seed=62)
    found = Server(served).logits(ids[0].tolist(), [9])
    torch.testing.assert_close(found, model(ids).logits[0].detach(), atol=1e-4, rtol=1e-4)


def test_what_one_head_cannot_do(experts, merged_folder, tmp_path):
    posterior = merge_experts(experts, tmp_path / "posterior", rule="posterior")
    with pytest.raises(ValueError, match="rule='posterior' is no sum of logits"):
        export_dense(posterior, tmp_path / "served", one_head=True)
    with pytest.raises(ValueError, match=r"experts differ in num_attention_heads \(\[2, 4\]\)"):
        export_dense(merged_folder, tmp_path / "served", one_head=True)
    assert not (tmp_path / "served").exists()

"""Published checkpoints become ours with the same logits; what cannot be read or named is refused; no code is run."""

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from frozen_glyph import GlyphSubstrate, import_published, merge_experts
from frozen_glyph.checkpoint.contract import PLAN, pattern
from frozen_glyph.checkpoint.files import CheckpointError, read_json
from frozen_glyph.cli import app
from frozen_glyph.growth.recipe import GrowthRecipe, ParentRecipe, StageRecipe, SubstrateRecipe
from frozen_glyph.growth.run import grow_from_recipe
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.published.names import PublishedKeys, load_keys
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.substrate.codes import binary_code

WIDTH, HEADS, LAYERS = 64, 4, 3


class PublishedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x, rotary):
        def heads(y):
            return y.view(*y.shape[:2], HEADS, -1).transpose(1, 2)

        scores = rotary(heads(self.q_proj(x))) @ rotary(heads(self.k_proj(x))).transpose(2, 3) / (WIDTH // HEADS) ** 0.5
        scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
        return self.o_proj((scores.softmax(-1) @ heads(self.v_proj(x))).transpose(1, 2).reshape(x.shape))


class PublishedBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attention = PublishedAttention()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x, rotary):
        x = x + self.self_attention(self.ln1(x), rotary)
        return x + self.mlp(self.ln2(x))


class PublishedModel(nn.Module):
    """The published architecture in plain PyTorch; ``rotary`` is half or interleaved."""

    def __init__(self, table, rotary, repeat="each"):
        super().__init__()
        self.rotary, self.repeat = rotary, repeat
        self.token_embeddings = nn.Embedding.from_pretrained(table)
        self.transformer_layers = nn.ModuleList(PublishedBlock() for _ in range(LAYERS))
        self.final_layernorm, self.lm_head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(table))

    def rotate(self, x):
        angles = torch.outer(torch.arange(x.shape[2]), 10000.0 ** -(torch.arange(0, x.shape[3], 2) / x.shape[3]))
        if self.rotary == "half":
            angles, other = torch.cat([angles, angles], -1), torch.cat([-x.chunk(2, -1)[1], x.chunk(2, -1)[0]], -1)
        else:
            other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
            angles = angles.repeat_interleave(2, -1)
        return x * angles.cos() + other * angles.sin()

    def forward(self, ids):
        x = self.token_embeddings(ids)
        times = WIDTH // x.shape[-1]
        x = x.repeat_interleave(times, dim=-1) if self.repeat == "each" else x.repeat(1, 1, times)
        for layer in self.transformer_layers:
            x = layer(x, self.rotate)
        return self.lm_head(self.final_layernorm(x))


def token_table(kind, vocab_size):
    """16-bit codes of the ids as 0 and 1, or unit vectors of as many numbers as the model is wide."""
    if kind == "codes":
        packed = torch.from_numpy(binary_code(vocab_size, 16))
        return ((packed.unsqueeze(-1) >> torch.arange(7, -1, -1)) & 1).flatten(1).float()
    return nn.functional.normalize(torch.randn(vocab_size, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)


@pytest.fixture(scope="module")
def publish(tokenizer, tmp_path_factory):
    """``publish(kind, rotary, table)``: a model with random weights, and its folder, safetensors."""

    def write(kind="codes", rotary="half", table="inside", seed=0, rename=str, repeat="each"):
        torch.manual_seed(seed)
        model = PublishedModel(token_table(kind, len(tokenizer)), rotary, repeat)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:  # norms, too, differ from what they are at first
                    parameter.add_(0.2 * torch.randn_like(parameter))
        folder = tmp_path_factory.mktemp("published")
        tokenizer.save_pretrained(folder)
        config = {"model_type": "bvv", "n_layer": LAYERS, "n_head": HEADS, "d_model": WIDTH, "block_size": 128}
        config |= {"auto_map": {"AutoModelForCausalLM": "modeling_bvv.BVVForCausalLM"}, "pad_id": 0}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "modeling_bvv.py").write_text("raise SystemExit('remote code was run')")
        state = {rename(name): tensor for name, tensor in model.state_dict().items()}
        if table == "apart":
            weight = {"weight": state.pop("token_embeddings.weight")}
            save_file(weight, folder / "normalized_embeddings_weights.safetensors")
        save_file(state, folder / "model.safetensors")
        return model.eval(), folder

    return write


@pytest.mark.parametrize("table", ["inside", "apart"])
@pytest.mark.parametrize("rotary", ["half", "interleaved"])
@pytest.mark.parametrize("kind", ["codes", "vectors"])
def test_import_keeps_the_logits(publish, tokenizer, token_ids, tmp_path, kind, rotary, table):
    model, folder = publish(kind, rotary, table)
    out = import_published(folder, tmp_path / "ours", PublishedKeys(rotary=rotary))
    ours = FrozenGlyphForCausalLM.from_pretrained(out)
    assert ours.config.substrate_dense == (kind == "vectors")
    assert not any(parameter.requires_grad for parameter in ours.substrate.parameters())
    ids = token_ids(2, 12)
    with torch.no_grad():
        expected, found = model(ids), ours(ids).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4)
        other = {"half": "interleaved", "interleaved": "half"}[rotary]
        wrong = FrozenGlyphForCausalLM.from_pretrained(
            import_published(folder, tmp_path / "wrong", PublishedKeys(rotary=other))
        )
        assert (wrong(ids).logits - expected).abs().max() > 0.1
    provenance = read_json(out / "provenance.json")
    assert len(provenance["parents"][0]["files"]) == (1 if table == "inside" else 2)
    assert provenance["recipe"]["rotary"] == rotary


def test_weights_of_packed_codes_are_not_rounded(publish, tmp_path):
    """At a width of 4**n the factor is a power of two: dividing gives the published weights back, bit for bit."""
    model, folder = publish()
    tensors = FrozenGlyphForCausalLM.from_pretrained(import_published(folder, tmp_path / "ours")).state_dict()
    for layer, block in enumerate(model.transformer_layers):
        assert torch.equal(tensors[f"model.layers.{layer}.mlp.fc_out.weight"] * 4, block.mlp[2].weight)
        assert torch.equal(tensors[f"model.layers.{layer}.self_attn.q_proj.weight"], block.self_attention.q_proj.weight)


def test_an_import_leaves_what_the_plan_says(publish, tmp_path):
    """Every file is one that the plan of a checkpoint folder says an import writes."""
    written = {path.name for path in import_published(publish()[1], tmp_path / "ours").iterdir()}
    planned = [pattern(entry.name) for entry in PLAN if "import" in entry.written.split()]
    assert {name for name in written if not any(p.fullmatch(name) for p in planned)} == set()
    assert {"substrate.safetensors", "head-1.safetensors", "generation_config.json"} < written


def test_codes_dock_with_a_substrate_of_this_package(publish, tokenizer, tmp_path):
    imported = [import_published(publish(seed=seed)[1], tmp_path / f"expert-{seed}") for seed in (1, 2)]
    own = GlyphSubstrate.build(tokenizer, width=WIDTH, layout="binary")
    assert {GlyphSubstrate.from_pretrained(folder).fingerprint for folder in imported} == {own.fingerprint}
    merged = merge_experts(imported, tmp_path / "merged")
    assert read_json(merged / "config.json")["substrate_fingerprint"] == own.fingerprint


@pytest.mark.parametrize("kind", ["codes", "vectors"])
def test_an_import_can_be_grown_on(publish, tiny_training, make_training, tmp_path, kind):
    _, folder = publish(kind)
    parent = import_published(folder, tmp_path / "parent")
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n\nКот сидел.\n" * 20, "utf-8")
    layout = "grid" if kind == "codes" else "trainable"
    recipe = GrowthRecipe(
        "grown",
        {"hidden_size": WIDTH, "num_attention_heads": HEADS},
        [StageRecipe(layers=1, steps=2)],
        SubstrateRecipe(layout=layout),
        training=make_training(),
        parent=ParentRecipe(str(parent)),
    )
    grow_from_recipe(recipe, tmp_path / "grown", [tmp_path / "text.txt"])
    grown = FrozenGlyphForCausalLM.from_pretrained(tmp_path / "grown").state_dict()
    before = FrozenGlyphForCausalLM.from_pretrained(parent).state_dict()
    assert len([name for name in grown if name.endswith("q_proj.weight")]) == LAYERS + 1
    for name, tensor in before.items():
        if name.startswith(("model.embed_tokens.", "model.layers.")):
            assert torch.equal(grown[name], tensor)


def test_unknown_names_are_listed_and_can_be_said(publish, token_ids, tmp_path):
    rename = {"self_attention.q_proj": "mixer.asks", "final_layernorm": "last"}

    def spell(name):
        for ours, theirs in rename.items():
            name = name.replace(ours, theirs)
        return name

    model, folder = publish(rename=spell)
    with pytest.raises(CheckpointError, match=r"last.bias \[64\].*transformer_layers.0.mixer.asks.weight \[64, 64\]"):
        import_published(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
    (tmp_path / "keys.yaml").write_text(
        r"names: {'transformer_layers\.(\d+)\.mixer\.asks\.weight': 'model.layers.\1.self_attn.q_proj.weight', "
        r"'last\.(\w+)': 'model.norm.\1'}"
    )
    out = import_published(folder, tmp_path / "ours", load_keys(tmp_path / "keys.yaml"))
    with torch.no_grad():
        ids = token_ids(1, 8)
        torch.testing.assert_close(
            FrozenGlyphForCausalLM.from_pretrained(out)(ids).logits, model(ids), rtol=1e-4, atol=2e-4
        )


def test_codes_repeated_as_a_whole(publish, token_ids, tmp_path):
    model, folder = publish(repeat="all")
    ours = FrozenGlyphForCausalLM.from_pretrained(
        import_published(folder, tmp_path / "ours", PublishedKeys(repeat="all"))
    )
    assert ours.config.substrate_bits == WIDTH
    with torch.no_grad():
        ids = token_ids(1, 8)
        torch.testing.assert_close(ours(ids).logits, model(ids), rtol=1e-4, atol=2e-4)


def test_one_expert_of_a_merged_model(publish, token_ids, tmp_path):
    first, folder = publish(seed=1, rename=lambda name: f"experts.0.{name}")
    second, other = publish(seed=2, rename=lambda name: f"experts.1.{name}")
    both = load_file(folder / "model.safetensors") | load_file(other / "model.safetensors")
    save_file(both, folder / "model.safetensors")
    for index, model in enumerate((first, second)):
        keys = PublishedKeys(names={rf"experts\.{1 - index}\..*": None}, prefix=f"experts.{index}.")
        ours = FrozenGlyphForCausalLM.from_pretrained(import_published(folder, tmp_path / f"expert-{index}", keys))
        with torch.no_grad():
            ids = token_ids(1, 8)
            torch.testing.assert_close(ours(ids).logits, model(ids), rtol=1e-4, atol=2e-4)


def test_joint_projections_and_missing_biases(publish, token_ids, tmp_path):
    """Queries, keys and values in one tensor; a head without bias."""
    model, folder = publish()
    state = load_file(folder / "model.safetensors")
    for layer in range(LAYERS):
        names = [f"transformer_layers.{layer}.self_attention.{part}_proj.weight" for part in "qkv"]
        state[f"transformer_layers.{layer}.self_attention.in_proj_weight"] = torch.cat(
            [state.pop(name) for name in names]
        )
    del state["lm_head.bias"]
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    ours = FrozenGlyphForCausalLM.from_pretrained(import_published(folder, tmp_path / "ours"))
    with torch.no_grad():
        ids = token_ids(1, 8)
        expected = model(ids) - model.lm_head.bias
        torch.testing.assert_close(ours(ids).logits, expected, rtol=1e-4, atol=2e-4)


class RunsCode:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the pickle was run')",))


@pytest.mark.parametrize("file", ["pytorch_model.bin", "normalized_embeddings_weights.pt"])
def test_a_pickle_is_refused_unopened(publish, tmp_path, file):
    """Whether it holds code or only tensors, and as a table named by the user."""
    _, folder = publish("vectors", table="apart")
    safe = folder / (
        "model.safetensors" if file == "pytorch_model.bin" else "normalized_embeddings_weights.safetensors"
    )
    torch.save(load_file(safe), folder / file)
    safe.unlink()
    with pytest.raises(CheckpointError, match=f"{file}.*convert"):
        import_published(folder, tmp_path / "ours")
    (folder / file).write_bytes(pickle.dumps(RunsCode(), protocol=2))
    with pytest.raises(CheckpointError, match=f"{file}.*convert"):
        import_published(folder, tmp_path / "ours")
    with pytest.raises(CheckpointError, match=f"{file}.*convert"):
        import_published(publish("vectors", table="apart")[1], tmp_path / "ours", table=folder / file)


def edit_config(folder, **changes):
    config = read_json(folder / "config.json") | changes
    (folder / "config.json").write_text(
        json.dumps({name: value for name, value in config.items() if value is not None})
    )


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"PK\3\4"), "model.safetensors.*cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "config.json.*does not exist"),
        (lambda folder: edit_config(folder, n_head=None), "n_head"),
        (lambda folder: edit_config(folder, n_head=5), "num_attention_heads=5"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer"),
    ],
)
def test_what_is_wrong_is_named(publish, tmp_path, damage, complaint):
    _, folder = publish()
    damage(folder)
    with pytest.raises(CheckpointError, match=complaint):
        import_published(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_tensors_that_do_not_fit_are_named(publish, tmp_path):
    _, folder = publish()
    state = load_file(folder / "model.safetensors")
    state["transformer_layers.1.self_attention.q_proj.bias"] = torch.zeros(WIDTH)
    state["transformer_layers.2.ln1.weight"] = torch.zeros(3)
    del state["transformer_layers.0.mlp.2.weight"]
    save_file(state, folder / "model.safetensors")
    complaint = (
        r"layers.0.mlp.fc_out.weight is missing.*layers.1.*q_proj.bias is \[64\], .*layers.2.*is \[3\], expected \[64\]"
    )
    with pytest.raises(CheckpointError, match=complaint):
        import_published(folder, tmp_path / "ours")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("rotary: full", "rotary='full'"),
        ("names: {'layers(': 'lm_head.weight'}", r"names.layers\("),
        (r"names: {'x': 'model.layers.\1.weight'}", "names.x"),
        ("names: {'x': 3}", "names.x"),
        ("config: {n_head: 4}", "n_head"),
        ("key: 1", "unknown recipe key 'key'"),
    ],
)
def test_keys_files_are_checked(tmp_path, content, complaint):
    (tmp_path / "keys.yaml").write_text(content)
    with pytest.raises(RecipeError, match=complaint):
        load_keys(tmp_path / "keys.yaml")


def test_command_passes_rotary_and_keys_to_the_import(publish, tmp_path):
    _, folder = publish(rotary="interleaved")
    (tmp_path / "keys.yaml").write_text("config: {layer_norm_eps: 1.0e-6}")
    words = ["import-published", str(folder), "-o", str(tmp_path / "ours")]
    done = CliRunner().invoke(app, [*words, "--rotary", "interleaved", "--keys", str(tmp_path / "keys.yaml")])
    assert done.exit_code == 0, done.output
    assert read_json(tmp_path / "ours" / "provenance.json")["recipe"] == {
        "name": "ours", **dataclasses.asdict(PublishedKeys(config={"layer_norm_eps": 1e-6}, rotary="interleaved")),
    }  # fmt: skip
    assert read_json(tmp_path / "ours" / "config.json")["layer_norm_eps"] == 1e-6 / 16

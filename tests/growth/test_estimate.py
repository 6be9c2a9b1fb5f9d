"""The estimate against what it foretells: real models, PyTorch's own count of FLOPs, and measured memory."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch.utils.flop_counter import FlopCounterMode

from frozen_glyph import FrozenGlyphConfig, grow
from frozen_glyph.checkpoint.config import DEFAULTS
from frozen_glyph.growth.estimate import CHUNK_BYTES, ROW_BYTES, estimate, flops_per_token, short, totals
from frozen_glyph.growth.recipe import GrowthRecipe, LoraRecipe
from frozen_glyph.growth.shape import meta_model, plain_fields, shape_of_fields, shape_of_model
from frozen_glyph.model import loss_frozen_glyph
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.fields import parse
from frozen_glyph.substrate.choices import SubstrateError
from frozen_glyph.training.recipe import TrainingRecipe

WIDTH, LENGTH = 48, 32
EVERYTHING = ["blocks", "norm", "head", "embeddings"]


def recipe_of(**fields) -> GrowthRecipe:
    content = {
        "name": "e",
        "model": {"hidden_size": WIDTH, "num_attention_heads": 4},
        "substrate": {"vocab_size": 512},
        "stages": [{"steps": 2}, {"layers": 2, "tokens": 1000}],
        "training": {"context_length": LENGTH, "batch_tokens": 4 * LENGTH, "precision": "fp32"},
    }
    return parse(GrowthRecipe, content | fields)


def counted(model: torch.nn.Module) -> tuple[int, int]:
    """(trainable, frozen) parameters."""
    sizes = [0, 0]
    for parameter in model.parameters():
        sizes[not parameter.requires_grad] += parameter.numel()
    return tuple(sizes)


def inject(model, recipe: LoraRecipe) -> None:
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=list(recipe.targets))
    model.requires_grad_(False)
    inject_adapter_in_model(config, model)
    for part in (model.model.norm, model.lm_head):
        part.requires_grad_(True)


class TestCounts:
    def test_they_are_those_of_a_real_run(self, finished, make_recipe):
        """The tiny run docks on a substrate of its own, which the recipe alone cannot tell the size of."""
        config = json.loads((finished[0] / "config.json").read_text())
        sizes = {"vocab_size": config["vocab_size"], "substrate_bits": config["substrate_bits"]}
        recipe = make_recipe({f"model.{name}": value for name, value in sizes.items()})
        for phase, stage in zip(estimate(recipe), finished[1]["stages"], strict=True):
            assert phase["trainable_parameters"] == stage["trainable_parameters"]
            assert phase["trainable_parameters"] + phase["frozen_parameters"] == stage["parameters"]
            assert phase["substrate_entries"] == sizes["vocab_size"] * sizes["substrate_bits"]
            assert (phase["tokens"], phase["num_hidden_layers"]) == (stage["tokens"], stage["num_hidden_layers"])

    def test_stages_and_their_lora_phases(self, build_model):
        lora = {"rank": 3, "targets": ["q_proj", "fc_in"], "steps": 5, "from_stage": 2}
        model = build_model(num_hidden_layers=1)
        sizes = {"vocab_size": model.config.vocab_size, "substrate_bits": model.config.substrate_bits}
        shape = {"hidden_size": WIDTH, "num_attention_heads": 4}
        phases = estimate(recipe_of(model=shape | sizes, lora=lora))
        assert [(phase["stage"], phase["phase"]) for phase in phases] == [(1, "blocks"), (2, "blocks"), (2, "lora")]
        deeper = grow(model, 2)
        expected = [counted(model), counted(deeper)]
        inject(deeper, parse(LoraRecipe, lora))
        expected.append(counted(deeper))
        assert [(phase["trainable_parameters"], phase["frozen_parameters"]) for phase in phases] == expected
        assert [phase["steps"] for phase in phases] == [2, 8, 5]  # 1000 tokens fill 7 steps of 128, and an eighth

    def test_a_stage_without_new_blocks_goes_on_with_the_newest(self):
        one, two, again = estimate(recipe_of(stages=[{}, {}, {"layers": 0, "train": ["head"]}]))
        assert two["num_hidden_layers"] == again["num_hidden_layers"] == 2
        assert again["trainable_parameters"] == 512 * WIDTH + 512
        assert two["trainable_parameters"] == one["trainable_parameters"]
        (continued,) = estimate(recipe_of(stages=[{"layers": 2}]))
        both = estimate(recipe_of(stages=[{"layers": 2}, {"layers": 0}]))
        assert both[1] == both[0] | {"stage": 2} and both[0] == continued

    def test_a_trainable_table_trains_in_stage_1(self):
        table = 512 * WIDTH
        stages = [{"train": EVERYTHING}, {}]
        first, second = estimate(recipe_of(substrate={"vocab_size": 512, "layout": "trainable"}, stages=stages))
        plain_first, plain_second = estimate(recipe_of(stages=[{}, {}]))
        assert first["trainable_parameters"] == plain_first["trainable_parameters"] + table
        assert second["trainable_parameters"] == plain_second["trainable_parameters"]
        assert second["frozen_parameters"] == plain_second["frozen_parameters"] + table
        assert first["substrate_entries"] == 0

    def test_a_parent_lies_below(self, experts):
        config = json.loads((experts[1] / "config.json").read_text())
        shape = {name: config[name] for name in ("hidden_size", "num_attention_heads", "vocab_size", "substrate_bits")}
        (phase,) = estimate(recipe_of(model=shape, stages=[{}], parent={"source": str(experts[1]), "stage": 1}))
        assert (phase["stage"], phase["num_hidden_layers"]) == (2, 2)
        (phase,) = estimate(recipe_of(model=shape, stages=[{}], parent={"source": str(experts[1])}))
        assert (phase["stage"], phase["num_hidden_layers"]) == (3, 4)

    def test_a_vocabulary_given_by_a_tokenizer(self, substrate_folder, substrate):
        (phase,) = estimate(recipe_of(substrate={"tokenizer": str(substrate_folder)}, stages=[{}]))
        assert phase["substrate_entries"] == substrate.vocab_size * 1024

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(SubstrateError, match="bits=8 is not allowed"):
            estimate(recipe_of(substrate={"vocab_size": 512, "layout": "binary", "bits": 8}))
        with pytest.raises((RecipeError, ValueError), match="must be an even multiple"):
            estimate(recipe_of(model={"hidden_size": 1025}))


class TestFlops:
    """PyTorch counts the whole square of attention scores, the estimate the half below the diagonal."""

    def measured(self, model, ids) -> int:
        model.train()
        model.set_attn_implementation("eager")
        model.substrate.materialize()  # the lookup is left out
        with FlopCounterMode(display=False) as counter:
            model(input_ids=ids, labels=ids).loss.backward()
        return counter.get_total_flops() / ids.numel()

    @pytest.mark.parametrize(("blocks", "frozen"), [(1, 0), (3, 0), (3, 2), (3, 3)])
    def test_frozen_and_trainable_blocks_cost_what_pytorch_counts(self, build_model, token_ids, blocks, frozen):
        model = build_model(num_hidden_layers=blocks, num_frozen_layers=frozen)
        unseen = 2 * LENGTH * WIDTH * (frozen + 3 * (blocks - frozen))
        training = TrainingRecipe(context_length=LENGTH, batch_tokens=64)
        shape = shape_of_model(model)
        foretold = flops_per_token(shape, shape.trained(["blocks", "norm", "head"]), training)
        assert foretold + unseen == self.measured(model, token_ids(2, LENGTH))

    def test_training_the_head_alone_costs_what_pytorch_counts(self, build_model, token_ids):
        model = build_model(num_hidden_layers=2, num_frozen_layers=2)
        model.model.norm.requires_grad_(False)
        training = TrainingRecipe(context_length=LENGTH, batch_tokens=64)
        shape = shape_of_model(model)
        foretold = flops_per_token(shape, shape.trained(["head"]), training)
        assert foretold + 4 * LENGTH * WIDTH == self.measured(model, token_ids(2, LENGTH))

    def test_lora(self, build_model, token_ids):
        """Counted as if gradients left the lowest block too, which no adapter needs: at most 6 D^2 too many."""
        recipe = LoraRecipe(rank=4)
        model = build_model(num_hidden_layers=3, num_frozen_layers=3)
        inject(model, recipe)
        measured = self.measured(model, token_ids(2, LENGTH)) - 3 * 3 * 2 * LENGTH * WIDTH
        plain = build_model(num_hidden_layers=3, num_frozen_layers=3)
        adapters = 3 * recipe.rank * (4 * 2 * WIDTH + 2 * 5 * WIDTH)
        assert counted(model)[0] == adapters + counted(plain)[0]
        training = TrainingRecipe(context_length=LENGTH, batch_tokens=64)
        shape = shape_of_model(plain)
        counted_here = flops_per_token(shape, shape.trained(["norm", "head"], adapters), training)
        assert 0 <= counted_here - measured <= 6 * WIDTH**2 + 3 * 2 * recipe.rank * WIDTH

    def test_recomputing_costs_a_forward_pass_of_what_trains(self):
        plain = estimate(recipe_of())[1]["flops_per_token"]
        training = {"context_length": LENGTH, "batch_tokens": 128, "activation_checkpointing": True}
        blocks = 2 * (2 * 12 * WIDTH**2 + 2 * LENGTH * WIDTH)
        assert estimate(recipe_of(training=training))[1]["flops_per_token"] == plain + blocks


PLAIN = [
    {},
    {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 300},
    {"hidden_size": 48, "num_attention_heads": 4, "substrate_bits": 1024, "substrate_whitened": True},
    {"hidden_size": 96, "num_attention_heads": 4, "substrate_bits": 32, "substrate_rotated": True},
    {"hidden_size": 64, "num_attention_heads": 8, "substrate_trainable": True, "max_position_embeddings": 8},
]


class TestArithmetic:
    """What is told without torch is what the model holds."""

    @pytest.mark.parametrize("fields", PLAIN, ids=str)
    @pytest.mark.parametrize(("blocks", "frozen"), [(1, 0), (3, 2)])
    def test_the_shape_of_plain_fields_is_that_of_the_model(self, fields, blocks, frozen):
        assert plain_fields(fields | {"model_type": "frozen_glyph"}) is not None
        assert shape_of_fields(fields, blocks, frozen) == shape_of_model(meta_model(fields, blocks, frozen))

    def test_other_fields_are_asked_of_the_model(self):
        kinds = {"hidden_size": 64, "num_attention_heads": 2, "linear_kinds": [["layers.1.mlp.*", "low_rank"]]}
        assert plain_fields(kinds) is None
        first, second = shape_of_fields(kinds, 2, 0).blocks
        assert first == shape_of_fields({"hidden_size": 64, "num_attention_heads": 2}, 2, 0).blocks[0]
        assert second.parameters < first.parameters

    def test_what_passes_as_plain_passes_the_configuration(self):
        """Sizes at random, at and beyond what is allowed: none is plain that the configuration refuses."""
        dice = random.Random(0)
        values = {
            "hidden_size": [0, 1, 8, 12, 64, 96, 2**20 + 8, 64.0, True],
            "num_attention_heads": [0, 1, 2, 3, 8, None],
            "substrate_bits": [0, 8, 12, 32, 64, 1024],
            "vocab_size": [0, 1, 300, 2**24 + 1, "300"],
            "substrate_rotated": [True, False, 1],
            "substrate_whitened": [True, False],
            "num_hidden_layers": [0, 1, 10_001],
        }
        passed = 0
        for _ in range(400):
            names = dice.sample(sorted(values), 4)
            fields = {name: dice.choice(values[name]) for name in names}
            if plain_fields(fields) is not None:
                passed += 1
                FrozenGlyphConfig(**fields)
        assert passed > 20

    def test_what_is_said_twice_is_the_same(self):
        config = FrozenGlyphConfig()
        assert {name: getattr(config, name) for name in DEFAULTS} == DEFAULTS
        assert (CHUNK_BYTES, ROW_BYTES) == (loss_frozen_glyph.CHUNK_BYTES, loss_frozen_glyph.ROW_BYTES)

    def test_a_dry_run_imports_neither_torch_nor_transformers(self):
        recipe = Path(__file__).parents[2] / "hub_configs" / "growing-unicode" / "growth.yaml"
        code = f"""
import sys
sys.argv = ["frozen-glyph", "grow", {str(recipe)!r}, "--dry-run"]
from frozen_glyph.cli import main
try:
    main()
finally:
    print({{"torch", "transformers", "datasets", "numpy"}} & set(sys.modules))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert "growing-unicode" in done.stdout and done.stdout.endswith("set()\n"), done.stdout + done.stderr


def step_memory(shape: dict, frozen: int, batch: int, length: int) -> int:
    """Bytes that a training step adds to a process of its own: weights, Adam state, activations, loss in chunks."""
    code = f"""
import os, resource, torch
from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
torch.set_num_threads(1)
warm = torch.nn.Linear(8, 8); warm(torch.randn(8, 8)).sum().backward()
torch.optim.AdamW(warm.parameters()).step()
pages = int(open("/proc/self/statm").read().split()[1])
torch.manual_seed(0)
model = FrozenGlyphForCausalLM(FrozenGlyphConfig(**{shape!r}, num_frozen_layers={frozen})).train()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
ids = torch.randint(model.config.vocab_size, ({batch}, {length}))
for _ in range(2):
    model(input_ids=ids, labels=ids, skip_logits=True).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - pages * os.sysconf("SC_PAGE_SIZE"))
"""
    # Every tensor in pages of its own, which go back when it is freed: what is measured is not the heap's holes.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=900, env=environment)
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("width", "vocab", "blocks", "frozen", "batch", "length"),
    [(512, 16384, 6, 4, 4, 256), (256, 8192, 6, 0, 16, 256)],
)
def test_memory_is_as_measured_within_a_quarter(width, vocab, blocks, frozen, batch, length):
    shape = {"hidden_size": width, "vocab_size": vocab, "num_attention_heads": 8, "substrate_bits": 64}
    stages = [{"layers": frozen}] * (frozen > 0) + [{"layers": blocks - frozen}]
    recipe = recipe_of(
        model=shape,
        stages=stages,
        training={"context_length": length, "batch_tokens": batch * length, "precision": "fp32"},
    )
    foretold = estimate(recipe)[-1]["memory_bytes"]["total"]
    found = step_memory(shape | {"num_hidden_layers": blocks, "max_position_embeddings": length}, frozen, batch, length)
    print(f"foretold {foretold / 1e6:.0f} MB, measured {found / 1e6:.0f} MB")
    assert 1 / 1.25 < foretold / found < 1.25


class TestMemory:
    def test_optimizer_and_gradients_follow_the_trainable_and_parts_sum_to_the_total(self):
        first, second = estimate(recipe_of())
        assert first["memory_bytes"]["optimizer"] == 8 * first["trainable_parameters"]
        assert second["memory_bytes"]["gradients"] == 4 * second["trainable_parameters"]
        parts = dict(second["memory_bytes"])
        assert parts.pop("total") == sum(parts.values())

    def test_the_frozen_prefix_keeps_no_activations_and_no_optimizer_state(self):
        phases = estimate(recipe_of(stages=[{}] * 8))
        first, last = phases[0]["memory_bytes"], phases[-1]["memory_bytes"]
        for part in ("gradients", "optimizer", "activations", "loss"):
            assert first[part] == last[part]
        assert last["weights"] - first["weights"] == 4 * phases[-1]["frozen_parameters"]

    @pytest.mark.parametrize(
        "change", [{"micro_batch_size": 1}, {"activation_checkpointing": True}, {"precision": "bf16"}]
    )
    def test_what_saves_activations(self, change):
        training = {"context_length": LENGTH, "batch_tokens": 4 * LENGTH, "precision": "fp32"}
        deep = [{"layers": 6}]
        (plain,), (spared,) = (estimate(recipe_of(stages=deep, training=training | more)) for more in ({}, change))
        assert spared["memory_bytes"]["activations"] < 0.7 * plain["memory_bytes"]["activations"]

    def test_quantising_shrinks_frozen_weights(self):
        training = {"context_length": LENGTH, "batch_tokens": 4 * LENGTH, "precision": "fp32"}
        plain, small = (
            estimate(recipe_of(training=training | {"quantize_frozen": kind}))[1]["memory_bytes"]["weights"]
            for kind in ("none", "int8")
        )
        assert plain - small == 3 * 12 * WIDTH**2


def test_totals_are_sums_over_phases_and_the_largest_memory():
    phases = estimate(recipe_of(lora={"steps": 1}))
    sums = totals(phases)
    assert sums["steps"] == sum(phase["steps"] for phase in phases)
    assert sums["flops"] == sum(phase["tokens"] * phase["flops_per_token"] for phase in phases)
    assert sums["memory_bytes"] == max(phase["memory_bytes"]["total"] for phase in phases)


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (1500, "1.5k"), (104_952_832, "105M"), (6.89e10, "68.9G"), (6.32e19, "6.32e19")]
)
def test_large_numbers_are_shortened_with_a_prefix(value, text):
    assert short(value) == text

"""The models of the study of additive layers: trained with each kind of layer at each depth, and made sick."""

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.studies.common import scale as common
from eval.studies.common.ground import (
    build_ground,
    development_text,
    reported_text,
    split_texts,
    tokenizer_of,
    training_file,
)
from eval.studies.common.jobs import job_name
from eval.studies.common.losses import record_of
from eval.studies.common.training import recipe_at
from frozen_glyph import FrozenGlyphForCausalLM, grow_from_recipe
from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.growth.recipe import StageRecipe
from frozen_glyph.health.checkpoint import text_batch
from frozen_glyph.health.measure import model_health
from frozen_glyph.health.replace import replace_linear
from frozen_glyph.text.documents import read_text
from frozen_glyph.text.loss import text_loss

KINDS = ("matmul", "additive", "adder", "low_rank", "quantized")  # that compute different things
SAME = ("compiled", "fused")  # that compute what matmul computes
DEPTHS = (1, 2, 3, 4)
ARMS = [f"{kind}-{depth}" for kind in KINDS for depth in DEPTHS]
SICK = "matmul-2"  # of which sick models are made
TEXT = "train.txt"


@dataclass(frozen=True)
class Scale(common.Scale):
    hidden_size: int = 64
    heads: int = 4
    vocab_size: int = 1024
    context_length: int = 64
    batch_tokens: int = 1024
    learning_rate: float = 4e-3
    tokens: int = 204_800  # that a model reads
    characters: int = 1_500_000  # of training text, from which the vocabulary is learnt too
    layer_features: int = 256  # of the layer that is timed; four times as many come out
    layer_tokens: int = 1024
    repeats: int = 9


SMOKE = Scale(
    **common.TINY, tokens=1024, characters=20_000,
    layer_features=32, layer_tokens=64, repeats=2,
)  # fmt: skip


def prepare(scale: Scale, data: Path, work: Path) -> None:
    """The training text of all models, and the substrate that they share."""
    split_texts(data, ["en"], scale, work)
    write_text(work / TEXT, read_text(training_file(work, "en"))[: scale.characters])
    build_ground([work / TEXT], scale, work)


def train(arm: str, rate: float, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """One model: nats and characters of each reported window, ``development`` loss, seconds, and health."""
    kind, depth = arm.rsplit("-", 1)
    tokenizer, reported = tokenizer_of(work), reported_text(work, "en")
    recipe = recipe_at(
        dataclasses.replace(scale, learning_rate=rate),
        arm,
        [StageRecipe(layers=int(depth), tokens=scale.tokens)],
        seed,
        model={"linear_kinds": [["layers.*", kind]]},
        training={"precision": "fp32"},
    )
    out = work / job_name((arm, rate, seed))
    provenance = grow_from_recipe(recipe, out, [work / TEXT], substrate=work / "substrate")
    model, batch = (
        FrozenGlyphForCausalLM.from_pretrained(out).eval(),
        text_batch(reported, tokenizer, length=scale.context_length),
    )
    development = text_loss(model, tokenizer, development_text(data, "en", scale), scale.context_length)
    found = {
        **record_of(text_loss(model, tokenizer, reported, scale.context_length)),
        "development": development.nats_per_character,
        "seconds": provenance["stages"][-1]["seconds"],
        "block_parameters": sum(each.numel() for each in model.model.layers.parameters()),
        "health": model_health(model, [batch]),
    }
    if kind == "matmul":
        with torch.no_grad():
            logits = model(batch).logits
            others = {same: replace_linear(model, same)(batch).logits for same in SAME}
        found["logit_difference"] = {same: float((other - logits).abs().max()) for same, other in others.items()}
    return found


def make_sick(rate: float, seed: int, scale: Scale, work: Path) -> dict[str, Any]:
    """Health of the trained model of two blocks, ``healthy``, and of what becomes of it."""

    def identity(block: Any) -> None:
        for output in (block.self_attn.o_proj.weight, block.mlp.fc_out.weight, block.mlp.fc_out.bias):
            output.data.zero_()

    def dead(block: Any) -> None:
        block.mlp.activation = torch.nn.ReLU()
        block.mlp.fc_in.bias.data.fill_(-1000.0)

    def rank_one(block: Any) -> None:
        for layer in (each for each in block.modules() if isinstance(each, torch.nn.Linear)):
            left, values, right = torch.linalg.svd(layer.weight.data, full_matrices=False)
            layer.weight.data = values[0] * left[:, :1] @ right[:1]

    model = FrozenGlyphForCausalLM.from_pretrained(work / job_name((SICK, rate, seed))).eval()
    below = model.model.layers[0]
    ways = {
        "frozen at the identity": identity,
        "dead ReLU": dead,
        "weights of rank one": rank_one,
        "copy of the block below": lambda block: block.load_state_dict(below.state_dict()),
    }
    held_out = reported_text(work, "en")
    batch = text_batch(held_out, tokenizer_of(work), length=scale.context_length)
    found = {
        "healthy": model_health(model, [batch]),
        "additive": model_health(replace_linear(copy.deepcopy(model), "additive", "layers.1.*"), [batch]),
    }
    for name, way in ways.items():
        sick = copy.deepcopy(model)
        way(sick.model.layers[1])
        found[name] = model_health(sick, [batch])
    return found

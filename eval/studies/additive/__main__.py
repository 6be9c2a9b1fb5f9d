"""The additive layer beside a matrix product, AdderNet's layer and remedies: speed, gradients, mixing, loss by depth.

    python -m eval.studies.additive --data DIR --out eval/results/additive-study

DIR holds text/en.txt and en.valid.txt. The same command resumes a study that was stopped. It puts a number to every
statement of the postmortem of layers y_j = sum_i (x_i + W_ji), and says which of them is not exact. Runs:

    KIND   models of 1 to 4 blocks whose Linears are all of that kind, trained on real text; loss and health
    layer  one layer of every kind on random inputs: time of both passes, gradients, rank
    sick   the health of a trained model of two blocks, and of the same one with its upper block made sick
"""

import copy
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from eval.studies.additive.report import as_markdown, summarise
from eval.studies.common.jobs import job_name, read_results, run_jobs, study_arguments, write_report, write_result
from frozen_glyph.checkpoint.files import write_text

KINDS = ("matmul", "additive", "adder", "low_rank", "quantized")  # that compute different things
SAME = ("compiled", "fused")  # that compute what matmul computes
DEPTHS = (1, 2, 3, 4)
TEXT = "train.txt"


@dataclass(frozen=True)
class Scale:
    """How large the study is."""

    hidden_size: int = 64
    heads: int = 4
    vocab_size: int = 1024
    context_length: int = 64
    tokens: int = 204_800  # that a model reads
    batch_tokens: int = 1024
    learning_rate: float = 4e-3
    characters: int = 1_500_000  # of training text, from which the vocabulary is learnt too
    held_out_characters: int = 60_000
    layer_features: int = 256  # of the layer that is timed; four times as many come out
    layer_tokens: int = 1024
    repeats: int = 9


SMOKE = Scale(
    hidden_size=32, heads=2, vocab_size=600, context_length=32, tokens=1024, batch_tokens=128,
    characters=20_000, held_out_characters=4_000, layer_features=32, layer_tokens=64, repeats=2,
)  # fmt: skip


def main() -> None:
    arguments = study_arguments("additive-study", __doc__, "text/en.txt and en.valid.txt").parse_args()
    scale = SMOKE if arguments.smoke else Scale()
    if arguments.run:
        kind, seed = arguments.run
        torch.set_num_threads(1)
        if kind == "layer":
            result = study_layers(scale)
        else:
            study = make_sick if kind == "sick" else partial(train, kind)
            result = study(int(seed), scale, arguments.data, arguments.work)
        write_result(arguments.work, (kind, seed), result)
        return
    seeds = range(arguments.seeds)
    jobs = [("layer", 0), *((kind, seed) for seed in seeds for kind in KINDS), *(("sick", seed) for seed in seeds)]
    if not arguments.report:
        build_ground(scale, arguments.data, arguments.work)
        run_jobs(jobs, arguments.work, arguments.processes)
    report = summarise(read_results(arguments.work, jobs), scale, arguments.seeds, KINDS, DEPTHS)
    write_report(arguments.out, report, as_markdown(report))


# --- models -----------------------------------------------------------------------------------------------------------


def build_ground(scale: Scale, data: Path, work: Path) -> None:
    """The training text of all models, and the substrate that they share."""
    from frozen_glyph import GlyphSubstrate, build_tokenizer
    from frozen_glyph.text.documents import read_text, split_documents

    if not (work / "substrate" / "substrate.json").exists():
        text = read_text(data / "text" / "en.txt")[: scale.characters]
        write_text(work / TEXT, text)
        tokenizer = build_tokenizer(split_documents(text), scale.vocab_size)
        GlyphSubstrate.build(tokenizer, width=scale.hidden_size).save_pretrained(work / "substrate")


def train(kind: str, seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Models of every depth: nats and characters of each held-out window, seconds, and health."""
    from frozen_glyph import FrozenGlyphForCausalLM, GlyphSubstrate, grow_from_recipe
    from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe, SubstrateRecipe
    from frozen_glyph.health.checkpoint import text_batch
    from frozen_glyph.health.measure import model_health
    from frozen_glyph.health.replace import replace_linear
    from frozen_glyph.text.documents import read_text
    from frozen_glyph.text.loss import text_loss
    from frozen_glyph.training.recipe import TrainingRecipe

    tokenizer = GlyphSubstrate.from_pretrained(work / "substrate").tokenizer
    held_out = read_text(data / "text" / "en.valid.txt")[: scale.held_out_characters]
    batch = text_batch(held_out, tokenizer, length=scale.context_length)
    found: dict[str, Any] = {}
    for depth in DEPTHS:
        recipe = GrowthRecipe(
            name=f"{kind}-{depth}",
            model={
                "hidden_size": scale.hidden_size,
                "num_attention_heads": scale.heads,
                "linear_kinds": [["layers.*", kind]],
            },
            stages=[StageRecipe(layers=depth, tokens=scale.tokens)],
            substrate=SubstrateRecipe(vocab_size=scale.vocab_size),
            training=TrainingRecipe(
                context_length=scale.context_length,
                batch_tokens=scale.batch_tokens,
                learning_rate=scale.learning_rate,
                warmup_steps=20,
                precision="fp32",
            ),
            seed=seed,
        )
        out = work / job_name((kind, seed, depth))
        provenance = grow_from_recipe(recipe, out, [work / TEXT], substrate=work / "substrate")
        model = FrozenGlyphForCausalLM.from_pretrained(out).eval()
        loss = text_loss(model, tokenizer, held_out, scale.context_length)
        found[str(depth)] = {
            "nats": loss.nats.tolist(),
            "characters": loss.characters.tolist(),
            "seconds": provenance["stages"][-1]["seconds"],
            "block_parameters": sum(each.numel() for each in model.model.layers.parameters()),
            "health": model_health(model, [batch]),
        }
        if kind == "matmul":
            with torch.no_grad():
                logits = model(batch).logits
                others = {same: replace_linear(model, same)(batch).logits for same in SAME}
            found[str(depth)]["logit_difference"] = {
                same: float((other - logits).abs().max()) for same, other in others.items()
            }
    return found


def make_sick(seed: int, scale: Scale, data: Path, work: Path) -> dict[str, Any]:
    """Health of the trained model of two blocks, ``healthy``, and of what becomes of it."""
    from frozen_glyph import FrozenGlyphForCausalLM, GlyphSubstrate
    from frozen_glyph.health.checkpoint import text_batch
    from frozen_glyph.health.measure import model_health
    from frozen_glyph.health.replace import replace_linear
    from frozen_glyph.text.documents import read_text

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

    model = FrozenGlyphForCausalLM.from_pretrained(work / job_name(("matmul", seed, 2))).eval()
    below = model.model.layers[0]
    ways = {
        "frozen at the identity": identity,
        "dead ReLU": dead,
        "weights of rank one": rank_one,
        "copy of the block below": lambda block: block.load_state_dict(below.state_dict()),
    }
    tokenizer = GlyphSubstrate.from_pretrained(work / "substrate").tokenizer
    held_out = read_text(data / "text" / "en.valid.txt")[: scale.held_out_characters]
    batch = text_batch(held_out, tokenizer, length=scale.context_length)
    found = {
        "healthy": model_health(model, [batch]),
        "additive": model_health(replace_linear(copy.deepcopy(model), "additive", "layers.1.*"), [batch]),
    }
    for name, way in ways.items():
        sick = copy.deepcopy(model)
        way(sick.model.layers[1])
        found[name] = model_health(sick, [batch])
    return found


# --- single layers ----------------------------------------------------------------------------------------------------


def study_layers(scale: Scale) -> dict[str, Any]:
    """Facts of one layer of each kind on standard normal inputs."""
    from frozen_glyph.health.gradients import constancy, effective_rank, example_gradients
    from frozen_glyph.health.mixing import probe
    from frozen_glyph.model.configuration_frozen_glyph import LINEAR_KINDS
    from frozen_glyph.model.linear_frozen_glyph import additive_naive, initialise_linear, make_linear

    generator = torch.Generator().manual_seed(0)
    width, tokens = scale.layer_features, scale.layer_tokens
    x = torch.randn(tokens, width, generator=generator)
    grads = torch.randn(tokens, 4 * width, generator=generator)
    kinds: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    for kind in LINEAR_KINDS:
        torch.manual_seed(0)
        layer: Any = make_linear(kind, width, 4 * width, bias=False)
        layer.apply(lambda module: initialise_linear(module, 0.02))
        layers[kind] = layer
        part = layer.up if kind == "low_rank" else layer
        inputs = (layer.down(x) if kind == "low_rank" else x).detach()
        few = slice(0, 64)
        of_output = example_gradients(part, inputs[few, None], torch.ones_like(grads[few, None]))
        of_loss = example_gradients(part, inputs[few, None], grads[few, None])
        with torch.no_grad():
            outputs = layer(x)
        kinds[kind] = {
            "constancy_of_output": constancy(of_output).value,
            "constancy_of_loss": constancy(of_loss).value,
            "gradient_rank": effective_rank(of_loss.total),
            "mixing_rank": probe(layer, x[0]).rank,
            "output_rank": effective_rank(outputs - outputs.mean(0)),
        }
    kinds |= {"additive, as defined": {}, "three of matmul": {}}

    class Naive(torch.nn.Module):
        weight = layers["additive"].weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([additive_naive(piece, self.weight) for piece in x.split(64)])

    layers["additive, as defined"] = Naive()
    layers["three of matmul"], layers["fused"] = (three_of(kind, width) for kind in ("matmul", "fused"))
    times = time_passes(layers, x, grads, scale.repeats)
    for kind, entry in kinds.items():
        rival = "three of matmul" if kind == "fused" else "matmul"  # fused layers are fused with their siblings
        for name in ("forward", "backward"):
            ratios = [mine / base for mine, base in zip(times[kind][name], times[rival][name], strict=True)]
            entry[f"{name}_ratio"] = min(times[kind][name]) / min(times[rival][name])  # the turns without other work
            entry[f"{name}_ratio_median"] = statistics.median(ratios)
            entry[f"{name}_seconds"] = min(times[kind][name])
    return {"kinds": kinds, "additive": additive_facts(layers["additive"], x, grads)}


def three_of(kind: str, width: int) -> torch.nn.Module:
    """Query, key and value projections of ``kind``, which read one input; their outputs side by side, and a fourth."""
    from frozen_glyph.model.linear_frozen_glyph import SAME_INPUT, fuse, make_linear

    class Three(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs = [self.get_submodule(name)(x) for name in SAME_INPUT]
            return torch.cat([*outputs, outputs[0]], dim=-1)

    layers = Three()
    for name in SAME_INPUT:
        layers.add_module(name, make_linear(kind, width, width, bias=False))
    fuse(layers)
    return layers


def time_passes(layers: dict[str, Any], x: torch.Tensor, grads: torch.Tensor, repeats: int) -> dict[str, Any]:
    """Seconds of the forward and the backward pass of every layer, in turns, after a first one that does not count."""
    times: dict[str, Any] = {kind: {"forward": [], "backward": []} for kind in layers}
    for turn in range(repeats + 1):
        for kind, layer in layers.items():
            inputs = x.clone().requires_grad_()
            begin = time.perf_counter()
            output = layer(inputs)
            middle = time.perf_counter()
            output.backward(grads)
            end = time.perf_counter()
            if turn:
                times[kind]["forward"].append(middle - begin)
                times[kind]["backward"].append(end - middle)
    return times


def additive_facts(layer: Any, x: torch.Tensor, grads: torch.Tensor) -> dict[str, float]:
    """What holds for the additive layer exactly, as largest deviations relative to the size of the numbers."""
    from frozen_glyph.model.linear_frozen_glyph import additive_naive

    few = x[:64]
    with torch.no_grad():
        fast, naive = layer(few), additive_naive(few, layer.weight)
        units = layer(x) - layer.weight.sum(-1)  # what is left of an output without its constant
    weight = layer.weight.detach().clone().requires_grad_()
    (of_output,) = torch.autograd.grad(additive_naive(few[:1], weight)[0, 0], weight)
    (of_loss,) = torch.autograd.grad(additive_naive(few, weight), weight, grads[:64])
    norms = torch.nn.functional.layer_norm(x, x.shape[-1:])
    centred = layer(norms).detach()
    return {
        "fast_against_naive": float((fast - naive).abs().max() / naive.abs().max()),
        "units_differ_by": float((units - units[:, :1]).abs().max() / units.abs().max()),
        "gradient_of_output_at_its_weights": float(of_output[0].mean()),
        "gradient_of_output_at_other_weights": float(of_output[1:].abs().max()),
        "gradient_of_loss_mean": float(of_loss.mean()),
        "gradient_of_loss_std": float(of_loss.std()),
        "gradient_of_loss_differs_between_inputs": float((of_loss - of_loss[:, :1]).abs().max() / of_loss.abs().max()),
        "after_layer_norm_outputs_vary_by": float(centred.std(0).max() / x.sum(-1).std()),
    }


if __name__ == "__main__":
    main()

"""Generation of N merged experts beside one expert of theirs, and beside transformers' Llama of the size of either.

    python eval/bench/generate.py --out eval/results/bench-generate.json
    python eval/bench/generate.py --layers 9 --width 1024 --context 1024 --device cuda

All generate greedily with a dynamic cache: ``generate()`` reads a prompt of half the context and writes the other half,
for one sequence and for ``--batch``. The merged model runs its rules in turns with the single expert and both Llamas,
in one process. It may take N times the expert's time, and 5 % more. The Llamas have the same width, heads and
vocabulary, tied embeddings (our input table is no parameters either), a gated MLP of 8/3 instead of 4 times the width,
and as many blocks as bring them nearest to the expert's and the merged model's number of parameters.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from training_step import Clock, Seconds, add_shape_arguments, alternate, build_model, describe, write_report
from transformers import LlamaConfig, LlamaForCausalLM

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.configuration_frozen_glyph import MERGE_RULES
from frozen_glyph.training.train import uses_bf16

ALLOWED = 1.05  # of N times the time of one expert


def main() -> None:
    arguments = parse_arguments()
    write_report(measure(arguments), arguments.out)


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants in turns, for each batch."""
    dtype = torch.bfloat16 if uses_bf16(arguments.precision) else torch.float32
    expert = build_model(arguments, arguments.layers)
    merged = build_merged(expert, arguments.experts)
    models = {
        "expert": expert,
        **dict.fromkeys(arguments.rules, merged),
        "llama of the expert's size": build_llama(arguments, expert.num_parameters()),
        "llama of the merged size": build_llama(arguments, merged.num_parameters()),
    }
    models = {name: model.to(arguments.device, dtype).eval() for name, model in models.items()}
    batches = {}
    for batch in (1, arguments.batch):
        turns = {name: generation(model, name, batch, arguments) for name, model in models.items()}
        for turn in turns.values():
            turn()  # warm-up
        seconds = alternate(turns, arguments.repeats)
        batches[batch] = {name: speed(seconds[name], seconds["expert"], batch, arguments) for name in models}
    worst = max(
        measured[rule]["over_expert"] / arguments.experts for measured in batches.values() for rule in arguments.rules
    )
    return {
        **describe(arguments),
        "dtype": str(dtype),
        **{name: getattr(arguments, name) for name in ("layers", "experts", "repeats")},
        "parameters": {name: model.num_parameters() for name, model in models.items()},
        "blocks": {name: model.config.num_hidden_layers for name, model in models.items()},
        "batches": batches,
        "largest_over_experts_times_one": round(worst, 4),
        "allowed": ALLOWED,
        "holds": worst <= ALLOWED,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4, help="blocks of an expert (default: 4)")
    parser.add_argument("--experts", type=int, default=3, help="experts (default: 3)")
    parser.add_argument("--rules", nargs="+", choices=MERGE_RULES, default=MERGE_RULES, help="default: all")
    add_shape_arguments(parser, width=512, batch=16, context=64)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each model (default: 5)")
    return parser.parse_args()


def build_merged(expert: FrozenGlyphForCausalLM, count: int) -> FrozenGlyphMoEForCausalLM:
    """``count`` experts of the shape of ``expert``, of random weights, on its substrate."""
    config = expert.config
    same = ("vocab_size", "hidden_size", "substrate_bits", "num_attention_heads", "max_position_embeddings")
    shape = {name: getattr(config, name) for name in FrozenGlyphMoEConfig.EXPERT_FIELDS}
    merged = FrozenGlyphMoEForCausalLM(
        FrozenGlyphMoEConfig(**{name: getattr(config, name) for name in same}, experts=[shape] * count)
    )
    merged.substrate.load_state_dict(expert.substrate.state_dict())
    return merged


def build_llama(arguments: argparse.Namespace, parameters: int) -> LlamaForCausalLM:
    """The Llama whose number of parameters is nearest to ``parameters``."""

    def config(layers: int) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=arguments.vocab,
            hidden_size=arguments.width,
            intermediate_size=round(8 / 3 * arguments.width / 8) * 8,
            num_hidden_layers=layers,
            num_attention_heads=arguments.heads or arguments.width // 32,
            max_position_embeddings=arguments.context,
            tie_word_embeddings=True,
        )

    with torch.device("meta"):
        none, one = (LlamaForCausalLM(config(layers)).num_parameters() for layers in (0, 1))
    return LlamaForCausalLM(config(max(1, round((parameters - none) / (one - none)))))


def generation(model: torch.nn.Module, name: str, batch: int, arguments: argparse.Namespace) -> Callable[[], Seconds]:
    """A turn of ``model``: the seconds of one call of ``generate()``, for a merged model under the rule ``name``."""
    prompt = arguments.context // 2
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(arguments.vocab, (batch, prompt), generator=generator).to(arguments.device)
    new = arguments.context - prompt
    settings = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "use_cache": True, "pad_token_id": 0}
    model.generation_config.eos_token_id = None

    def turn() -> Seconds:
        if name in MERGE_RULES:
            model.config.rule = name
        clock = Clock(torch.device(arguments.device))
        model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        return clock.read()

    return turn


def speed(seconds: list[Seconds], base: list[Seconds], batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of the median turn, and the median over turns of the time over that of ``base``."""
    new = arguments.context - arguments.context // 2
    median = statistics.median(turn.wall for turn in seconds)

    def over_base(kind: str) -> float:
        pairs = zip(seconds, base, strict=True)
        return round(statistics.median(getattr(own, kind) / getattr(one, kind) for own, one in pairs), 4)

    return {
        "seconds": round(median, 4),
        "tokens_per_second": round(batch * new / median, 1),
        "over_expert": over_base("wall"),
        "over_expert_cpu": over_base("cpu"),
    }


if __name__ == "__main__":
    main()

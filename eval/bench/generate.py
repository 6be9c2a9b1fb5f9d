"""Generation of N merged experts beside one expert of theirs, and beside transformers' Llama of the size of either.

    python -m eval.bench.generate --out eval/results/bench-generate.json
    python -m eval.bench.generate --layers 9 --width 1024 --context 1024 --device cuda
    python -m eval.bench.generate --prompt 512 --context 516 --batch 8

All generate greedily with a dynamic cache, one sequence and ``--batch`` of them: ``generate()`` reads a prompt of half
the context, which gives the first token, and writes the other half. The two are timed apart. To write, the merged model
may take N times the expert's time and 5 % more, under every rule. Reading costs rules that read tokens more: they need
the probability of tokens of the prompt under every expert, where the others need the last state only. Experts of random
weights hardly differ, so that ``fixed_share`` finds late, or never, that what it has not read does not matter.
``posterior, sampled`` has ``prompt_sample=64``.
The merged model runs its rules in turns with the single expert and both Llamas, in one process. The Llamas have the
same width, heads and vocabulary, tied embeddings (our input table is no parameters either), a gated MLP of 8/3 instead
of 4 times the width, and as many blocks as bring them nearest to the expert's and the merged model's parameters.
"""

import argparse
import functools
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from transformers import LlamaForCausalLM
from transformers.generation import StoppingCriteria

from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.models import build_llama, build_model, llama_config
from eval.bench.timing import Clock, Seconds, alternate, over
from eval.bench.training_step import describe
from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.training.precision import uses_bf16

SAMPLED = "posterior, sampled"
LONG = 512  # tokens of a prompt from which on the goals of reading over `mean` hold; below, that over one expert
OVER_MEAN, OVER_EXPERT = {"evidence": 1.2, "posterior": 2.2, SAMPLED: 1.2}, {"evidence": 3.2}
ALLOWED = 1.05  # times N times the expert's time, to write


def main() -> None:
    arguments = parse_arguments()
    write_report(measure(arguments), arguments.out)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants in turns, for each batch."""
    about = describe(arguments)
    dtype = torch.bfloat16 if uses_bf16(arguments.precision) else torch.float32
    expert = build_model(arguments, arguments.layers)
    merged = build_merged(expert, arguments.experts)
    models = {
        "expert": expert,
        **dict.fromkeys(arguments.rules, merged),
        **({SAMPLED: merged} if "posterior" in arguments.rules else {}),
        "llama of the expert's size": llama_of_size(arguments, expert.num_parameters()),
        "llama of the merged size": llama_of_size(arguments, merged.num_parameters()),
    }
    models = {name: model.to(arguments.device, dtype).eval() for name, model in models.items()}
    batches = {str(batch): take_turns(models, batch, arguments) for batch in (1, arguments.batch)}
    worst = max(measured[rule]["writing"]["over_expert"] for measured in batches.values() for rule in arguments.rules)
    return {
        **about,
        "dtype": str(dtype),
        **{name: getattr(arguments, name) for name in ("layers", "experts", "repeats")},
        "prompt": arguments.prompt or arguments.context // 2,
        "batches": batches,
        "goals": goals(batches, arguments),
        "largest_writing_over_expert": worst,
        "allowed": round(ALLOWED * arguments.experts, 4),
        "holds": worst <= ALLOWED * arguments.experts,
    }


def goals(batches: dict[str, Any], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """What reading may cost at the most, what was found, and whether that holds; of processor's time."""
    base, allowed = ("mean", OVER_MEAN) if (arguments.prompt or 0) >= LONG else ("expert", OVER_EXPERT)
    found = [
        (f"reading under {rule} over {base}, batch {batch}", measured[rule]["reading"][f"over_{base}_cpu"], most)
        for batch, measured in batches.items()
        for rule, most in allowed.items()
        if rule in measured and base in measured
    ]
    return [{"what": what, "found": value, "goal": most, "holds": value <= most} for what, value, most in found]


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=5)
    parser.add_argument("--layers", type=int, default=4, help="blocks of an expert (default: 4)")
    parser.add_argument("--experts", type=int, default=3, help="experts (default: 3)")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES), help="default: all")
    parser.add_argument("--prompt", type=int, help="tokens to read (default: half the context)")
    add_shape_arguments(parser, width=512, batch=16, context=64)
    return parser.parse_args(words)


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


def llama_of_size(arguments: argparse.Namespace, parameters: int) -> LlamaForCausalLM:
    """The Llama whose number of parameters is nearest to ``parameters``."""
    with torch.device("meta"):
        none, one = (LlamaForCausalLM(llama_config(arguments, layers)).num_parameters() for layers in (0, 1))
    return build_llama(arguments, max(1, round((parameters - none) / (one - none))))


def take_turns(models: dict[str, torch.nn.Module], batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Each model's tokens a second, and its time to read and to write over that of the expert's turn beside it."""
    generator = torch.Generator().manual_seed(0)
    prompt = arguments.prompt or arguments.context // 2
    ids = torch.randint(arguments.vocab, (batch, prompt), generator=generator).to(arguments.device)
    new_tokens = arguments.context - prompt
    turns = {name: functools.partial(turn, model, name, ids, new_tokens) for name, model in models.items()}
    seconds = alternate(turns, arguments.repeats, warm_up=1)
    reading, writing = ({name: [each[part] for each in own] for name, own in seconds.items()} for part in (0, 1))
    return {
        name: {
            "parameters": model.num_parameters(),
            "tokens_per_second": round(batch * (new_tokens - 1) / median([each.wall for each in writing[name]]), 1),
            "reading": {
                **over(reading[name], reading["expert"], "expert"),
                **(over(reading[name], reading["mean"], "mean") if "mean" in models else {}),
            },
            "writing": over(writing[name], writing["expert"], "expert"),
        }
        for name, model in models.items()
    }


def turn(model: torch.nn.Module, name: str, ids: torch.Tensor, new_tokens: int) -> tuple[Seconds, Seconds]:
    """One call of ``generate()``, for a merged model under the rule ``name``: seconds to read, seconds to write."""
    choose(model, name)
    model.generation_config.eos_token_id = None
    first = FirstToken(ids.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        stopping_criteria=[first],
        max_new_tokens=new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=0,
    )
    whole = first.clock.read()
    return first.seconds, Seconds(*(end - begin for end, begin in zip(whole, first.seconds, strict=True)))


def choose(model: torch.nn.Module, name: str) -> None:
    """Set the rule ``name``, where it is one."""
    if name in RULES or name == SAMPLED:
        model.config.rule = name.partition(",")[0]
        model.config.prompt_sample = 64 if name == SAMPLED else None


class FirstToken(StoppingCriteria):
    """Never stops ``generate()``; notes when the first token is there."""

    def __init__(self, device: torch.device) -> None:
        self.clock, self.seconds = Clock(device), None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self.seconds is None:
            self.seconds = self.clock.read()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


if __name__ == "__main__":
    main()

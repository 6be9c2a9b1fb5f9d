"""Greedy decoding of a grown model with its own first blocks as draft, beside the same without.

    python -m eval.bench.draft --model runs/deep --prompts en.valid.txt --out eval/results/bench-draft.json
    python -m eval.bench.draft --layers 9 16 --agreement 0.9

A folder is measured at each of its stages above the first, drafted by each stage below. Without one, models of no
training stand for the cost at a real width and vocabulary: their later blocks change the likeliest token of the first
one as seldom as ``--agreement`` says, which is no finding but a setting. Every pair is checked for the same text, and
runs in turns; on a busy machine the processor's time says more.
"""

import argparse
import functools
from pathlib import Path
from statistics import median
from typing import Any

import torch

from eval.bench.command import add_shape_arguments, bench_arguments, circumstances, write_report
from eval.bench.models import build_model
from eval.bench.timing import Seconds, alternate, timed
from frozen_glyph.checkpoint.loading import load_causal_lm, load_tokenizer

PROMPT_TOKENS, NEW_TOKENS, PROMPTS = 32, 64, 2
GOAL = 0.75  # of the time without


def main() -> None:
    arguments = parse_arguments()
    about = circumstances()
    measured = from_folder(arguments) if arguments.model else of_shapes(arguments)
    settings = {"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS, "prompts": PROMPTS, "goal": GOAL}
    write_report({**about, **settings, "repeats": arguments.repeats, "drafts": measured}, arguments.out)


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("--model", type=Path, help="folder of a grown model (default: models of no training)")
    parser.add_argument("--prompts", type=Path, help="text whose paragraphs begin what is written")
    parser.add_argument("--layers", type=int, nargs="+", default=[9, 16], help="blocks (default: 9 16)")
    parser.add_argument("--agreement", type=float, default=0.9, help="how often the first block is right, about")
    add_shape_arguments(parser, width=512, batch=1, context=256)
    return parser.parse_args()


def from_folder(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A trained model, on real text."""
    tokenizer = load_tokenizer(arguments.model)
    texts = [text for text in arguments.prompts.read_text("utf-8").split("\n\n") if len(text) > 6 * PROMPT_TOKENS]
    encoded = tokenizer(texts[:: max(1, len(texts) // PROMPTS)][:PROMPTS], add_special_tokens=False)["input_ids"]
    prompts = torch.tensor([ids[:PROMPT_TOKENS] for ids in encoded])
    ladder = load_causal_lm(arguments.model).config.ladder
    measured = []
    for stage in range(2, len(ladder) + 1):
        model = load_causal_lm(arguments.model, growth_stage=stage).eval()
        measured += compare(model, prompts, sorted(set(ladder[: stage - 1])), arguments.repeats)
    return measured


def of_shapes(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Models of no training, of the shape that was asked for."""
    prompts = torch.randint(arguments.vocab, (PROMPTS, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    measured = []
    for layers in arguments.layers:
        model = build_model(arguments, layers).eval()
        adjust(model, arguments.agreement)
        measured += compare(model, prompts, [1], arguments.repeats)
    return measured


@torch.no_grad()
def adjust(model: Any, agreement: float) -> None:
    """Let the later blocks change the likeliest next token as often as asked, and every prediction be a sure one."""
    base, head = model.base_model, model.lm_head
    head.weight.mul_(40)
    ids = torch.randint(model.config.vocab_size, (1, 64), generator=torch.Generator().manual_seed(1))
    original = [(block.self_attn.o_proj.weight.clone(), block.mlp.fc_out.weight.clone()) for block in base.layers[1:]]
    low, high = 0.0, 4.0
    for _ in range(8):
        strength = (low + high) / 2
        for block, (attention, mlp) in zip(base.layers[1:], original, strict=True):
            block.self_attn.o_proj.weight.copy_(strength * attention)
            block.mlp.fc_out.weight.copy_(strength * mlp)
        all_blocks, model.config.num_hidden_layers = model.config.num_hidden_layers, 1
        first = model(ids).logits.argmax(-1)
        model.config.num_hidden_layers = all_blocks
        agreed = float((model(ids).logits.argmax(-1) == first).float().mean())
        low, high = (strength, high) if agreed > agreement else (low, strength)


def compare(model: Any, prompts: torch.Tensor, drafts: list[int], repeats: int) -> list[dict[str, Any]]:
    """Each number of drafting blocks beside none: time, and tokens for each pass of all blocks."""
    model.generation_config.eos_token_id = None
    turns = {0: functools.partial(write, model, prompts)}
    turns |= {blocks: functools.partial(write, model, prompts, assistant_early_exit=blocks) for blocks in drafts}
    texts = {blocks: turn() for blocks, turn in turns.items()}
    passes = {blocks: count_passes(model, turn) for blocks, turn in turns.items()}
    seconds = alternate({blocks: timed(turn) for blocks, turn in turns.items()}, repeats)
    return [
        {
            "blocks": model.config.num_hidden_layers,
            "hidden_size": model.config.hidden_size,
            "vocab_size": model.config.vocab_size,
            "drafting_blocks": blocks,
            "same_text": bool(torch.equal(texts[blocks], texts[0])),
            "tokens_a_pass": round(len(prompts) * NEW_TOKENS / passes[blocks], 3),
            **ratio(seconds[blocks], seconds[0]),
        }
        for blocks in drafts
    ]


def write(model: Any, prompts: torch.Tensor, **arguments: Any) -> torch.Tensor:
    """What the model writes behind each prompt."""
    return torch.cat(
        [
            model.generate(
                ids[None], attention_mask=torch.ones_like(ids[None]), max_new_tokens=NEW_TOKENS, do_sample=False,
                use_cache=True, pad_token_id=0, **arguments,
            )
            for ids in prompts
        ]
    )  # fmt: skip


def count_passes(model: Any, turn: Any) -> int:
    """How many times all blocks run."""
    passes, blocks = [], model.config.num_hidden_layers
    base = model.base_model
    hook = base.register_forward_pre_hook(lambda module, inputs: passes.append(module.config.num_hidden_layers))
    turn()
    hook.remove()
    return passes.count(blocks)


def ratio(drafted: list[Seconds], plain: list[Seconds]) -> dict[str, float]:
    pairs = list(zip(drafted, plain, strict=True))
    return {
        "seconds": round(median([own.wall for own in drafted]), 3),
        "over_plain": round(median([own.wall / one.wall for own, one in pairs]), 3),
        "over_plain_cpu": round(median([own.cpu / one.cpu for own, one in pairs]), 3),
    }


if __name__ == "__main__":
    main()

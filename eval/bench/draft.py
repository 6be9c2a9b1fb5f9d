"""Greedy decoding of a grown model with its own first blocks as draft, beside the same without.

    python -m eval.bench.draft runs/deep --prompts en.valid.txt --stages 3 4 --out eval/results/bench-draft.json

Every pair is checked for the same text, and runs in turns; on a busy machine the processor's time says more. Only a
trained model can be measured: what its first blocks predict right decides, and the more it knows, the more that is.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import torch

from eval.bench.command import bench_arguments, circumstances, write_report
from eval.bench.timing import alternate, over, timed
from frozen_glyph.checkpoint.loading import load_causal_lm, load_tokenizer
from frozen_glyph.model import drafting_frozen_glyph

PROMPT_TOKENS, NEW_TOKENS, PROMPTS = 32, 64, 3
GOAL = 0.75  # of the time without


def main() -> None:
    arguments = parse_arguments()
    about = circumstances()
    drafting_frozen_glyph.SHORT_LIST = arguments.short_list
    settings = {"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS, "prompts": PROMPTS, "goal": GOAL}
    settings |= {"repeats": arguments.repeats, "short_list": arguments.short_list}
    write_report({**about, **settings, "drafts": measure(arguments)}, arguments.out)


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=3)
    parser.add_argument("model", type=Path, help="folder of a grown model")
    parser.add_argument("--prompts", type=Path, required=True, help="text whose paragraphs begin what is written")
    parser.add_argument("--stages", type=int, nargs="+", required=True, help="stages to measure")
    parser.add_argument("--draft-stages", type=int, nargs="+", default=[1], help="stages that draft (default: 1)")
    parser.add_argument(
        "--short-list", type=int, default=drafting_frozen_glyph.SHORT_LIST, help="tokens to draft among"
    )
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Each stage with each draft."""
    tokenizer = load_tokenizer(arguments.model)
    texts = [text for text in arguments.prompts.read_text("utf-8").split("\n\n") if len(text) > 6 * PROMPT_TOKENS]
    encoded = tokenizer(texts[:: len(texts) // PROMPTS][:PROMPTS], add_special_tokens=False)["input_ids"]
    prompts = torch.tensor([ids[:PROMPT_TOKENS] for ids in encoded])
    measured = []
    for stage in arguments.stages:
        model = load_causal_lm(arguments.model, growth_stage=stage).eval()
        measured += compare(model, prompts, arguments.draft_stages, arguments.repeats)
    return measured


def compare(model: Any, prompts: torch.Tensor, drafts: list[int], repeats: int) -> list[dict[str, Any]]:
    """Each drafting stage beside none: time, and tokens for each pass of all blocks."""
    model.generation_config.eos_token_id = None
    turns = {0: functools.partial(write, model, prompts)}
    turns |= {stage: functools.partial(write, model, prompts, draft_stage=stage) for stage in drafts}
    texts = {stage: turn() for stage, turn in turns.items()}
    passes = {stage: count_passes(model, turn) for stage, turn in turns.items()}
    seconds = alternate({stage: timed(turn) for stage, turn in turns.items()}, repeats)
    return [
        {
            "blocks": model.config.num_hidden_layers,
            "hidden_size": model.config.hidden_size,
            "vocab_size": model.config.vocab_size,
            "drafting_blocks": model.config.stage_layers(stage)[0],
            "same_text": bool(torch.equal(texts[stage], texts[0])),
            "tokens_a_pass": round(len(prompts) * NEW_TOKENS / passes[stage], 3),
            **over(seconds[stage], seconds[0], "plain"),
        }
        for stage in drafts
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


if __name__ == "__main__":
    main()

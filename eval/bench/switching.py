"""The rule `fixed_share` on real text: its loss by rate beside the other rules, what it reads of a prompt, estimates.

    python -m eval.bench.switching MERGED --text en.valid.txt --text ru.valid.txt --out REPORT.json

Each text is of the language of one expert. The first half of each is development text, on which the rate is chosen; the
second half is reported. ``mixture`` takes a paragraph of each language in turn. Losses are in nats a token, over
windows of ``--context`` tokens that are read apart. A prompt is a window; after it stands what each expert counts when
what counts is read and when ``prompt_sample`` tokens are, and how far that is from the weights when all is read (half
the sum of the absolute differences).
"""

import argparse
import functools
import itertools
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.bench.command import bench_arguments, circumstances, write_report
from frozen_glyph.model.rules_frozen_glyph import RULES
from frozen_glyph.model.switching_frozen_glyph import fixed_share, initial_weights

RATES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
LEARNT = [0.001, 0.01, 0.1]
SAMPLES = (16, 32, 64, 128)


def main() -> None:
    parser = bench_arguments(__doc__, repeats=1)
    parser.add_argument("merged", help="folder of a merged model")
    parser.add_argument("--text", action="append", required=True, type=Path, help="text of one language; repeat")
    parser.add_argument("--context", type=int, default=512, help="tokens of a window (default: 512)")
    parser.add_argument("--windows", type=int, default=8, help="windows of each text and half (default: 8)")
    arguments = parser.parse_args()
    about = circumstances()
    write_report(about | measure(arguments), arguments.out)


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(arguments.merged, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.merged)
    halves = [text.read_text("utf-8") for text in arguments.text]
    report: dict[str, Any] = {"experts": model.config.expert_names, "context": arguments.context}
    for half, name in enumerate(("development", "test")):
        texts = {path.stem: half_of(text, half) for path, text in zip(arguments.text, halves, strict=True)}
        texts["mixture"] = mixture(list(texts.values()))
        windows = {key: cut(tokenizer, text, arguments) for key, text in texts.items()}
        report[name] = {key: losses(model, ids) for key, ids in windows.items()}
    report["chosen_rate"] = min(RATES, key=lambda rate: report["development"]["mixture"][f"fixed_share {rate}"])
    report["prompts"] = {key: prompts(model, ids) for key, ids in windows.items()}
    return report


def half_of(text: str, half: int) -> str:
    return text[: len(text) // 2] if half == 0 else text[len(text) // 2 :]


def mixture(texts: list[str]) -> str:
    """A paragraph of each in turn."""
    paragraphs = [[part for part in text.splitlines() if len(part) > 40] for text in texts]
    return "\n".join(itertools.chain(*zip(*paragraphs, strict=False)))


def cut(tokenizer: Any, text: str, arguments: argparse.Namespace) -> torch.Tensor:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    count = min(arguments.windows, len(ids) // arguments.context)
    return torch.tensor(ids[: count * arguments.context]).view(count, -1)


def losses(model: Any, ids: torch.Tensor) -> dict[str, float]:
    """Nats a token of each expert, each rule, and ``fixed_share`` by rate."""
    found = {}
    for rule in RULES:
        model.config.rule = rule
        logits = torch.cat([model(row[None, :-1], use_cache=False).logits for row in ids]).transpose(1, 2)
        found[rule] = float(torch.nn.functional.cross_entropy(logits, ids[:, 1:]))
    log_probs = log_probs_of(model, ids)
    for name, own in zip(model.config.expert_names, log_probs.unbind(-1), strict=True):
        found[f"expert {name}"] = -float(own.mean())
    for rates in ([rate] for rate in RATES):
        found[f"fixed_share {rates[0]}"] = shared(log_probs, rates)
    found[f"fixed_share {LEARNT} learnt"] = shared(log_probs, LEARNT)
    return {key: round(value, 4) for key, value in found.items()}


def log_probs_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Of each token but the first under each expert, [B, T - 1, N]."""
    model.config.rule = "posterior"
    states = model.model(ids[:, :-1]).last_hidden_state
    return model.lm_head(states, tokens=ids[:, 1:]) - model.lm_head(states, normalisers=True)


def shared(log_probs: torch.Tensor, rates: list[float]) -> float:
    count = log_probs.shape[-1]
    prior, chances = torch.full((count,), 1 / count).log(), torch.tensor(rates)
    first = initial_weights(prior, chances).expand(len(log_probs), -1, -1)
    after = fixed_share(log_probs, torch.ones(log_probs.shape[:2]), None, first, prior, chances)
    before = torch.cat([first[:, None], after[:, :-1]], dim=1).logsumexp(2)
    return -float((before + log_probs).logsumexp(-1).mean())


def prompts(model: Any, ids: torch.Tensor) -> dict[str, Any]:
    """For each rule that reads tokens: tokens whose heads are run, and how far the weights are from those of all."""
    report: dict[str, Any] = {}
    for rule in (name for name, rule in RULES.items() if rule.reads_tokens):
        model.config.rule, model.config.prompt_sample = rule, None
        exact = torch.cat([model(row[None], return_expert_weights=True).expert_weights[:, -1] for row in ids])
        for sample in (None, *SAMPLES):
            model.config.prompt_sample = sample
            read: list[int] = []
            hook = model.lm_head.register_forward_pre_hook(functools.partial(note, read), with_kwargs=True)
            found = [model(row[None], logits_to_keep=1, return_expert_weights=True).expert_weights for row in ids]
            hook.remove()
            distances = ((torch.cat(found)[:, -1] - exact).abs().sum(-1) / 2).tolist()
            report.setdefault(rule, {})["what counts" if sample is None else f"sample {sample}"] = {
                "tokens_read": round(sum(read) / len(ids), 1),
                "distance_mean": round(sum(distances) / len(ids), 5),
                "distance_max": round(max(distances), 5),
            }
    model.config.prompt_sample = None
    return report


def note(read: list[int], head: Any, inputs: Any, named: dict[str, Any]) -> None:
    """Of how many tokens the whole head is asked."""
    read.append(inputs[0].shape[1] if named.get("normalisers") else 0)


if __name__ == "__main__":
    main()

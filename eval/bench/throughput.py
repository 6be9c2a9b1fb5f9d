"""Training speed of the monolithic setting beside transformers' Llama and GPT-2 of the same shape under one Trainer.

    python -m eval.bench.throughput --out eval/results/bench-throughput.json
    python -m eval.bench.throughput --layers 9 --width 1024 --batch 32 --context 1024 --device cuda

All have the same depth, width, heads, vocabulary and context, no dropout, and blocks of the same number of parameters
but for biases: Llama's gated MLP has three matrices, so it is 8/3 instead of 4 wide. Ours takes part twice: with
transformers' loss, as the others, and with the one that growth trains with, which never holds whole logits.
``--embeddings`` says what the other two do with their input table: ``tied`` to the head (the same trainable parameters
as ours), ``untied`` (a table more to train), or ``frozen`` (untied, not trained: the nearest to ours). They train in
turns in one process, a call of Trainer each, whose first steps are warm-up; a turn lasts from there on.
"""

import argparse
import functools
import tempfile

import torch
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from eval.bench import models
from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.timing import Clock, Seconds, alternate, ratios
from eval.bench.training_step import count_flops, describe, speed
from frozen_glyph.training.precision import uses_bf16

OURS, CHUNKED = "frozen_glyph", "frozen_glyph, chunked loss"
WARM_UP = 2  # steps of every call that do not count


def main() -> None:
    arguments = parse_arguments()
    write_report(measure(arguments), arguments.out)


def measure(arguments: argparse.Namespace) -> dict:
    """All models in turns."""
    contestants = {OURS: build_ours, CHUNKED: build_chunked, "llama": build_llama, "gpt2": build_gpt2}
    with tempfile.TemporaryDirectory() as folder:
        trainers, measured = {}, {}
        for name, build in contestants.items():
            at_rest = torch.cuda.memory_allocated() if arguments.device == "cuda" else 0
            trainers[name] = TimedTrainer(build(arguments), arguments, folder)
            measured[name] = trainers[name].describe()
            if arguments.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            trainers[name].seconds()  # makes the optimizer's state
            if arguments.device == "cuda":
                measured[name]["peak_gibibytes"] = round((torch.cuda.max_memory_allocated() - at_rest) / 2**30, 2)
        seconds = alternate({name: trainer.seconds for name, trainer in trainers.items()}, arguments.repeats)
    for name, entry in measured.items():
        entry |= speed(seconds[name], entry["flops"], arguments)
    ours_over_theirs = {
        ours: {name: ratios(entry, measured[ours]) for name, entry in measured.items() if name not in (OURS, CHUNKED)}
        for ours in (OURS, CHUNKED)
    }
    return {
        **describe(arguments),
        **{key: getattr(arguments, key) for key in ("layers", "embeddings", "steps", "repeats")},
        "models": measured,
        "our_tokens_per_second_over_theirs": ours_over_theirs,
        "holds": all(ratio["seconds_median"] >= 1 for ratio in ours_over_theirs[CHUNKED].values()),
    }


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=5)
    parser.add_argument("--layers", type=int, default=9, help="blocks (default: 9)")
    add_shape_arguments(parser, width=512, batch=4, context=256)
    parser.add_argument("--embeddings", choices=("tied", "untied", "frozen"), default="tied", help="of the other two")
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn that count (default: 3)")
    return parser.parse_args()


def build_ours(arguments: argparse.Namespace) -> torch.nn.Module:
    return models.build_model(arguments, arguments.layers)


def build_chunked(arguments: argparse.Namespace) -> torch.nn.Module:
    model = build_ours(arguments)
    model.forward = functools.partial(model.forward, skip_logits=True)
    return model


def build_llama(arguments: argparse.Namespace) -> torch.nn.Module:
    return with_input_table(models.build_llama(arguments, arguments.layers, arguments.embeddings == "tied"), arguments)


def build_gpt2(arguments: argparse.Namespace) -> torch.nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=arguments.vocab,
        n_embd=arguments.width,
        n_layer=arguments.layers,
        n_head=arguments.heads or arguments.width // 32,
        n_positions=arguments.context,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=arguments.embeddings == "tied",
    )
    return with_input_table(GPT2LMHeadModel(config), arguments)


def with_input_table(model: torch.nn.Module, arguments: argparse.Namespace) -> torch.nn.Module:
    model.get_input_embeddings().requires_grad_(arguments.embeddings != "frozen")
    return model


class RandomWindows(Dataset):
    """As many windows of random ids as training asks for; always the same."""

    def __init__(self, arguments: argparse.Namespace, length: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(arguments.vocab, (length, arguments.context), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


class WarmUp(TrainerCallback):
    """Starts a clock when the warm-up is over."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == WARM_UP:
            self.clock = Clock(self.device)


class TimedTrainer:
    """transformers' Trainer around ``model``, asked again and again for the seconds of a step."""

    def __init__(self, model: torch.nn.Module, arguments: argparse.Namespace, folder: str) -> None:
        self.model, self.steps = model, arguments.steps
        self.device = torch.device(arguments.device)
        self.warm_up = WarmUp(self.device)
        cuda = self.device.type == "cuda"
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=WARM_UP + arguments.steps,
            per_device_train_batch_size=arguments.batch,
            lr_scheduler_type="constant",
            learning_rate=1e-4,
            bf16=uses_bf16(arguments.precision),
            use_cpu=not cuda,
            dataloader_pin_memory=cuda,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        windows = RandomWindows(arguments, arguments.batch * settings.max_steps)
        self.trainer = Trainer(model=model, args=settings, train_dataset=windows, callbacks=[self.warm_up])
        self.trainer.remove_callback(PrinterCallback)
        self.batch = {
            name: torch.stack([windows[index][name] for index in range(arguments.batch)]).to(self.device)
            for name in ("input_ids", "labels")
        }

    def seconds(self) -> Seconds:
        """Of one step, the mean over a turn."""
        self.trainer.train()
        return self.warm_up.clock.read(self.steps)

    def describe(self) -> dict:
        """Its size and the FLOPs of a step."""
        config = self.model.config
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.trainer.args.bf16):
            flops = count_flops(lambda: self.model(**self.batch).loss.backward())
        self.model.zero_grad()
        return {
            "class": type(self.model).__name__,
            "intermediate_size": getattr(config, "intermediate_size", 4 * config.hidden_size),
            "parameters": self.model.num_parameters(),
            "trainable_parameters": self.model.num_parameters(only_trainable=True),
            "flops": flops,
        }


if __name__ == "__main__":
    main()

"""Log-likelihood scoring of our model beside transformers' Llama of the same shape, both under lm-eval's `--model hf`.

    python -m eval.bench.eval_speed --out eval/results/bench-eval-speed.json
    python -m eval.bench.eval_speed --data DIR --layers 9 --width 1024 --context 1024 --device cuda

Multiple choice in the two forms that tasks have: ``letters``, where the prompt shows the options and the continuation
is one letter (MMLU; lm-eval then asks the model once a question), and ``answers``, where each option itself follows the
question (ARC). Questions are those of ``DIR/mmlu/test``, or made of random words with about as many of them. All
contestants have the same depth, width, heads, vocabulary, context and tokenizer; Llama's gated MLP has three matrices,
so it is 8/3 instead of 4 wide. Both are loaded from a folder as ``lm_eval`` loads them and as ``frozen-glyph eval``
does, which computes only the logits that are scored; all score in turns in one process.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from eval.bench.command import add_shape_arguments, bench_arguments, write_report
from eval.bench.throughput import build_llama, build_ours
from eval.bench.timing import Seconds, alternate, ratios, summary, timed
from eval.bench.training_step import describe
from frozen_glyph.checkpoint.loading import load_model
from frozen_glyph.evaluation.tasks.answers import Answers
from frozen_glyph.evaluation.tasks.asking import AskedLM
from frozen_glyph.evaluation.tasks.benchmark_files import read_mmlu
from frozen_glyph.evaluation.tasks.harness import as_lm
from frozen_glyph.statistics import bootstrap_interval
from frozen_glyph.substrate.vocabulary import build_tokenizer
from frozen_glyph.training.precision import uses_bf16

Question = dict[str, Any]  # "question" and its "choices"
LETTERS = "ABCD"
LOADERS: dict[str, Callable[..., Any]] = {
    "lm_eval": lambda folder, **settings: HFLM(pretrained=str(folder), **settings),
    "frozen-glyph eval": lambda folder, batch_size, device: as_lm(*load_model(folder, device), batch_size),
}
PAIRS = [
    *((loader, f"llama, {loader}", f"frozen_glyph, {loader}") for loader in LOADERS),
    ("their lm_eval, our frozen-glyph eval", "llama, lm_eval", "frozen_glyph, frozen-glyph eval"),
]


def main() -> None:
    arguments = parse_arguments()
    write_report(measure(arguments), arguments.out)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All contestants in turns, for each form of the questions."""
    about = describe(arguments)
    questions = read_questions(arguments.data) if arguments.data else make_questions(arguments.questions)
    questions = random.Random(0).sample(questions, min(arguments.questions, len(questions)))
    forms = {"letters": letter_requests(questions), "answers": answer_requests(questions)}
    with tempfile.TemporaryDirectory() as folder:
        contestants = load_contestants(arguments, questions, Path(folder))
    measured: dict[str, dict[str, Any]] = {}
    theirs_over_ours: dict[str, dict[str, Any]] = {}
    for form, requests in forms.items():
        turns = {name: scoring(lm, requests, arguments) for name, lm in contestants.items()}
        seconds = alternate(turns, arguments.repeats, warm_up=1)
        measured[form] = {name: speed_of(seconds[name], len(requests)) for name in contestants}
        theirs_over_ours[form] = {
            name: ratios(measured[form][llama], measured[form][ours]) | paired_ratio(seconds[llama], seconds[ours])
            for name, llama, ours in PAIRS
        }
    return {
        **about,
        **{name: getattr(arguments, name) for name in ("layers", "repeats")},
        "questions": len(questions),
        "parameters": {name: lm.model.num_parameters() for name, lm in contestants.items()},
        "measured": measured,
        "time_of_llama_over_ours": theirs_over_ours,
        "holds": all(own["seconds_median"] >= 1 for entry in theirs_over_ours.values() for own in entry.values()),
    }


def parse_arguments() -> argparse.Namespace:
    parser = bench_arguments(__doc__, repeats=5)
    parser.add_argument("--layers", type=int, default=4, help="blocks (default: 4)")
    add_shape_arguments(parser, width=512, batch=8, context=512)
    parser.add_argument("--data", type=Path, help="folder with mmlu/test/*.csv (default: random words)")
    parser.add_argument("--questions", type=int, default=32, help="questions of a turn (default: 32)")
    parser.set_defaults(embeddings="untied")  # of Llama: the head's product is the same either way
    return parser.parse_args()


def read_questions(data: Path) -> list[Question]:
    return [row for path in sorted((data / "mmlu" / "test").glob("*.csv")) for row in read_mmlu(path)]


def make_questions(count: int) -> list[Question]:
    """Random words in lengths like MMLU's: half of its questions have up to 26 words, a tenth more than 120."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(2000)]

    def text(median: float, spread: float) -> str:
        return " ".join(generator.choices(words, k=max(1, round(generator.lognormvariate(0, spread) * median))))

    return [{"question": text(26, 1.2), "choices": [text(5, 0.8) for _ in LETTERS]} for _ in range(count)]


def letter_requests(questions: list[Question]) -> list[Instance]:
    prompts = [
        "\n".join([each["question"], *map("{}. {}".format, LETTERS, each["choices"]), "Answer:"]) for each in questions
    ]
    return instances([(prompt, f" {letter}") for prompt in prompts for letter in LETTERS])


def answer_requests(questions: list[Question]) -> list[Instance]:
    return instances(
        [(f"Question: {each['question']}\nAnswer:", f" {choice}") for each in questions for choice in each["choices"]]
    )


def instances(pairs: list[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def load_contestants(arguments: argparse.Namespace, questions: list[Question], folder: Path) -> dict[str, HFLM]:
    """Save both models with one tokenizer, learnt from the questions, and load them as lm-eval and as we do."""
    texts = [" ".join([each["question"], *each["choices"]]) for each in questions]
    tokenizer = build_tokenizer(texts, "bmp" if arguments.vocab >= 65536 else arguments.vocab)
    dtype = torch.bfloat16 if uses_bf16(arguments.precision) else torch.float32
    for name, build in (("llama", build_llama), ("frozen_glyph", build_ours)):
        model = build(arguments).to("cpu", dtype)
        model.config.use_cache = True  # as a checkpoint says
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    settings = {"batch_size": arguments.batch, "device": arguments.device}
    return {
        f"{name}, {loader}": load(folder / name, **settings)
        for loader, load in LOADERS.items()
        for name in ("llama", "frozen_glyph")
    }


def scoring(lm: HFLM, requests: list[Instance], arguments: argparse.Namespace) -> Callable[[], Seconds]:
    def score() -> None:
        if isinstance(lm, AskedLM):
            lm.answers = Answers(None)  # else it would know those of the turn before
        lm.loglikelihood(requests, disable_tqdm=True)

    return timed(score, arguments.device)


def speed_of(seconds: list[Seconds], requests: int) -> dict[str, float]:
    times = summary(seconds)
    return {**times, "requests_per_second": round(requests / times["seconds_median"], 2)}


def paired_ratio(llama: list[Seconds], ours: list[Seconds]) -> dict[str, Any]:
    """Time of all turns of Llama over ours and its bootstrap interval, for which whole turns are drawn."""
    walls = [[turn.wall for turn in turns] for turns in (llama, ours)]
    low, high = bootstrap_interval(*walls)
    return {"seconds_total": round(sum(walls[0]) / sum(walls[1]), 4), "interval_95": [round(low, 4), round(high, 4)]}


if __name__ == "__main__":
    main()

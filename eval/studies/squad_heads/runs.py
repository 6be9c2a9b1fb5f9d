"""The runs of the study of SQuAD heads: one fine-tuning of a model or of its untrained control; the baselines."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from eval.studies.emergence import runs as emergence
from eval.studies.emergence.runs import CONTROL, GROWN
from eval.studies.squad_heads.questions import (
    Example,
    Question,
    answer_of,
    encode,
    first_words,
    random_spans,
    read_questions,
    sample,
)
from eval.tasks.squad_scoring import score_answer
from frozen_glyph import FrozenGlyphConfig

UNTRAINED = "untrained"
# Of the emergence study after its last stage, or after stage K as NAME@K; and the grown shape with random weights.
ARMS = (CONTROL, GROWN + "@1", GROWN + "@2", GROWN + "@3", GROWN, "two-blocks", "joint", UNTRAINED)
KEPT_SHARE = 0.15  # of the training articles: what a rate is chosen on


@dataclass(frozen=True)
class Scale:
    learning_rate: float = 2e-3
    train: int = 2000
    kept: int = 300
    test: int = 1000
    epochs: float = 3
    batch: int = 16
    longest_answer: int = 30  # tokens


SMOKE = Scale(train=12, kept=4, test=6, epochs=1, batch=4)


def start_of(arm: str, seed: int, grown: Path, scale: emergence.Scale) -> Path:
    """Of the emergence study's model that ``arm`` starts from."""
    return emergence.folder_of(GROWN if arm == UNTRAINED else arm.partition("@")[0], seed, grown, scale)


def load_parts(model: Path, data: Path, scale: Scale) -> tuple[list[Example], list[Example], list[Example]]:
    """What is trained on, what a rate is chosen on and what is reported, no article in two of them."""
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    positions = FrozenGlyphConfig.from_pretrained(model).max_position_embeddings
    known = read_questions(data / "squad" / "train-v1.1.subset.json")
    articles = list(dict.fromkeys(question.article for question in known))
    kept = set(sample(articles, max(1, round(KEPT_SHARE * len(articles)))))

    def part(questions: list[Question], count: int) -> list[Example]:
        found = sample(encode(questions, tokenizer, positions), count)
        if not found:
            raise SystemExit(
                f"no question fits the {positions} positions of {str(model)!r}; name a model that reads more"
            )
        return found

    return (
        part([question for question in known if question.article not in kept], scale.train),
        part([question for question in known if question.article in kept], scale.kept),
        part(read_questions(data / "squad" / "dev-v1.1.json"), scale.test),
    )


def make_model(folder: Path, arm: str, seed: int) -> Any:
    """The model of ``arm`` with a new head, all blocks of which train; ``UNTRAINED`` keeps its substrate alone."""
    stage = arm.partition("@")[2]
    torch.manual_seed(seed)
    model = AutoModelForQuestionAnswering.from_pretrained(
        folder,
        growth_stage=int(stage) if stage else None,
        num_frozen_layers=0,
        trust_remote_code=False,
        dtype=torch.float32,
    )
    if arm != UNTRAINED:
        return model
    torch.manual_seed(seed)
    fresh = type(model)(model.config)
    fresh.substrate.load_state_dict(model.substrate.state_dict())
    return fresh


def fine_tune(folder: Path, data: Path, scale: Scale, arm: str, rate: float, seed: int) -> dict[str, Any]:
    """Train one head: F1 and exact match of every question that is asked; ``development`` falls with the F1 of kept."""
    train, kept, test = load_parts(folder, data, scale)
    model = make_model(folder, arm, seed)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            num_train_epochs=scale.epochs,
            per_device_train_batch_size=scale.batch,
            per_device_eval_batch_size=scale.batch,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=[example.inputs for example in train],
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()

        def scores(examples: list[Example]) -> dict[str, list[float]]:
            found = trainer.predict([example.inputs for example in examples]).predictions
            starts, ends = (torch.as_tensor(logits) for logits in found[:2])
            entries = [
                score_answer(answer_of(example, start, end, scale.longest_answer), list(example.question.answers))
                for example, start, end in zip(examples, starts, ends, strict=True)
            ]
            return {name: [entry[name] for entry in entries] for name in ("exact", "f1")}

        return {
            "blocks": model.config.num_hidden_layers,
            "train_questions": len(train),
            "development": -sum(scores(kept)["f1"]) / len(kept),
            "test": scores(test),
            "cpu_seconds": time.process_time(),
        }


def baselines(folder: Path, data: Path, scale: Scale) -> dict[str, Any]:
    """``articles`` of the test questions and, by name, the scores of answers that no model gives."""
    train, _, test = ([example.question for example in part] for part in load_parts(folder, data, scale))
    first, words = first_words(test, train)
    found = {f"first {words} words": first, "random span": random_spans(test, train)}
    return {
        "articles": [question.article for question in test],
        "scores": {
            label: {name: [entry[name] for entry in entries] for name in ("exact", "f1")}
            for label, entries in found.items()
        },
    }

"""A tiny random Llama, a small byte-fallback tokenizer and a handful of benchmark items, all made in-process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from frozen_glyph.evaluation.tasks.mirror import Mirror, write_mirror

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,:?!'\"()-\n"


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per common character, bytes for the rest, and words split before their space."""
    vocabulary = {"<pad>": 0, "<eos>": 1}
    for token in [f"<0x{byte:02X}>" for byte in range(256)] + list(LETTERS):
        vocabulary[token] = len(vocabulary)
    backend = Tokenizer(BPE(vocabulary, [], byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?\S+|\s+"), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def tiny_llama(vocab_size: int, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=512, pad_token_id=0, eos_token_id=1, bos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def model(byte_tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return tiny_llama(len(byte_tokenizer), seed=0)


@pytest.fixture(scope="session")
def model_folders(byte_tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoint folders with the same tokenizer and different weights."""
    folders = []
    for seed, name in enumerate(["first", "second"]):
        folder = tmp_path_factory.mktemp("models") / name
        tiny_llama(len(byte_tokenizer), seed).save_pretrained(folder)
        byte_tokenizer.save_pretrained(folder)
        folders.append(folder)
    return folders


def _write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lettered(number: int, choices: list[str], keys: str, answer: str, stem: str) -> str:
    options = [{"text": text, "label": key} for text, key in zip(choices, keys, strict=True)]
    question = {"stem": stem, "question_concept": "concept", "choices": options}
    return json.dumps({"id": f"q{number}", "question": question, "answerKey": answer})


def _squad(version: str) -> str:
    answers = [
        {"id": f"s{number}", "question": f"What is number {number}?", "answers": [{"text": word, "answer_start": 0}]}
        for number, word in enumerate(["one", "two", "three", "the fourth answer"])
    ]
    unanswerable: dict[str, Any] = {"id": "none", "question": "What?", "answers": [], "is_impossible": True}
    questions = [*answers, unanswerable] if version == "v2.0" else answers
    context = "one two three the fourth answer"
    articles = [
        {"title": title, "paragraphs": [{"context": context, "qas": own}]}
        for title, own in (("Numbers", questions[:2]), ("More numbers", questions[2:]))
    ]
    return json.dumps({"version": version, "data": articles})


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in the published formats, with a few items of every benchmark and two held-out texts."""
    folder = tmp_path_factory.mktemp("data")
    _write(folder / "mmlu/test/anatomy_test.csv", '"Which, of these?",a,b,c,d,B', "How many?,1,2,3,4,D")
    _write(folder / "mmlu/test/world_religions_test.csv", '"Two\nlines?","x, y",z,u,v,A')
    for subject in ("anatomy", "world_religions", "marketing"):  # marketing has no test file
        for split in ("dev", "val"):
            _write(folder / f"mmlu/{split}/{subject}_{split}.csv", f"{subject} {split}?,e,f,g,h,C")
    for name in ("Easy", "Challenge"):
        four = _lettered(1, ["sun", "moon", "sea", "sand"], "ABCD", "C", "Where do fish live?")
        three = _lettered(2, ["red", "green", "blue"], "123", "1", "Colour of blood?")
        _write(folder / f"arc/ARC-{name}-Test.jsonl", four, three)
        _write(folder / f"arc/ARC-{name}-Dev.jsonl", three, four)
    five = _lettered(3, ["bank", "mall", "zoo", "sea", "road"], "ABCDE", "E", "Where are cars?")
    _write(folder / "commonsense_qa/dev_rand_split.jsonl", five, five)
    yes = json.dumps({"question": "is water wet", "passage": "Water is wet.", "answer": True})
    no = json.dumps({"question": "is fire cold", "passage": "Fire is hot.", "answer": False})
    _write(folder / "boolq/dev.jsonl", yes, no)
    _write(folder / "squad/dev-v1.1.json", _squad("1.1"))
    _write(folder / "squad/dev-v2.0.json", _squad("v2.0"))
    for pair, hello, bye in (("en-ru", "Привет.", "До свидания."), ("en-zh", "你好。", "再见。")):
        _write(folder / f"opus/ntrex.{pair}.tsv", f"bbc.1\tHello.\t{hello}", f"cnn.2\tGoodbye.\t{bye}")
    sentence = "The old man went to the sea and told the fish what he wanted."
    _write(folder / "text/en.valid.txt", *[f"{sentence} {number}" for number in range(12)])
    _write(folder / "text/ru.valid.txt", *[f"Жил старик со своею старухой. {number}" for number in range(12)])
    _write(folder / "text/zh.valid.txt", "从前有一位老人。", "他住在海边。", "", "第二篇。")
    return folder


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what ``datasets`` prepares out of the user's cache."""
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="session")
def mirror(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    return write_mirror(data_folder, tmp_path_factory.mktemp("mirrors") / "mirror")

"""What a model cannot answer is an item that counts as wrong and is told, and ends nothing."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lm_eval.api.instance import Instance
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.candidates import find_candidates, load_model
from frozen_glyph.evaluation.evaluate import evaluate_models
from frozen_glyph.evaluation.tasks.answers import NOT_A_NUMBER, request_key
from frozen_glyph.evaluation.tasks.asking import BLANK, TOO_LONG
from frozen_glyph.evaluation.tasks.harness import as_lm

LONG = " a" * 600  # the models read 512 tokens


def requests(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, pair, index) for index, pair in enumerate(arguments)]


def test_impossible_requests_do_not_touch_the_others(model_folders: list[Path], tmp_path: Path) -> None:
    lm = as_lm(*load_model(model_folders[0]), batch_size=2, answers=tmp_path / "a.jsonl", identity=1)
    pairs = [("Who?", " I"), ("Who?", LONG), (" \n", " I"), ("Who?", ""), ("", ""), ("", " I"), (LONG, " I")]
    found = lm.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    alone = [lm.loglikelihood(requests("loglikelihood", [pair]), disable_tqdm=True)[0] for pair in (pairs[0], pairs[6])]
    assert [found[0], found[6]] == alone and math.isfinite(found[5][0])
    assert found[1:5] == [(-math.inf, False)] * 4
    reasons = [lm.unscored.get(request_key(pair)) for pair in pairs]
    assert reasons == [None, TOO_LONG, None if reasons[2] is None else BLANK, BLANK, BLANK, None, None]
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3  # no such answer is kept


def test_generation_without_room_or_prompt_is_no_text(model_folders: list[Path]) -> None:
    lm = as_lm(*load_model(model_folders[0]), batch_size=2)
    asked = [("Who?", {"until": ["\n"], "max_gen_toks": tokens}) for tokens in (4, 511, 512, 9999)]
    asked += [("", {"until": ["\n"]}), (LONG, {"until": ["\n"], "max_new_tokens": 4}), ("Who?", {"max_tokens": 600})]
    found = lm.generate_until(requests("generate_until", asked), disable_tqdm=True)
    reasons = [lm.unscored.get(request_key(arguments)) for arguments in asked]
    assert reasons == [None, None, TOO_LONG, TOO_LONG, BLANK, None, TOO_LONG]
    assert all(text == "" for text, reason in zip(found, reasons, strict=True) if reason)


def test_texts_without_tokens_have_no_likelihood(model_folders: list[Path]) -> None:
    lm = as_lm(*load_model(model_folders[0]))
    found = lm.loglikelihood_rolling(requests("loglikelihood_rolling", [("",), (LONG,)]), disable_tqdm=True)
    assert found[0] == -math.inf and math.isfinite(found[1])


@pytest.fixture
def damaged(model_folders: list[Path], tmp_path: Path) -> Path:
    """A model of which one weight is no number."""
    model, tokenizer = load_model(model_folders[0])
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = math.nan
    model.save_pretrained(tmp_path / "damaged")
    tokenizer.save_pretrained(tmp_path / "damaged")
    return tmp_path / "damaged"


def test_a_model_that_gives_no_number_answers_nothing(damaged: Path) -> None:
    lm = as_lm(*load_model(damaged))
    pair, sampled = ("Who?", " I"), ("Who?", {"until": ["\n"], "do_sample": True, "temperature": 1.0})
    assert lm.loglikelihood(requests("loglikelihood", [pair]), disable_tqdm=True) == [(-math.inf, False)]
    assert lm.generate_until(requests("generate_until", [sampled]), disable_tqdm=True) == [""]
    rolling = lm.loglikelihood_rolling(requests("loglikelihood_rolling", [("Who?",)]), disable_tqdm=True)
    assert rolling == [-math.inf]
    assert set(lm.unscored.values()) == {NOT_A_NUMBER} and len(lm.unscored) == 3


@pytest.fixture
def own_task(tmp_path: Path) -> Path:
    """Four items, the right choice first: two plain, one whose wrong choice is too long, one with a blank question."""
    items = [
        {"question": "Who?", "choices": [" I", " you"]},
        {"question": "Where?", "choices": [" here", " there"]},
        {"question": "Why?", "choices": [" so", LONG]},
        {"question": "", "choices": ["", " x"]},
    ]
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "own.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    task = {
        "task": "own_choice", "dataset_path": "json", "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(folder / "own.jsonl")}},
        "output_type": "multiple_choice", "doc_to_text": "question", "doc_to_choice": "choices", "doc_to_target": 0,
        "target_delimiter": "", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(task))
    rolling = task | {
        "task": "own_rolling",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "question",
    }
    rolling |= {"metric_list": [{"metric": "word_perplexity"}]}
    (folder / "rolling.yaml").write_text(yaml.safe_dump(rolling))
    return folder


def test_items_that_cannot_be_answered_count_as_wrong_and_are_told(
    model_folders: list[Path], own_task: Path, damaged: Path, tmp_path: Path
) -> None:
    text = tmp_path / "en.txt"
    text.write_text("Once upon a time there was a fish. " * 40)
    options: dict[str, Any] = {"task_folders": [own_task], "tasks": ["own_choice"], "texts": [text]}
    said: list[str] = []
    report = evaluate_models([model_folders[0], damaged], "hub", tmp_path / "out", say=said.append, **options)
    whole, broken = (score for score in report["scores"] if score["metric"] == "acc")
    assert (whole["total"], whole["unscored"]) == (4, 2) and whole["correct"] <= 2
    assert (broken["total"], broken["unscored"], broken["correct"]) == (4, 4, 0)
    remarks = report["provenance"]["remarks"]
    assert f"first cannot answer 1 of 4 items of own_choice, which count as wrong: {TOO_LONG}" in remarks
    assert f"damaged cannot answer 3 of 4 items of own_choice, which count as wrong: {NOT_A_NUMBER}" in remarks
    assert any(remark.startswith("damaged gives no loss of text en") for remark in remarks)
    assert set(remarks) <= set(said) and "could not be measured" in report["note"]

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    stored = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"), parse_constant=refuse)
    assert [loss["value"] is None for loss in stored["losses"]] == [False, True]
    for part in (tmp_path / "out" / "parts").glob("*.json"):
        json.loads(part.read_text("utf-8"), parse_constant=refuse)
    for name in ("report.md", "report.html"):
        page = (tmp_path / "out" / name).read_text("utf-8")
        assert "no number" in page and not re.search(r"\bnan\b", page)
    again = evaluate_models([model_folders[0], damaged], "hub", tmp_path / "out", **options)
    assert json.dumps(again["scores"]) == json.dumps(report["scores"])  # read from parts/


@pytest.mark.parametrize("positions", [2, 64])
def test_a_short_context_ends_nothing(
    byte_tokenizer: PreTrainedTokenizerFast, own_task: Path, data_folder: Path, tmp_path: Path, positions: int
) -> None:
    """Whose positions are a table, as GPT-2's, can read no token more."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(byte_tokenizer), n_positions=positions, n_embd=16, n_layer=1, n_head=2, bos_token_id=1,
            eos_token_id=1,
        )
    )  # fmt: skip
    model.save_pretrained(tmp_path / "short")
    byte_tokenizer.save_pretrained(tmp_path / "short")
    options: dict[str, Any] = {"task_folders": [own_task], "texts": [data_folder / "text" / "en.valid.txt"]}
    tasks = ["own_choice", "squadv2", "paper_bleu_en_ru"]
    report = evaluate_models([tmp_path / "short"], data_folder, tmp_path / "out", tasks=tasks, **options)
    assert {score["task"] for score in report["scores"]} == set(tasks) and len(report["samples"]) == 1
    assert 0 < next(score for score in report["scores"] if score["task"] == "own_choice")["unscored"] <= 4
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps(config | {"n_positions": 1}))
    with pytest.raises(FrozenGlyphError, match=r"short' reads 1 tokens"):
        find_candidates([str(tmp_path / "short")])


def test_a_task_without_right_and_wrong_is_refused_before_the_work(
    model_folders: list[Path], own_task: Path, tmp_path: Path
) -> None:
    with pytest.raises(FrozenGlyphError, match=r"task 'own_rolling' measures the loss of whole texts"):
        evaluate_models(model_folders[:1], "hub", tmp_path, task_folders=[own_task], tasks=["own_rolling"], texts=[])

"""The unseen study: every unseen character has an id that training never read; equal steps for all; the command."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from eval.studies.substrate.arms import build_model
from eval.studies.substrate.data import open_windows
from eval.studies.unseen import __main__ as command
from eval.studies.unseen import probes, runs
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.text.documents import split_documents

ROOT = Path(__file__).parents[2]
SENTENCES = {
    "en": "The cat sat on the mat, and the hat is on the cat.\n",
    "eo": "La kato sidis sur la tapiŝo, kaj la ĉapelo estas sur ĝi.\n",
}
GREEK = "Η γάτα κάθισε στο χαλί, και το καπέλο είναι πάνω της.\n"
SCALE = dataclasses.replace(probes.SMOKE, languages=tuple(SENTENCES), vocab_size=400)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder with two languages, and an unseen text."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "text").mkdir()
    for language, sentence in SENTENCES.items():
        for ending, times in (("", 40), (".valid", 6)):
            text = "\n\n".join([(sentence * times).strip()] * 10)
            (folder / "text" / f"{language}{ending}.txt").write_text(text, encoding="utf-8")
    (folder / "el.txt").write_text("\n\n".join([(GREEK * 20).strip()] * 14), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    unseen = {"el": data / "el.txt"}
    folder = probes.study_folder(SCALE, data, unseen, tmp_path_factory.mktemp("work"))
    probes.prepare(SCALE, data, unseen, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_unseen_characters_are_ids_behind_a_vocabulary_learnt_without_them(folder, tokenizer):
    """None is spelt in bytes, none of them was read, and what was read is tokens as it was before they came."""
    letters = sorted(set(GREEK) - set("".join(SENTENCES.values())))
    ids = tokenizer.convert_tokens_to_ids(letters)
    assert ids == list(range(len(tokenizer) - len(letters), len(tokenizer)))
    assert tokenizer("γάτα")["input_ids"] == tokenizer.convert_tokens_to_ids(list("γάτα"))
    assert tokenizer.decode(tokenizer(GREEK)["input_ids"]) == GREEK
    read = open_windows(folder, tokenizer, SCALE.context_length).tokens
    assert not set(ids) & set(read.tolist())
    fewer = probes.with_characters(tokenizer, "ж")
    assert len(fewer) == len(tokenizer) + 1
    for sentence in SENTENCES.values():
        assert fewer(sentence)["input_ids"] == tokenizer(sentence)["input_ids"]


def test_documents_to_score_are_not_trained_on(tmp_path):
    numbered = [f"{number}: {'γ' * 50}" for number in range(30)]
    (tmp_path / "el.txt").write_text("\n\n".join(numbered), encoding="utf-8")
    scale = dataclasses.replace(SCALE, scored_characters=10)
    parts = probes.part_documents(scale, "el", tmp_path / "el.txt")
    assert parts["unseen"] == [text[:10] for text in numbered[:12:2]] and parts["adapting"] == numbered[1::2]
    (tmp_path / "few.txt").write_text("\n\n".join(numbered[:11]), encoding="utf-8")
    with pytest.raises(FrozenGlyphError, match=r"few\.txt' has 11 documents; at least 12 are needed"):
        probes.part_documents(scale, "el", tmp_path / "few.txt")


def test_an_unseen_text_that_is_too_short_to_train_on_is_named_before_any_run(data, tmp_path):
    (tmp_path / "el.txt").write_text("\n\n".join([GREEK.strip()] * 12), encoding="utf-8")
    scale = dataclasses.replace(SCALE, adapted=(0, 30))
    with pytest.raises(FrozenGlyphError, match="windows of 64 tokens to train on, 60 are needed"):
        probes.prepare(scale, data, {"el": tmp_path / "el.txt"}, tmp_path / "work")
    assert not (tmp_path / "work" / "study.json").exists()


def test_a_probe_scores_after_each_number_of_steps_and_leaves_the_model_as_it_was(folder, tokenizer):
    model, _ = build_model("random-long", 0, tokenizer, SCALE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    read = np.ones(len(tokenizer), dtype=np.int64)
    read[tokenizer.convert_tokens_to_ids(["γ", "τ"])] = 0
    texts, facts = runs.probe(model, "el", 0, SCALE, folder, read)
    assert list(texts) == ["el@0", "el@1", "el@2"]
    losses = [sum(text["nats"]) for text in texts.values()]
    assert losses == sorted(losses, reverse=True) and losses[2] < 0.95 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert facts["losses"][f"{facts['rate']:g}"] == min(facts["losses"].values())
    ids = [tokenizer(text)["input_ids"] for text in split_documents((folder / "el.unseen.txt").read_text("utf-8"))]
    known = [read[document] > 0 for document in ids]
    assert facts["never_read"] == pytest.approx(1 - np.concatenate(known).mean())
    behind = [int((~document[:-1] & document[1:]).sum()) for document in known]
    assert texts["el@0"]["rare"]["0"]["tokens"] == behind and min(behind) > 0


def test_arms_take_equal_steps_on_an_unseen_text(folder, tokenizer):
    """Frozen vectors stay, a table trains with the rest; the first loss is that of the model as it is."""
    rows = probes.adapting_windows(SCALE, "el", folder, tokenizer)
    batches = torch.stack([rows[0]["input_ids"], rows[1]["input_ids"]]).split(1)
    for kind in ("random", "trainable"):
        model, _ = build_model(kind, 0, tokenizer, SCALE)
        moved = []
        losses = runs.adapt(
            model,
            batches,
            1e-2,
            lambda steps, copy, vectors=model.substrate.weight, moved=moved: moved.append(
                not torch.equal(copy.substrate.weight, vectors)
            ),
        )
        with torch.no_grad(), runs.scoring():
            assert losses[0] == pytest.approx(model(input_ids=batches[0], labels=batches[0]).loss.item(), rel=1e-3)
        assert moved == [kind == "trainable"] * 2


@pytest.mark.parametrize(
    ("unseen", "error"),
    [
        (["el"], "'el' must be NAME=FILE"),
        (["e@l=el.txt"], "must be NAME=FILE"),
        (["el=el.txt", "el=uk.txt"], "each NAME must stand for one text"),
        (["en=el.txt"], "no language that is trained on"),
        (["el=missing.txt"], "'missing.txt'"),
    ],
)
def test_a_wrong_text_is_one_error(unseen, error, data, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["unseen", "--data", str(data), "--languages", "en", "eo", "--unseen", *unseen])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2 and error in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_writes_a_report(data, tmp_path):
    arguments = ["--data", data, "--languages", "en", "eo", "--unseen", f"el={data / 'el.txt'}", "--smoke"]
    arguments += ["--kinds", "grid-whitened", "trainable", "--seeds", "2"]
    arguments += ["--out", tmp_path / "unseen", "--work", tmp_path / "work"]
    command = [sys.executable, "-m", "eval.studies.unseen", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True)
    report = json.loads((tmp_path / "unseen.json").read_text("utf-8"))
    assert [row["language"] for row in report["comparisons"]] == ["en", "eo", "el@0", "el@1", "el@2"]
    for row in report["comparisons"]:
        losses = [report["kinds"][row[key]]["losses"][row["language"]]["loss"] for key in ("kind", "baseline")]
        assert row["difference"] == pytest.approx(losses[0] - losses[1])
    assert report["unseen"]["el"]["never_read"] > 0.5 and not report["settings"]["rates_given"]
    work = next((tmp_path / "work").iterdir())
    again = subprocess.run([*command, "--rates", str(work)], cwd=ROOT, check=True, capture_output=True, text=True)
    assert " of " not in again.stderr  # no run is due
    assert json.loads((tmp_path / "unseen.json").read_text("utf-8"))["comparisons"] == report["comparisons"]

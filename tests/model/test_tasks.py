"""Task heads on grown and merged models: what they read, what trains, what a save keeps and a load refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

import frozen_glyph
from frozen_glyph.model.configuration_frozen_glyph import TASKS
from frozen_glyph.model.pretrained_frozen_glyph import HEADS

AUTO = {
    "SequenceClassification": AutoModelForSequenceClassification,
    "TokenClassification": AutoModelForTokenClassification,
    "QuestionAnswering": AutoModelForQuestionAnswering,
}
HEAD = {"SequenceClassification": "score", "TokenClassification": "score", "QuestionAnswering": "qa_outputs"}
LABELS = 3


@pytest.fixture(scope="module")
def folders(experts, merged_folder):
    return {"grown": experts[1], "merged": merged_folder}


@pytest.fixture(scope="module")
def load(folders):
    """``load(kind, task, **arguments)``: with a new head, the same at every call."""

    def from_folder(kind, task, **arguments):
        torch.manual_seed(7)
        labels = {} if task == "QuestionAnswering" else {"num_labels": LABELS}
        return AUTO[task].from_pretrained(folders[kind], **labels, **arguments).eval()

    return from_folder


def logits_of(outputs) -> torch.Tensor:
    return outputs.logits if "logits" in outputs else torch.stack([outputs.start_logits, outputs.end_logits], -1)


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def targets(task, ids) -> dict[str, torch.Tensor]:
    """Labels of texts ``ids`` [B, T] that can be learnt."""
    if task == "SequenceClassification":
        return {"labels": ids[:, -1] % LABELS}
    if task == "TokenClassification":
        return {"labels": ids % LABELS}
    return {"start_positions": ids[:, 0] % ids.shape[1], "end_positions": ids[:, 1] % ids.shape[1]}


def test_every_task_is_known():
    assert set(AUTO) == set(TASKS) and set(HEADS) == {"lm_head", *HEAD.values()}


@torch.no_grad()
@pytest.mark.parametrize("rule", ["mean", "posterior"])
@pytest.mark.parametrize("kind", ["grown", "merged"])
@pytest.mark.parametrize("task", TASKS)
def test_a_head_reads_the_states_of_the_base_model(load, folders, token_ids, task, kind, rule):
    """One Linear on what ``AutoModel`` returns, padding or not: of merged experts on all states side by side."""
    rules = {"rule": rule} if kind == "merged" else {}
    model, base = load(kind, task, **rules), AutoModel.from_pretrained(folders[kind], **rules).eval()
    assert type(model).__name__ == f"FrozenGlyph{'MoE' if kind == 'merged' else ''}For{task}"
    assert type(model) is getattr(frozen_glyph, type(model).__name__)
    ids, mask = token_ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    ids[1, 6:], mask[1, 6:] = model.config.pad_token_id, 0
    states = base(ids, attention_mask=mask).last_hidden_state
    assert states.shape[-1] == (2 if kind == "merged" else 1) * model.config.hidden_size
    head = getattr(model, HEAD[task])
    expected = torch.nn.functional.linear(states, head.weight, head.bias)
    if task == "SequenceClassification":
        expected = torch.stack([expected[0, 8], expected[1, 5]])
    assert torch.equal(logits_of(model(ids, attention_mask=mask)), expected)


@torch.no_grad()
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_every_growth_stage_takes_a_head(load, folders, token_ids, task, stage):
    model = load("grown", task, growth_stage=stage)
    base, ids = AutoModel.from_pretrained(folders["grown"], growth_stage=stage), token_ids(2, 7)
    assert torch.equal(model.model(ids).last_hidden_state, base(ids).last_hidden_state)
    assert {name.split(".")[2] for name in trainable(model) if ".layers." in name} == {1: {"0"}, 2: {"1", "2"}}[stage]


@pytest.mark.parametrize("task", TASKS)
def test_the_head_and_what_trained_before_train(load, folders, task):
    """The substrate, the blocks of earlier stages and merged experts stay frozen, unless more is asked for."""
    head = {name for name in trainable(load("merged", task)) if name.startswith(f"{HEAD[task]}.")}
    assert trainable(load("merged", task)) == head
    below = {
        name for name in trainable(AutoModelForCausalLM.from_pretrained(folders["grown"])) if "lm_head" not in name
    }
    assert trainable(load("grown", task)) == below | head
    for stage in (1, 2):
        thawed = load("grown", task, growth_stage=stage, num_frozen_layers=0)
        assert trainable(thawed) == {name for name, _ in thawed.named_parameters()}
        assert thawed.config.num_hidden_layers == {1: 1, 2: 3}[stage]
    dense = load("grown", task).to_dense()
    assert "model.embed_tokens.weight" not in trainable(dense)
    dense.substrate.requires_grad_(True)
    assert "model.embed_tokens.weight" in trainable(dense)


@pytest.mark.parametrize(("task", "kind"), list(zip(TASKS, ["merged", "grown", "merged"], strict=True)))
def test_trainer_trains_saves_and_loads(load, folders, token_ids, tmp_path, task, kind):
    """Two accumulated batches move what trains and nothing else; the folder gives the same logits again."""
    model, ids = load(kind, task), token_ids(8, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = {"input_ids": ids, **targets(task, ids)}
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2}
    arguments = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **settings,
    )
    data = [{name: column[row] for name, column in rows.items()} for row in range(len(ids))]
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    after = model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == trainable(model)
    trainer.save_model(str(tmp_path / "saved"))
    again = AUTO[task].from_pretrained(tmp_path / "saved").eval()
    assert torch.equal(logits_of(again(ids)), logits_of(model.eval()(ids)))
    assert trainable(again) == trainable(model)
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"tokenizer.json", "substrate.json", "tasks_frozen_glyph.py"} <= files
    config = json.loads((tmp_path / "saved" / "config.json").read_text("utf-8"))
    original = json.loads((folders[kind] / "config.json").read_text("utf-8"))
    assert config["substrate_fingerprint"] == original["substrate_fingerprint"]
    assert config["auto_map"] == original["auto_map"] and config["architectures"] == [type(model).__name__]
    assert f"pipeline_tag: {model.pipeline_tag}\n" in (tmp_path / "saved" / "README.md").read_text("utf-8")


def test_accumulated_batches_are_averaged(load, token_ids, tmp_path):
    """The gradient of two batches of four is that of one of eight."""
    ids, norms = token_ids(8, 6), []
    rows = {"input_ids": ids, **targets("SequenceClassification", ids)}
    data = [{name: column[row] for name, column in rows.items()} for row in range(len(ids))]
    for batch in (4, 8):
        arguments = TrainingArguments(
            str(tmp_path), max_steps=1, per_device_train_batch_size=batch, gradient_accumulation_steps=8 // batch,
            logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        trainer = Trainer(load("grown", "SequenceClassification"), arguments, train_dataset=data)
        trainer.train()
        norms.append(next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry))
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_a_trained_head_is_never_made_anew(load, tmp_path):
    """A folder of the class itself, or one that holds a part of the head, must hold all of it."""
    load("grown", "QuestionAnswering").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for missing in (["qa_outputs.bias"], ["qa_outputs.bias", "qa_outputs.weight"]):
        left = {name: tensor for name, tensor in tensors.items() if name not in missing}
        save_file(left, tmp_path / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=f"does not fit .*missing: {', '.join(missing)}"):
            AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).score.out_features == 2


@pytest.mark.parametrize(
    ("saved", "asked", "said"),
    [
        ("SequenceClassification", "TokenClassification", "missing: score.bias"),
        ("TokenClassification", "SequenceClassification", "unexpected: score.bias"),
    ],
)
def test_a_head_of_the_same_name_is_of_another_task(load, tmp_path, saved, asked, said):
    load("grown", saved).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=said):
        AUTO[asked].from_pretrained(tmp_path, num_labels=LABELS)


def test_folders_of_one_task_for_another(load, token_ids, tmp_path):
    """The base model and another head come of it; a language model, whose head it has not, does not."""
    model, ids = load("merged", "QuestionAnswering"), token_ids(2, 7)
    model.save_pretrained(tmp_path)
    states = model.model(ids).last_hidden_state
    assert torch.equal(AutoModel.from_pretrained(tmp_path).eval()(ids).last_hidden_state, states)
    other = AutoModelForTokenClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(other.model(ids).last_hidden_state, states)
    with pytest.raises(ValueError, match=r"missing: lm_head\."):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_another_number_of_labels(load, tmp_path):
    """Refused, unless a new head is asked for; nothing else may have another shape."""
    load("grown", "SequenceClassification").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"mismatched: score\.weight"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    free = {"num_labels": 5, "ignore_mismatched_sizes": True}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, **free)
    assert model.score.weight.shape[0] == 5 and 0 < model.score.weight.std() < 0.05
    with pytest.raises(ValueError, match=r"mismatched: model\.layers\.0\.mlp"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, intermediate_size=64, **free)


ADAPTED = {
    "SequenceClassification": "SEQ_CLS",
    "TokenClassification": "TOKEN_CLS",
    "QuestionAnswering": "QUESTION_ANS",
    None: "FEATURE_EXTRACTION",
}


@pytest.mark.parametrize("kind", ["grown", "merged"])
@pytest.mark.parametrize("task", ADAPTED)
def test_adapters_of_peft(load, folders, token_ids, tmp_path, task, kind):
    """LoRA by ``task_type``: adapters on all blocks and the head train, and load onto a fresh base."""
    peft = pytest.importorskip("peft")
    ids = token_ids(4, 6)

    def base():
        return AutoModel.from_pretrained(folders[kind]).eval() if task is None else load(kind, task)

    def result(model):
        return model(ids).last_hidden_state if task is None else logits_of(model(ids))

    settings = peft.LoraConfig(task_type=ADAPTED[task], r=2, target_modules=["q_proj", "fc_out"])
    model = peft.get_peft_model(base(), settings).eval()
    frozen = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in trainable(model)}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # at first the gradient of every lora_A is zero
        loss = result(model).square().mean() if task is None else model(input_ids=ids, **targets(task, ids)).loss
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimizer.step()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in frozen.items())
    blocks = {name for name in trainable(model) if "lora_A" in name}
    assert len(blocks) == 2 * {"grown": 3, "merged": 5}[kind]
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(base(), tmp_path).eval()
    torch.testing.assert_close(result(again), result(model))
    assert not torch.allclose(result(again), result(base()))
    merged = result(again.merge_and_unload())
    torch.testing.assert_close(merged, result(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["grown", "merged"])
def test_pipelines(load, folders, tmp_path, kind):
    """What transformers builds from a folder alone."""
    for task, name in (("SequenceClassification", "text"), ("TokenClassification", "token")):
        load(kind, task).save_pretrained(tmp_path / name)
        (found,) = pipeline(f"{name}-classification", model=str(tmp_path / name), device="cpu")(["The cat sat"])
        first = found[0] if name == "token" else found
        assert first.get("label", first.get("entity")) in {f"LABEL_{label}" for label in range(LABELS)}
    vectors = pipeline("feature-extraction", model=str(folders[kind]), device="cpu")("The cat", return_tensors=True)
    assert vectors.shape[-1] == (96 if kind == "merged" else 48)


@pytest.mark.parametrize("kind", ["grown", "merged"])
def test_embeddings_of_sentences(folders, tokenizer, kind):
    """sentence-transformers on a folder as it is: what it pools are the states of ``AutoModel``, padded or not."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = ["The cat sat on the mat", "Кот"]
    model = sentence_transformers.SentenceTransformer(str(folders[kind]), device="cpu")
    base = AutoModel.from_pretrained(folders[kind]).eval()
    for text, found in zip(texts, model.encode(texts, output_value="token_embeddings"), strict=True):
        states = base(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        torch.testing.assert_close(found, states, atol=1e-5, rtol=1e-5)
    assert model.encode(texts).shape == (2, states.shape[-1])

"""The way to an assistant: vocabulary -> growth -> training on messages -> chat, of single and merged models."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from frozen_glyph import FrozenGlyphForCausalLM, extract_expert, grow_from_recipe, merge_experts, name_tokens
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.growth.recipe import GrowthRecipe
from frozen_glyph.merge.plan import plan_merge
from frozen_glyph.merge.recipe import MergeRecipe
from frozen_glyph.recipes.fields import parse

QUESTION, ANSWER = {"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "sat on the mat"}
TEXTS = {"en": "The cat sat on the mat, and the hat is on the cat.\n\n", "ru": "Кот сидел на окне. The cat sat.\n\n"}


@pytest.fixture(scope="module")
def grown(tiny_training, font_file, tmp_path_factory):
    """Two experts of two stages on one vocabulary with reserved ids. Only read them; copy to change."""
    home = tmp_path_factory.mktemp("instruct")
    content = {
        "name": "tiny",
        "model": {"hidden_size": 48, "num_attention_heads": 4, "max_position_embeddings": 96},
        "substrate": {"vocab_size": 512, "reserved": 8, "font": str(font_file)},
        "stages": [{"steps": 2}, {"steps": 2}],
        "training": tiny_training,
        "health": "off",
    }
    for name, text in TEXTS.items():
        path = home / f"{name}.txt"
        path.write_text("".join(TEXTS.values()) * 10 + text * 30, "utf-8")
        vocabulary = None if name == "en" else home / "en"
        grow_from_recipe(parse(GrowthRecipe, content), home / name, [path], substrate=vocabulary)
    return [home / name for name in TEXTS]


@pytest.fixture
def copies(grown, tmp_path):
    return [shutil.copytree(folder, tmp_path / folder.name) for folder in grown]


def trained_on_messages(folder, out):
    """Train on one exchange by hand, on what the assistant says alone; returns the folder of the model."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = tokenizer.apply_chat_template([QUESTION, ANSWER], return_dict=True, return_assistant_tokens_mask=True)
    ids, said = torch.tensor([found["input_ids"]]), torch.tensor([found["assistant_masks"]]).bool()
    frozen = {name: tensor.clone() for name, tensor in model.named_buffers()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        loss = model(ids, labels=ids.where(said, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1 and all(frozen[name].equal(tensor) for name, tensor in model.named_buffers())
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def answers(folder):
    chat = pipeline("text-generation", model=str(folder), device="cpu")
    (found,) = chat([QUESTION], max_new_tokens=40, do_sample=False)
    return found["generated_text"][-1]["content"]


def test_a_run_has_what_a_chat_needs_and_its_stages_load(grown):
    tokenizer = AutoTokenizer.from_pretrained(grown[0])
    assert tokenizer.model_max_length == 96
    assert tokenizer.decode(tokenizer.apply_chat_template([QUESTION, ANSWER])["input_ids"]) == (
        "<bos><|user|>the cat?<eos><|assistant|>sat on the mat<eos>"
    )
    for stage in (1, 2):
        model = FrozenGlyphForCausalLM.from_pretrained(grown[0], growth_stage=stage, verify=True)
        assert model.config.num_hidden_layers == stage and model.config.vocab_size == len(tokenizer)


@pytest.mark.parametrize("rule", [None, "posterior"])
def test_a_model_trained_on_messages_answers_and_stops(grown, rule, tmp_path):
    folder = merge_experts(grown, tmp_path / "merged", rule) if rule else grown[0]
    assert answers(trained_on_messages(folder, tmp_path / "chat")) == ANSWER["content"]


def test_names_leave_a_run_whole(copies, tmp_path):
    """What compares hashes goes on, and what is made of the folder has the names, beside an expert without any."""
    ids = name_tokens(copies[0], ["<|plan|>"])
    assert describe_checkpoint(copies[0], verify=True)["problems"] == {}
    FrozenGlyphForCausalLM.from_pretrained(copies[0], verify=True).save_pretrained(tmp_path / "saved")
    merged = merge_experts(copies, tmp_path / "merged")
    extract_expert(merged, "ru", tmp_path / "again")
    for folder in ("saved", "merged", "again"):
        AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        assert AutoTokenizer.from_pretrained(tmp_path / folder)("<|plan|>")["input_ids"] == list(ids.values())


def test_experts_with_other_names_dock_and_that_is_told(copies):
    name_tokens(copies[0], ["<|plan|>"])
    name_tokens(copies[1], ["<|observation|>"])
    report = plan_merge(MergeRecipe([str(folder) for folder in copies])).report()
    assert report["differing"] == {"tokenizer_config.json": ["ru"]}


def test_the_merged_tokenizer_says_what_all_experts_can_read(copies, tmp_path):
    config = json.loads((copies[1] / "config.json").read_text()) | {"max_position_embeddings": 64}
    (copies[1] / "config.json").write_text(json.dumps(config))
    provenance = json.loads((copies[1] / "provenance.json").read_text())
    provenance["companions"].pop("config.json")
    (copies[1] / "provenance.json").write_text(json.dumps(provenance))
    merged = merge_experts(copies, tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(merged).model_max_length == 64
    assert AutoTokenizer.from_pretrained(extract_expert(merged, "en", tmp_path / "again")).model_max_length == 96


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")  # trl sets its old name
@pytest.mark.parametrize("rule", [None, "mean"])
def test_trl_trains_on_messages(grown, rule, tmp_path):
    trl = pytest.importorskip("trl", reason="trl is not installed (pip install trl)")
    datasets = pytest.importorskip("datasets")
    folder = merge_experts(grown, tmp_path / "merged", rule) if rule else grown[0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    trainer = trl.SFTTrainer(
        model,
        trl.SFTConfig(
            str(tmp_path / "chat"), max_steps=30, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True,
            bf16=False, max_length=64, assistant_only_loss=True, save_strategy="no", report_to=[], disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_list([{"messages": [QUESTION, ANSWER]}] * 16),
        processing_class=tokenizer,
    )  # fmt: skip
    frozen = {name: tensor.clone() for name, tensor in model.named_buffers()}
    trainer.train()
    assert all(frozen[name].equal(tensor) for name, tensor in model.named_buffers())
    trainer.save_model()
    assert answers(tmp_path / "chat") == ANSWER["content"]

"""Chat template and generation config go along; where those of experts differ, that is told and can be chosen."""

import json
import shutil

import pytest
from transformers import AutoTokenizer, GenerationConfig

from frozen_glyph import FrozenGlyphForCausalLM, extract_expert, merge_experts, tune_head
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.export.dense import export_dense
from frozen_glyph.merge.plan import plan_merge
from frozen_glyph.merge.recipe import MergeRecipe
from frozen_glyph.merge.tune_recipe import TuneRecipe

MESSAGES = [{"role": "user", "content": "cat"}]


def template(name):
    return name + "{% for message in messages %}{{ message.content }}{% endfor %}"


@pytest.fixture
def chatty(experts, tmp_path):
    """Copies of two experts, each with templates and a generation config of its own."""
    found = []
    for folder in experts:
        copy = shutil.copytree(folder, tmp_path / folder.name)
        (copy / "chat_template.jinja").write_text(template(folder.name))
        (copy / "additional_chat_templates").mkdir()
        (copy / "additional_chat_templates" / "tool-use.jinja").write_text(template(f"{folder.name} tools "))
        settings = json.loads((copy / "generation_config.json").read_text()) | {"max_new_tokens": len(found) + 5}
        (copy / "generation_config.json").write_text(json.dumps(settings))
        found.append(copy)
    return found


def answers_as(folder, name, tokens):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False) == f"{name}cat"
    assert tokenizer.apply_chat_template(MESSAGES, chat_template="tool-use", tokenize=False) == f"{name} tools cat"
    assert GenerationConfig.from_pretrained(folder).max_new_tokens == tokens


def test_every_verb_keeps_them(chatty, make_training, tmp_path):
    (tmp_path / "text.txt").write_text("The cat sat on the mat. " * 200)
    merged = merge_experts(chatty, tmp_path / "merged")
    tune_head(merged, tmp_path / "tuned", TuneRecipe(steps=1, training=make_training()), [tmp_path / "text.txt"])
    FrozenGlyphForCausalLM.from_pretrained(chatty[0]).save_pretrained(tmp_path / "saved")
    extract_expert(merged, "zh", tmp_path / "zh-again")
    export_dense(chatty[0], tmp_path / "dense")
    for name in ("merged", "tuned", "saved", "zh-again", "dense"):
        answers_as(tmp_path / name, "ru", 5)


def test_the_choice_is_a_field_of_the_recipe(chatty, tmp_path):
    merged = merge_experts(chatty, tmp_path / "merged", companions="zh")
    answers_as(merged, "zh", 6)
    assert json.loads((merged / "provenance.json").read_text())["recipe"]["companions"] == "zh"
    renamed = merge_experts(chatty, tmp_path / "renamed", names=["a", "b"], companions="b")
    answers_as(renamed, "zh", 6)


def test_differences_are_told(chatty, experts, tmp_path):
    files = ["additional_chat_templates/tool-use.jinja", "chat_template.jinja", "generation_config.json"]
    report = plan_merge(MergeRecipe([str(folder) for folder in chatty])).report()
    assert report["companions"] == "ru" and report["differing"] == {name: ["zh"] for name in files}
    mixed = plan_merge(MergeRecipe([str(experts[0]), str(chatty[1])])).report()  # only the second has them
    assert mixed["differing"] == {name: ["zh"] for name in files}
    same = plan_merge(MergeRecipe([str(folder) for folder in experts])).report()
    assert same["differing"] == {}


def test_another_version_of_transformers_is_no_difference(experts, tmp_path):
    copy = shutil.copytree(experts[1], tmp_path / "zh")
    settings = json.loads((copy / "generation_config.json").read_text()) | {"transformers_version": "5.0.0"}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    assert plan_merge(MergeRecipe([str(experts[0]), str(copy)])).report()["differing"] == {}


def test_the_command_says_where_experts_differ(chatty, tmp_path):
    from typer.testing import CliRunner

    from frozen_glyph.cli import app

    arguments = ["merge", *map(str, chatty), "-o", str(tmp_path / "merged"), "--companions", "zh"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "chat_template.jinja: that of zh goes along, not that of ru; choose with --companions NAME" in done.output
    answers_as(tmp_path / "merged", "zh", 6)


def test_an_unknown_expert_is_refused_before_the_work(chatty, tmp_path):
    with pytest.raises(FrozenGlyphError, match=r"companions='rus' is no expert\. Did you mean 'ru'\? Allowed: ru, zh"):
        merge_experts(chatty, tmp_path / "merged", companions="rus")
    assert not (tmp_path / "merged").exists()

"""Recipes: every wrong key and value is refused by its name, and the stored form says all there is."""

import json
import re

import pytest
import yaml

from frozen_glyph import FrozenGlyphConfig
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.growth.recipe import GrowthRecipe, StageRecipe, load_recipe
from frozen_glyph.recipes.errors import RecipeError
from frozen_glyph.recipes.fields import parse
from frozen_glyph.training.recipe import TrainingRecipe


@pytest.fixture
def load(tmp_path):
    """``load(text)``: ``load_recipe`` of a file with that text."""

    def load(text: str):
        path = tmp_path / "growth.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path)

    return load


def test_recipe_becomes_typed(load, recipe_content):
    recipe = load(yaml.safe_dump(recipe_content()))
    assert recipe.stages == [StageRecipe(1, 12, init="identity"), StageRecipe(2, 12, init="random")]
    assert recipe.training == TrainingRecipe(
        32, 128, learning_rate=1e-2, warmup_steps=2, precision="fp32", save_steps=4
    )
    assert recipe.model == {"hidden_size": 48, "num_attention_heads": 4}
    assert (recipe.name, recipe.seed, recipe.substrate.tokenizer) == ("tiny", 5, None)


def test_new_blocks_start_as_silent_copies_where_nothing_is_said(load, recipe_content):
    """Not those of a model's first stage, nor a stage without new ones: there the word means nothing."""

    def inits(**changes):
        content = recipe_content({"stages": [{"steps": 1}, {"steps": 1}, {"layers": 0, "steps": 1}]})
        return [stage.init for stage in load(yaml.safe_dump(content | changes)).stages]

    assert inits() == ["identity", "copy_zero", "identity"]
    assert inits(parent={"source": "someone/model"}) == ["copy_zero", "copy_zero", "identity"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": []}, "unknown recipe key 'stage'. Did you mean 'stages'? Allowed: name, model, stages,"),
        ({"training.learning_rat": 1}, "unknown recipe key 'learning_rat' in training. Did you mean 'learning_rate'?"),
        ({"stages.1.stepz": 1}, "unknown recipe key 'stepz' in stages[1]. Did you mean 'steps'? Allowed: layers,"),
        ({"model.hiden_size": 1}, "unknown recipe key 'hiden_size' in model. Did you mean 'hidden_size'?"),
        ({"qqqq": 1}, "unknown recipe key 'qqqq'. Allowed:"),
    ],
)
def test_unknown_key_names_the_nearest(load, recipe_content, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        load(yaml.safe_dump(recipe_content(changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name=3 is not allowed: it must be str"),
        ({"seed": True}, "seed=True is not allowed: it must be int"),
        ({"seed": 1.5}, "seed=1.5 is not allowed: it must be int"),
        ({"seed": -1}, "seed=-1 is not allowed: it must be from 0"),
        ({"stages": {}}, "stages={} is not allowed: it must be a list"),
        ({"stages": []}, "stages=[] is not allowed: it must be at least one stage"),
        ({"stages.0": 5}, "stages[0]=5 is not allowed: it must be a mapping"),
        ({"stages.1.steps": "many"}, "stages[1].steps='many' is not allowed: it must be int"),
        ({"stages.1.layers": -1}, "stages[1].layers=-1 is not allowed: it must be from 0 to 10000"),
        ({"stages.0.layers": 0}, "stages[0].layers=0 is not allowed: it must be at least 1 in stage 1"),
        ({"stages.1.tokens": 5}, "stages[1].steps=12 is not allowed: it must be left out where tokens is given"),
        ({"stages.1.train": ["embeddings"]}, "stages[1].train=['embeddings'] is not allowed: it must be without"),
        ({"stages.1.patience": 2}, "training.eval_steps=None is not allowed: it must be given"),
        ({"stages.1.min_gain": 0.1}, "stages[1].min_gain=0.1 is not allowed: it must be left out where no patience"),
        ({"lora": {"rank": 0}}, "lora.rank=0 is not allowed: it must be from 1 to 65536"),
        ({"lora": {"targets": ["qkv"]}}, "lora.targets[0]='qkv' is not allowed: it must be one of q_proj,"),
        ({"data": {"sources": [{}]}}, "data.sources[0]=[] is not allowed: it must be a source with either files or"),
        (
            {"data": {"sources": [{"files": ["a.txt"], "weight": 1}, {"dataset": "x/y"}]}},
            "data.sources.weight=[1.0, None] is not allowed: it must be given to all or to none",
        ),
        ({"stages.1.steps": 0}, "stages[1].steps=0 is not allowed: it must be from 1 to 2147483647"),
        ({"stages.0.init": "zero"}, "stages[0].init='zero' is not allowed: it must be one of identity, random, copy"),
        ({"substrate": {"vocab_size": 511}}, "substrate.vocab_size=511 is not allowed: it must be at least 512"),
        ({"training": None}, "training=None is not allowed: it must be a mapping"),
        ({"training.context_length": 7}, "training.context_length=7 is not allowed: it must be from 8 to 16777216"),
        ({"training.batch_tokens": 0}, "training.batch_tokens=0 is not allowed: it must be a multiple of"),
        ({"training.micro_batch_size": 3}, "training.micro_batch_size=3 is not allowed: it must be a divisor of the 4"),
        ({"training.learning_rate": "fast"}, "training.learning_rate='fast' is not allowed: it must be float"),
        ({"training.learning_rate": 0}, "training.learning_rate=0.0 is not allowed: it must be above 0"),
        ({"training.learning_rate": float("nan")}, "training.learning_rate=nan is not allowed"),
        ({"training.warmup_steps": -1}, "training.warmup_steps=-1 is not allowed: it must be from 0 to"),
        ({"training.final_learning_rate_ratio": 1.5}, "training.final_learning_rate_ratio=1.5 is not allowed"),
        ({"training.weight_decay": -0.1}, "training.weight_decay=-0.1 is not allowed: it must be 0 or more"),
        ({"training.max_grad_norm": 0}, "training.max_grad_norm=0.0 is not allowed: it must be above 0"),
        (
            {"training.precision": "fp16"},
            "training.precision='fp16' is not allowed: it must be one of auto, bf16, fp32",
        ),
        ({"training.save_steps": 0}, "training.save_steps=0 is not allowed: it must be from 1 to"),
        ({"model": [1]}, "model=[1] is not allowed: it must be dict"),
        ({"model.hidden_size": 49}, "hidden_size=49 must be an even multiple of num_attention_heads=4"),
        ({"model.hidden_size": "wide"}, "'hidden_size' expected int, got str"),
        ({"model.substrate_trainable": True}, "model.substrate_trainable=True is not allowed: it must be left out"),
    ],
)
def test_wrong_value_names_field_value_and_what_is_allowed(load, recipe_content, changes, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        load(yaml.safe_dump(recipe_content(changes)))


@pytest.mark.parametrize("field", ["name", "model", "stages"])
def test_missing_field_is_named(load, recipe_content, field):
    content = recipe_content()
    del content[field]
    with pytest.raises(RecipeError, match=f"recipe field {field} is missing"):
        load(yaml.safe_dump(content))


def test_file_that_is_no_recipe_is_named(load, tmp_path):
    with pytest.raises(RecipeError, match=r"absent\.yaml' does not exist"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match=r"growth\.yaml' is not YAML: .*line 1"):
        load("name: [")
    with pytest.raises(RecipeError, match=r"growth\.yaml' must hold a mapping of fields, found list"):
        load("- name")
    (tmp_path / "growth.yaml").write_bytes("имя: x".encode("cp1251"))
    with pytest.raises(RecipeError, match=r"growth\.yaml' is not YAML: it is not UTF-8: byte 0xe8 at offset 0"):
        load_recipe(tmp_path / "growth.yaml")


@pytest.mark.parametrize(("written", "value"), [("2e-3", 2e-3), ("1", 1.0), ("0.5", 0.5), ("1E-2", 1e-2)])
def test_any_notation_of_a_number_is_read(load, recipe_content, written, value):
    text = yaml.safe_dump(recipe_content({"training.learning_rate": "HERE"})).replace("HERE", written)
    found = load(text).training.learning_rate
    assert (found, type(found)) == (value, float)


def test_model_may_be_the_config_of_a_checkpoint(load, recipe_content, tmp_path):
    FrozenGlyphConfig(hidden_size=48, num_attention_heads=4).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert load(yaml.safe_dump(recipe_content({"model": "config.json"}))).model == written
    assert written["layer_norm_eps"] == 1e-5  # written as 1e-05, which YAML would read as text


def test_config_that_is_missing_or_damaged_is_named(load, recipe_content, tmp_path):
    text = yaml.safe_dump(recipe_content({"model": "config.json"}))
    with pytest.raises(RecipeError, match=r"model='config\.json': .*does not exist"):
        load(text)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json' is damaged"):
        load(text)


OTHER_VALUES = {
    "name": "other",
    "model.hidden_size": 64,
    "model.num_attention_heads": 2,
    "stages.0.layers": 3,
    "stages.0.steps": 13,
    "stages.0.init": "random",
    "stages.0.train.0": "norm",
    "stages.0.train.1": "blocks",
    "stages.0.train.2": "blocks",
    "stages.0.learning_rate": 0.1,
    "stages.1.train.0": "norm",
    "stages.1.train.1": "blocks",
    "stages.1.train.2": "blocks",
    "stages.1.learning_rate": 0.1,
    "stages.1.layers": 1,
    "stages.1.steps": 11,
    "stages.1.init": "identity",
    "substrate.tokenizer": "folder",
    "substrate.vocab_size": 512,
    "substrate.layout": "binary",
    "substrate.bits": 16,
    "data": {"sources": [{"files": ["a.txt"]}]},
    "lora": {"rank": 4},
    "parent": {"source": "runs/trunk"},
    "training.context_length": 16,
    "training.batch_tokens": 64,
    "training.micro_batch_size": 2,
    "training.schedule": "linear",
    "training.adam_beta2": 0.9,
    "training.activation_checkpointing": True,
    "training.prefix_cache": "disk",
    "training.quantize_frozen": "int8",
    "training.eval_steps": 3,
    "training.learning_rate": 0.02,
    "training.warmup_steps": 3,
    "training.final_learning_rate_ratio": 0.0,
    "training.weight_decay": 0.0,
    "training.max_grad_norm": 2.0,
    "training.precision": "auto",
    "training.save_steps": 5,
    "seed": 6,
}


def test_a_parent_and_its_stage_can_be_said_in_one_word(recipe_content, tmp_path):
    """The recipe is the same whichever way it says the stage; a folder is seen from the recipe, a Hub id as it is."""
    for name in ("trunk", "odd@1"):
        (tmp_path / name).mkdir()
    path = tmp_path / "growth.yaml"

    def load(**parent):
        path.write_text(yaml.safe_dump(recipe_content() | {"parent": parent}), encoding="utf-8")
        return load_recipe(path)

    said, fields = load(source="trunk@2"), load(source="trunk", stage=2)
    assert said.parent.where == fields.parent.where == Source(str(tmp_path / "trunk"), 2)
    assert said.sha256 == fields.sha256
    assert load(source="odd@1", stage=2).parent.where == Source(str(tmp_path / "odd@1"), 2)
    assert load(source="user/ru@3").parent.where == Source("user/ru", 3)
    assert load(source="trunk@2", stage=2).parent == said.parent
    with pytest.raises(RecipeError, match=r"parent.stage=1 is not allowed: .* parent.source='trunk@2' says stage 2"):
        load(source="trunk@2", stage=1)
    with pytest.raises(FrozenGlyphError, match="'trunk@two': growth stage 'two' must be a number from 1 on"):
        load(source="trunk@two")


@pytest.mark.parametrize(
    ("settings", "path", "value"),
    [
        (["training.learning_rate=1e-3"], "training.learning_rate", 1e-3),
        (["stages.1.steps=7"], "stages.1.steps", 7),
        (["substrate.layout=binary", "seed=9"], "seed", 9),
        (["lora.rank=8"], "lora.rank", 8),
    ],
)
def test_settings_override_the_file(recipe_content, tmp_path, settings, path, value):
    (tmp_path / "growth.yaml").write_text(yaml.safe_dump(recipe_content()), encoding="utf-8")
    found = load_recipe(tmp_path / "growth.yaml", settings).to_dict()
    for part in path.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    assert found == value


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed", "setting 'seed' must look like"),
        ("training.learning_rat=1", "unknown recipe key 'learning_rat' in training. Did you mean 'learning_rate'?"),
        ("stages.7.steps=1", "setting 'stages.7.steps=1' leads nowhere"),
        ("name.x=1", "setting 'name.x=1' leads nowhere"),
        ("seed=[", "setting 'seed=[' has no YAML value"),
    ],
)
def test_setting_that_fits_nowhere_is_named(recipe_content, tmp_path, setting, message):
    (tmp_path / "growth.yaml").write_text(yaml.safe_dump(recipe_content()), encoding="utf-8")
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(tmp_path / "growth.yaml", [setting])


def leaf_paths(value, path=()):
    """The dotted path of every plain value in nested data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {".".join(map(str, path))}
    no_part = ("report_to", "health")  # of what is computed
    return {leaf for key, entry in items if key not in no_part for leaf in leaf_paths(entry, (*path, key))}


def test_stored_form_round_trips(make_recipe):
    recipe = make_recipe()
    assert parse(GrowthRecipe, json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_hash_changes_with_any_value(make_recipe, recipe_content):
    stored = make_recipe().to_dict()
    alternatives = {f"stages.{stage}.{name}" for stage in (0, 1) for name in ("tokens", "patience")}
    of_the_card = {"license", "language"}
    assert leaf_paths(stored) - alternatives - of_the_card == OTHER_VALUES.keys()
    card = parse(GrowthRecipe, recipe_content({"license": "mit", "language": ["en"]}, stored))
    assert card.sha256 == make_recipe().sha256
    changed = [parse(GrowthRecipe, recipe_content({path: value}, stored)) for path, value in OTHER_VALUES.items()]
    assert len({recipe.sha256 for recipe in [make_recipe(), *changed]}) == 1 + len(OTHER_VALUES)


def test_hash_is_stable_under_key_order(load, recipe_content):
    content = recipe_content()
    backwards = {key: content[key] for key in reversed(content)}
    backwards["training"] = {key: content["training"][key] for key in reversed(content["training"])}
    first, second = (load(yaml.safe_dump(entry, sort_keys=False)) for entry in (content, backwards))
    assert first.sha256 == second.sha256

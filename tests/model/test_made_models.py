"""A model made from a configuration has true token vectors or refuses to be used: never zeros, never garbage."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from frozen_glyph import FrozenGlyphConfig, FrozenGlyphForCausalLM
from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding

SIZES = {"vocab_size": 300, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "substrate_bits": 48}
REFUSED = r"no bits.*from_pretrained.*load_state_dict\(GlyphSubstrate"


@pytest.fixture
def unknown():
    """A configuration whose substrate is nowhere at hand."""
    return FrozenGlyphConfig(**SIZES, substrate_fingerprint="sha256:unknown")


def on_meta(config):
    with torch.device("meta"):
        model = FrozenGlyphForCausalLM(config)
    return model


def empty_weights(config, **options):
    from accelerate import init_empty_weights

    with init_empty_weights(**options):
        return FrozenGlyphForCausalLM(config)


def filled(model):
    model.to_empty(device="cpu")
    model.init_weights()
    return model


MADE = {
    "class": FrozenGlyphForCausalLM,
    "from_config": AutoModelForCausalLM.from_config,
    "from_config in bfloat16": lambda config: AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16),
    "_from_config": FrozenGlyphForCausalLM._from_config,
    "meta, to_empty, init_weights": lambda config: filled(on_meta(config)),
    "init_empty_weights, to_empty": lambda config: empty_weights(config).to_empty(device="cpu"),
}
EMPTY = {
    "meta, to_empty": lambda config: on_meta(config).to_empty(device="cpu"),
    "init_empty_weights, to_empty": lambda c: empty_weights(c, include_buffers=True).to_empty(device="cpu"),
}


def assert_on_its_substrate(made):
    made.check_substrate()
    vectors = made.substrate(torch.arange(made.config.vocab_size))
    lengths = torch.full((made.config.vocab_size,), float(made.config.substrate_scale))
    torch.testing.assert_close(vectors.norm(dim=-1), lengths)


@pytest.mark.parametrize("make", MADE)
def test_the_configuration_of_a_folder_brings_its_substrate(experts, make):
    assert_on_its_substrate(MADE[make](AutoConfig.from_pretrained(experts[1])))


def test_so_does_that_of_a_merge_and_the_file_itself(experts, merged_folder):
    for place in (merged_folder, experts[1] / "config.json"):
        assert_on_its_substrate(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(place)))


def test_a_dense_table_comes_along_too(build_model, tmp_path):
    model = build_model(seed=1)
    model.to_dense().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    made = AutoModelForCausalLM.from_config(config)
    assert torch.equal(made.substrate.weight, model.substrate.weight)
    assert not made.substrate.weight.requires_grad
    config.name_or_path = ""
    assert AutoModelForCausalLM.from_config(config).substrate.weight.isnan().all()


@pytest.mark.parametrize("make", MADE | EMPTY)
def test_a_substrate_that_is_nowhere_at_hand_is_refused(unknown, make, tmp_path):
    made = (MADE | EMPTY)[make](unknown)
    ids = torch.arange(6)[None]
    for use in (
        lambda: made(ids),
        lambda: made.substrate.weight,
        lambda: made.substrate.materialize(),
        lambda: made.save_pretrained(tmp_path / "saved"),
        made.to_dense,
        made.check_substrate,
    ):
        with pytest.raises(ValueError, match=REFUSED) as error:
            use()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "saved").exists()
    compiled = torch.compile(made.substrate, backend="eager", fullgraph=True)
    assert compiled(ids).isnan().all()  # nothing can be raised there


@pytest.mark.parametrize("change", [{"vocab_size": 301}, {"tokenizer_sha256": "other"}, {"substrate_bits": 512}])
def test_another_substrate_than_the_folders_is_refused(experts, change):
    config = AutoConfig.from_pretrained(experts[1], **change)
    with pytest.raises(ValueError, match=REFUSED):
        AutoModelForCausalLM.from_config(config)(torch.arange(6)[None])


@pytest.mark.parametrize("place", ["nowhere", "a name of none", "user/nowhere"])
def test_a_place_that_is_gone_is_as_none(unknown, place):
    unknown.name_or_path = place
    assert not FrozenGlyphForCausalLM(unknown).substrate.has_bits


def test_bits_that_come_later_are_used(unknown, build_model, substrate):
    """By any load; a load that brings none leaves the refusal."""
    trained = build_model(seed=1, num_hidden_layers=1)
    config = copy.deepcopy(trained.config)
    ids, state = torch.arange(6)[None], trained.state_dict()
    rest = {name: tensor for name, tensor in state.items() if "embed_tokens" not in name}
    for make in (FrozenGlyphForCausalLM, lambda config: on_meta(config).to_empty(device="cpu")):
        made = make(config).eval()
        made.load_state_dict(rest, strict=False)
        with pytest.raises(ValueError, match=REFUSED):
            made(ids)
        made.substrate.load_state_dict(substrate.as_embedding().state_dict())
        assert torch.equal(made(ids).logits, trained(ids).logits)
        made.to_empty(device="cpu").load_state_dict(rest, strict=False)
        assert torch.equal(made(ids).logits, trained(ids).logits)  # frozen: whatever memory holds, the bits stay


@pytest.mark.parametrize("fields", [{}, {"substrate_bits": 96}, {"substrate_rotated": True}, {"substrate_bits": 16}])
def test_a_configuration_that_names_no_substrate_gets_a_code(fields, tmp_path, caplog):
    """The same on every machine, no two tokens alike; and says so, because no glyph was drawn."""
    config = FrozenGlyphConfig(**SIZES | fields)
    torch.manual_seed(0)
    made = FrozenGlyphForCausalLM(config)
    torch.manual_seed(1)
    again = filled(on_meta(config))
    assert torch.equal(made.substrate.weight, again.substrate.weight)
    assert len(made.substrate.weight.unique(dim=0)) == config.vocab_size
    torch.testing.assert_close(made.substrate.weight.norm(dim=-1), torch.ones(config.vocab_size))
    made.save_pretrained(tmp_path)
    assert torch.equal(FrozenGlyphForCausalLM.from_pretrained(tmp_path).substrate.weight, made.substrate.weight)


def test_training_from_a_configuration_ends_in_a_folder_that_loads(experts, tmp_path):
    """The whole of transformers' ``run_clm.py --config_name FOLDER``."""
    config = AutoConfig.from_pretrained(experts[1], num_frozen_layers=0, ladder=None)
    model = AutoModelForCausalLM.from_config(config)
    rows = [{"input_ids": ids, "labels": ids} for ids in torch.randint(3, config.vocab_size, (8, 16))]
    arguments = TrainingArguments(tmp_path / "run", max_steps=2, use_cpu=True, report_to=[], disable_tqdm=True)
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert loaded.config.substrate_fingerprint == config.substrate_fingerprint
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_load_looks_nowhere_else_for_bits(experts, monkeypatch):
    """What a checkpoint holds is not read twice."""
    read = []
    monkeypatch.setattr("frozen_glyph.model.origin_frozen_glyph.stored_substrate", lambda *given: read.append(given))
    model = FrozenGlyphForCausalLM.from_pretrained(experts[1])
    assert isinstance(model.substrate, FrozenGlyphEmbedding) and model.substrate.has_bits
    assert read == []


def test_accelerate_loads_a_stage_by_its_index(experts, token_ids, tmp_path):
    """A folder of stages has an index for each, and accelerate wants to be told which: ``transformers_weights``."""
    from accelerate import load_checkpoint_and_dispatch

    config = AutoConfig.from_pretrained(experts[1])
    made = empty_weights(config)
    parts = [name for name, _ in made.model.named_children()]
    places = dict.fromkeys([f"model.{name}" for name in parts if name != "layers"] + ["lm_head"], "cpu")
    places |= {f"model.layers.{index}": "disk" if index else "cpu" for index in range(config.num_hidden_layers)}
    with pytest.raises(ValueError, match="more than one"):
        load_checkpoint_and_dispatch(made, experts[1], device_map={"": "cpu"})
    index = experts[1] / config.transformers_weights
    loaded = load_checkpoint_and_dispatch(made.eval(), index, device_map=places, offload_folder=tmp_path)
    expected = FrozenGlyphForCausalLM.from_pretrained(experts[1])
    ids = token_ids(2, 9)
    assert torch.equal(loaded(ids).logits, expected(ids).logits)

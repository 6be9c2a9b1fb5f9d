"""The head of a merged model is a Linear where it is one, and does not look like one elsewhere; trl trains both."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer

from frozen_glyph import FrozenGlyphMoEConfig, FrozenGlyphMoEForCausalLM
from frozen_glyph.model.rules_frozen_glyph import RULES, rules_with

SUMS, OTHERS = rules_with(one_head=True), [name for name in RULES if name not in rules_with(one_head=True)]


@pytest.mark.parametrize("rule", SUMS)
def test_a_sum_has_the_weight_and_bias_of_a_linear(merged_folder, token_ids, rule):
    """What libraries with fused heads read; gradients of the joint bias reach every expert's."""
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
    head, ids = model.lm_head, token_ids(2, 9)
    assert isinstance(head, nn.Linear) and head is model.get_output_embeddings()
    assert (head.weight.shape, head.bias.shape) == ((head.out_features, head.in_features), (head.out_features,))
    logits = nn.functional.linear(model.model(ids).last_hidden_state, head.weight, head.bias)
    torch.testing.assert_close(logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    logits.sum().backward()
    assert torch.equal(head.biases.grad, torch.full_like(head.biases, ids.numel() / 2))


@pytest.mark.parametrize("rule", OTHERS)
def test_what_is_no_sum_looks_like_no_linear(merged_folder, rule):
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
    assert not isinstance(model.lm_head, nn.Linear) and not hasattr(model.lm_head, "bias")
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder)
    model.config.rule = rule  # or becomes one later
    with pytest.raises(AttributeError, match=rf"rule='{rule}' combines.*compute_loss = .*use rule='mean' or"):
        model.lm_head.bias  # noqa: B018


def test_files_keep_their_names(merged_folder, tmp_path):
    """Of a model that was loaded, and of one that was made; tensors by these names are taken by torch itself too."""
    loaded = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder)
    made = FrozenGlyphMoEForCausalLM(FrozenGlyphMoEConfig.from_pretrained(merged_folder, rule="posterior"))
    made.load_state_dict(loaded.state_dict())
    for name, model in (("loaded", loaded), ("made", made)):
        model.save_pretrained(tmp_path / name)
        tensors = load_file(tmp_path / name / "model.safetensors")
        assert tensors["lm_head.bias"].equal(loaded.lm_head.biases) and "lm_head.biases" not in tensors
        with torch.no_grad():
            made.lm_head.biases.zero_()
        made.load_state_dict(tensors)
        assert made.lm_head.biases.equal(loaded.lm_head.biases)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # trl's own calls
@pytest.mark.parametrize("rule", RULES)
def test_supervised_fine_tuning_with_trl(merged_folder, tokenizer, tmp_path, rule):
    """Its fused head serves sums; elsewhere it is told to compute the loss of the model itself."""
    trl = pytest.importorskip("trl", reason="trl is not installed")
    from datasets import Dataset

    class PlainTrainer(trl.SFTTrainer):
        compute_loss = Trainer.compute_loss

    arguments = trl.SFTConfig(
        str(tmp_path), max_steps=4, learning_rate=1e-2, logging_steps=1, max_length=32, packing=True, use_cpu=True,
        bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_dict({"text": ["The cat sat on the mat, and the hat is on the cat."] * 8})
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule=rule)
    kind = trl.SFTTrainer if rule in SUMS else PlainTrainer
    trainer = kind(model, arguments, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5
    if rule not in SUMS:
        with pytest.raises(AttributeError, match="call the model with labels"):
            trl.SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer).train()

"""What peft trains beside low-rank terms: whole modules, as everywhere; glyph bits never, which is said in one line."""

import pytest
import torch
from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ["q_proj", "v_proj"]


@pytest.fixture(params=["grown", "merged"])
def load(request, experts, merged_folder):
    """``load()``: the model anew."""
    folder = experts[1] if request.param == "grown" else merged_folder
    return lambda: AutoModelForCausalLM.from_pretrained(folder)


def train(model, ids) -> None:
    """One step on everything that trains."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("saved", ["lm_head", "norm", "fc_out"])
def test_modules_to_save(load, token_ids, tmp_path, saved):
    base, ids = load().eval(), token_ids(2, 9)
    before, bits = base(ids).logits, base.substrate.packed_bits.clone()
    model = get_peft_model(load(), LoraConfig(r=2, target_modules=TARGETS, modules_to_save=[saved]))
    whole = {name.split(".modules_to_save")[0] for name, p in model.named_parameters() if p.requires_grad} - {
        name for name, p in model.named_parameters() if "lora_" in name
    }
    assert whole and all(saved in name for name in whole)
    train(model, ids)
    after = model(ids).logits
    assert not torch.allclose(after, before, atol=0.01)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load(), tmp_path).eval()
    torch.testing.assert_close(again(ids).logits, after)
    plain = again.merge_and_unload()
    torch.testing.assert_close(plain(ids).logits, after, atol=1e-4, rtol=1e-4)
    assert torch.equal(plain.substrate.packed_bits, bits)


ON_BITS = {
    "modules_to_save": LoraConfig(r=2, target_modules=TARGETS, modules_to_save=["embed_tokens"]),
    "tokens beside LoRA": LoraConfig(r=2, target_modules=TARGETS, trainable_token_indices=[5, 6]),
    "tokens": TrainableTokensConfig(token_indices=[5, 6], target_modules=["embed_tokens"]),
}


@pytest.mark.parametrize("config", ON_BITS.values(), ids=ON_BITS)
def test_glyph_bits_do_not_train(load, token_ids, config):
    ids = token_ids(2, 9)
    model = get_peft_model(load(), config)
    with pytest.raises(ValueError, match=r"glyph bits do not train; leave it out, or call model.to_dense\(\) before"):
        train(model, ids)


@pytest.mark.parametrize("config", ON_BITS.values(), ids=ON_BITS)
def test_a_table_does(load, token_ids, config):
    """Of a dense model peft trains what it is told, and no other vector."""
    ids = torch.cat([torch.tensor([[5], [6]]), token_ids(2, 9)], dim=1)
    model = get_peft_model(load().to_dense(), config)
    before = model(ids).logits
    train(model, ids)
    assert not torch.allclose(model(ids).logits, before, atol=0.01)
    vectors, original = model.merge_and_unload().substrate.weight, load().substrate.weight
    changed = (vectors != original).any(dim=-1).nonzero().flatten().tolist()
    read = ids[:, :-1].unique().tolist()  # the last token predicts nothing
    assert changed == (read if config is ON_BITS["modules_to_save"] else [5, 6])

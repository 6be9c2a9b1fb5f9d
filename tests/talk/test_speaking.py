"""What a model reads and writes: equal to ``generate``, whole characters only, within the context."""

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.talk.speakers import Speaker
from frozen_glyph.talk.speaking import Sampling, Streamer, fitting, prompt_ids, speak

BEST = Sampling(tokens=8, temperature=0)


def generated(model, ids, tokens=8):
    model.generation_config.eos_token_id = None
    return model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False)[0, len(ids) :].tolist()


def test_an_answer_is_what_generate_writes_at_every_stage(grown, experts):
    ids = prompt_ids(grown.tokenizer, "The cat")
    for stage in (2, 1):
        grown.load(stage)
        grown.model.generation_config.eos_token_id = None
        expected = generated(FrozenGlyphForCausalLM.from_pretrained(experts[0], growth_stage=stage), ids)
        assert speak(grown, ids, BEST).ids == expected
    assert grown.label == "ru@1"


@pytest.mark.parametrize(("rule", "weights"), [("posterior", None), ("weighted", [0.9, 0.1]), ("mean", None)])
def test_a_rule_changed_while_talking_is_the_rule_of_a_load(merged, merged_folder, rule, weights):
    ids = prompt_ids(merged.tokenizer, "Кот сидел")
    merged.set_rule("evidence")
    merged.set_rule(rule, weights)
    merged.model.generation_config.eos_token_id = None
    options = {"rule": rule} | ({} if weights is None else {"expert_weights": weights})
    assert speak(merged, ids, BEST).ids == generated(
        FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, **options), ids
    )


def test_one_expert_alone_says_what_it_says_by_itself(merged, experts):
    merged.hear("zh")
    alone = Speaker(str(experts[1]), "cpu")
    ids = prompt_ids(merged.tokenizer, "The")
    for speaker in (merged, alone):
        speaker.model.generation_config.eos_token_id = None
    assert speak(merged, ids, BEST).ids == speak(alone, ids, BEST).ids
    assert merged.label == "ru-zh (zh alone)"


def test_a_seed_gives_the_same_text_and_leaves_other_random_numbers_alone(grown):
    ids, drawn = prompt_ids(grown.tokenizer, "The"), Sampling(tokens=12, temperature=2, seed=5)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = speak(grown, ids, drawn)
    assert torch.equal(torch.rand(1), expected)
    assert first == speak(grown, ids, drawn) != speak(grown, ids, Sampling(tokens=12, temperature=2, seed=6))


def test_pieces_are_whole_characters_that_make_the_text(tokenizer):
    """A character outside the vocabulary is several byte tokens: nothing is shown before the last of them."""
    ids = tokenizer("a 😀 b", add_special_tokens=False)["input_ids"]
    assert len(ids) > 5
    pieces = []
    streamer = Streamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([[1, 2]]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(piece.text for piece in pieces) == streamer.text == "a 😀 b"
    assert [token for piece in pieces for token in piece.ids] == ids
    assert not any("\N{REPLACEMENT CHARACTER}" in piece.text for piece in pieces)


def test_long_prompts_keep_their_end_within_the_context(grown):
    ids = prompt_ids(grown.tokenizer, "The cat sat on the mat. " * 40)
    answer = speak(grown, ids, Sampling(tokens=200, temperature=0))
    assert len(answer.read) + len(answer.ids) <= grown.positions == 128
    assert answer.read == ids[-64:]
    assert fitting([1, 2, 3], 5, None) == ([1, 2, 3], 5)


def test_a_prompt_spells_no_special_token(grown):
    bos, *ids = prompt_ids(grown.tokenizer, "<eos>")
    assert bos == grown.tokenizer.bos_token_id and grown.tokenizer.eos_token_id not in ids
    assert prompt_ids(grown.tokenizer, "") == [bos]


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens", 0), ("temperature", -1.0), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0.0),
     ("top_p", 1.5), ("repetition_penalty", 0.0), ("seed", -1)],
)  # fmt: skip
def test_options_out_of_range_are_named(field, value):
    with pytest.raises(FrozenGlyphError, match=f"^{field}="):
        Sampling(**{field: value})


def test_what_cannot_speak_is_refused_by_name(grown, tmp_path):
    with pytest.raises(FrozenGlyphError, match="no growth stage 3; its stages: 1 to 2"):
        grown.load(3)
    with pytest.raises(FrozenGlyphError, match="has no experts"):
        grown.set_rule("mean")
    with pytest.raises(FrozenGlyphError, match=r"has no config\.json"):
        Speaker(str(tmp_path))


def test_an_adapter_changes_what_its_base_says(experts, tmp_path):
    """``BASE+ADAPTER`` and the adapter's folder alone, which names its base, are the same model."""
    peft = pytest.importorskip("peft")
    folder = tmp_path / "lora"
    base = FrozenGlyphForCausalLM.from_pretrained(experts[0])
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "fc_in"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(folder)
    ids = prompt_ids(Speaker(str(experts[0])).tokenizer, "The cat")
    with torch.no_grad():
        expected = adapted(torch.tensor([ids])).logits
        found = Speaker(f"{experts[0]}+{folder}", "cpu")
        torch.testing.assert_close(found.model(torch.tensor([ids])).logits, expected)
    assert found.label == "ru@2+lora"
    assert speak(found, ids, BEST).text is not None


def test_who_runs_is_set_where_the_rule_allows_it(merged, grown):
    merged.set_rule("fixed_share")
    merged.run_at_most(1)
    assert merged.model.config.active_experts == 1
    for count in (0, 3):
        with pytest.raises(FrozenGlyphError, match=rf"active_experts={count} .* from 1 to its 2 experts"):
            merged.run_at_most(count)
    merged.set_rule("mean")
    for speaker in (merged, grown):
        with pytest.raises(FrozenGlyphError, match="needs the rule fixed_share"):
            speaker.run_at_most(1)

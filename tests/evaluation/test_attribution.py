"""Who speaks in a text: shares by definition, a text that comes back whole, and pages that nothing breaks out of."""

from html.parser import HTMLParser

import pytest
import torch

from frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphMoEForCausalLM
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.attribution import Attribution, attribute, attribute_checkpoint
from frozen_glyph.evaluation.colours import fragment_html, page_html, terminal_legend, terminal_text

TEXT = "The cat, кот 猫\n\x1b[31m𝄞 <script>" + " The hat is on the mat." * 30  # 𝄞 is bytes; longer than the context


@torch.no_grad()
def test_shares_of_experts_are_the_weights_that_predicted_each_token(merged_folder, tokenizer):
    """The shares of the opening are those of one call; a later window begins in the middle of the one before."""
    model = FrozenGlyphMoEForCausalLM.from_pretrained(merged_folder, rule="posterior").eval()
    found = attribute(model, tokenizer, TEXT)
    assert (found.names, found.ordered) == (["ru", "zh"], False)
    assert "".join(found.pieces) == TEXT
    assert "𝄞" in found.pieces
    assert len(found.pieces) > model.config.max_position_embeddings
    ids = [tokenizer.bos_token_id, *tokenizer("The cat, ", add_special_tokens=False)["input_ids"]]
    weights = model(torch.tensor([ids]), return_expert_weights=True).expert_weights[0, :-1]
    torch.testing.assert_close(torch.tensor(found.shares[: len(weights)]), weights, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(found.shares).sum(-1), torch.ones(len(found.pieces)))


@torch.no_grad()
def test_a_token_settles_at_the_first_depth_that_predicts_as_all_later_ones(write_expert, tokenizer):
    model = FrozenGlyphForCausalLM.from_pretrained(write_expert("deep", [1, 2, 4], seed=5)).eval()
    for block in model.model.layers[1:]:  # so that some predictions survive it
        block.self_attn.o_proj.weight.mul_(0.1), block.mlp.fc_out.weight.mul_(0.1), block.mlp.fc_out.bias.mul_(0.1)
    text = "The cat sat on the mat."
    found = attribute(model, tokenizer, text)
    assert (found.names, found.ordered) == (["stage 1", "stage 2", "stage 3"], True)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    chosen = []
    for blocks in (1, 2, 4):
        model.config.num_hidden_layers = blocks  # as assistant_early_exit does
        chosen.append(model(ids).logits[0, :-1].argmax(-1).tolist())
    expected = [
        0 if first == second == last else 1 if second == last else 2
        for first, second, last in zip(*chosen, strict=True)
    ]
    assert [list(shares).index(1) for shares in found.shares] == expected
    assert len(set(expected)) > 1
    assert [row[1] for row in found.summary()] == [expected.count(depth) for depth in range(3)]


def test_a_checkpoint_by_name(merged_folder, experts):
    """A rule that weighs all tokens alike shows nothing, so another reads; stages and rules are checked."""
    assert attribute_checkpoint(str(merged_folder), "The cat").title == "weight of each expert under evidence"
    assert "probability" in attribute_checkpoint(str(merged_folder), "The cat", rule="probability").title
    assert attribute_checkpoint(f"{experts[0]}@1", "The cat").names == ["stage 1"]
    for word, text, rule, said in (
        (experts[0], "The cat", "mean", "is not merged and has no rule"),
        (merged_folder, "The cat", "means", "rule 'means' of ru-zh is unknown"),
        (merged_folder, "", None, "the text has no token"),
        (merged_folder, "a\ud800", None, "is no Unicode text"),
    ):
        with pytest.raises(FrozenGlyphError, match=said):
            attribute_checkpoint(str(word), text, rule)


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.titles = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.titles += [value for name, value in attributes if name == "title"]
        assert {name for name, _ in attributes} <= {"style", "title", "lang", "charset", "name", "content"}

    def handle_data(self, data):
        self.text.append(data)


HOSTILE = Attribution(
    "weights <i>",
    ['"><script>x()</script>', "[red]\x1b[2J"],
    ["<script>", "a\n\x1b[31mb", " & [bold]", "c"],
    [[0.9, 0.1], [0.2, 0.8], [], [1.5, -0.5]],
)


@pytest.mark.parametrize("draw", [fragment_html, page_html])
def test_pages_show_any_text_and_run_none(draw):
    page = Page(draw(HOSTILE))
    assert set(page.tags) <= {"p", "span", "html", "head", "meta", "title", "body"}
    assert "".join(HOSTILE.pieces) in "".join(page.text)
    assert any(title == '"><script>x()</script> 0.90, [red]\x1b[2J 0.10' for title in page.titles)


def test_terminals_get_colours_and_no_commands():
    drawn = terminal_text(HOSTILE)
    assert drawn.plain == "<script>a\n\\x1b[31mb & [bold]c"
    assert len({span.style for span in drawn.spans}) == 3  # none where nothing was predicted
    assert "\x1b" not in terminal_legend(HOSTILE).plain


@pytest.mark.parametrize("count", [1, 3, 6, 9])
@pytest.mark.parametrize("ordered", [True, False])
def test_every_name_has_a_colour_of_its_own(count, ordered):
    names = [f"expert {number}" for number in range(count)]
    shares = torch.eye(count).tolist()
    drawn = terminal_text(Attribution("", names, names, shares, ordered))
    assert len({span.style for span in drawn.spans}) == count

"""A talk: what slashes change while it goes on, what is remembered, what is refused and leaves it as it was."""

import pytest

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.talk.session import HELP, Ended, Session
from frozen_glyph.talk.speakers import Speaker
from frozen_glyph.talk.speaking import Sampling

FEW = Sampling(tokens=3, temperature=0, seed=0)


def test_stage_rule_and_options_change_while_talking(grown, merged):
    talk = Session([grown, merged], FEW)
    deep = talk.handle("The cat")
    assert talk.handle("/stage 1") == "ru@1"
    assert talk.handle("The cat") != deep
    assert talk.handle("/model ru-zh") == "ru-zh (mean)"
    assert talk.handle("/rule weighted 3,1") == "ru-zh (weighted)"
    assert merged.model.config.expert_weights == [0.75, 0.25]
    assert talk.handle("/expert zh") == "ru-zh (zh alone)"
    assert talk.handle("/set tokens 5") == "tokens 5"
    assert talk.handle("/set temperature 0.5") == "temperature 0.5"
    assert talk.sampling == Sampling(tokens=5, temperature=0.5, seed=0)
    assert "ru-zh (zh alone); completion; tokens 5" in talk.handle("/info")
    assert all(f"/{name}" in talk.handle("/help") for name in HELP)
    with pytest.raises(Ended):
        talk.handle("/quit")


def test_an_empty_line_goes_on_with_the_text(grown):
    talk = Session([grown], FEW)
    first = talk.handle("The cat")[0].text
    (more,) = talk.handle("")
    assert grown.tokenizer.decode(more.read, skip_special_tokens=True) == "The cat" + first
    (slash,) = talk.handle("//stage")
    assert grown.tokenizer.decode(slash.read, skip_special_tokens=True) == "/stage"


@pytest.mark.parametrize("several", [False, True], ids=["one model", "two models"])
def test_side_by_side(grown, merged, several):
    """Of two models each answers; of one its experts do, each alone; a stage chosen ends it."""
    talk = Session([grown, merged] if several else [merged], FEW, compare=True)
    assert talk.labels() == (["ru@2", "ru-zh (mean)"] if several else ["ru-zh (ru alone)", "ru-zh (zh alone)"])
    heard = {}
    answers = talk.handle("The cat", lambda number, piece: heard.update({number: heard.get(number, "") + piece.text}))
    assert [answer.text for answer in answers] == [heard[0], heard[1]]
    assert talk.handle("/rule mean" if not several else "/stage 1") in ("ru-zh (mean)", "ru@1")
    assert len(talk.handle("The cat")) == 1


def test_stages_side_by_side(grown):
    talk = Session([grown], FEW, compare=True)
    assert talk.labels() == ["ru@1", "ru@2"]
    first, second = talk.handle("The cat")
    assert first != second
    talk.handle("/stage 1")
    assert talk.handle("The cat") == [first]


def test_messages_are_remembered_until_the_context_is_full(chatting_folder):
    speaker = Speaker(str(chatting_folder), "cpu")
    talk = Session([speaker], FEW, system="be kind")
    assert talk.chat, "a model that was saved with a chat template"
    said = talk.handle("The cat")[0].text
    (second,) = talk.handle("sat")
    read = speaker.tokenizer.decode(second.read, skip_special_tokens=True)
    assert read == f"[system]be kind[user]The cat[assistant]{said}[user]sat[a]"
    for _ in range(6):
        (answer,) = talk.handle("on the mat")
    assert len(answer.read) <= speaker.positions - FEW.tokens
    assert speaker.tokenizer.decode(answer.read, skip_special_tokens=True).startswith("[system]be kind[user]")
    talk.handle("/new")
    assert len(talk.handle("on")[0].read) < len(answer.read)
    assert talk.handle("/complete") == "every line is completed"
    assert speaker.tokenizer.decode(talk.handle("The")[0].read, skip_special_tokens=True) == "The"


@pytest.mark.parametrize(
    ("line", "said"),
    [("/stge 1", "/stge is no command. Did you mean 'stage'?"), ("/stage 7", "no growth stage 7"),
     ("/stage x", "must be a number, from 1 to 2"), ("/rule mean", "has no experts"),
     ("/expert ru", "its experts: none"),
     ("/set heat 1", "'heat' is no option"), ("/set tokens 1.5", "must be a whole number"), ("/set top_p 2", "top_p=2"),
     ("/model 9", "must be one of: 1 ru@2"), ("/chat", "no chat template")],
)  # fmt: skip
def test_what_is_refused_leaves_the_talk_as_it_was(grown, line, said):
    talk = Session([grown], FEW)
    before = talk.handle("/info")
    with pytest.raises(FrozenGlyphError) as refusal:
        talk.handle(line)
    assert said in str(refusal.value)
    assert talk.handle("/info") == before


def test_a_merged_model_refuses_unknown_rules_and_weights(merged):
    talk = Session([merged], FEW)
    for line, said in (
        ("/rule meen", "Did you mean 'mean'"),
        ("/rule weighted 1,x", "must be numbers"),
        ("/rule posterior 1,-1", "non-negative"),
        ("/expert en", "its experts: ru, zh"),
    ):
        with pytest.raises(FrozenGlyphError, match=said):
            talk.handle(line)
    assert merged.label == "ru-zh (mean)"
    with pytest.raises(FrozenGlyphError, match="no model given"):
        Session([], FEW)

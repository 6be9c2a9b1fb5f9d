"""The emergence study: spans of one kind, what they cost a model, ranks and their report; one run of it."""

import json
import random

import pytest
import torch

from eval.studies.common.arms import rates_of
from eval.studies.common.ground import source_file
from eval.studies.common.tables import circumstances
from eval.studies.emergence.questions import (
    BASELINES,
    OTHERS,
    Choice,
    choices,
    documents,
    excerpt,
    kind_of,
    passages,
    rank_of,
)
from eval.studies.emergence.report import as_markdown, summarise
from eval.studies.emergence.runs import ARMS, CONTROL, SMOKE, prepare, recipe_of, run_arm, span_costs
from eval.studies.growth.runs import recipe_of as recipe_of_growth
from eval.studies.squad_heads.questions import Question

NAMES = ["Ann", "Bob", "Cy", "Dora", "Eve", "Fay", "Gus", "Hal", "Ida", "Jo", "Kim", "Lou", "Max"]
STORY = f"In the old town lived {', '.join(NAMES[:-1])}, and 1871 saw {NAMES[-1]} come from the south by train."


def question(answer, *others):
    return Question("town", "Who came by train?", STORY, (answer, *others), STORY.index(answer))


def test_excerpts_hold_the_answer_and_whole_words():
    generator, words = random.Random(1), STORY.split()
    for _ in range(50):
        found = excerpt(question("Max"), 40, generator)
        assert "Max" in found and len(found) <= 40 and set(found.split()) <= set(words), found
    assert excerpt(question("Max"), 1000, generator) == STORY
    text = documents([question("Max")], 40, 3)
    assert sorted(passages(["a b\nc\nd", "e"], 3)) == ["a b", "c\nd", "e"]
    assert len(text) == 3 and all(each.endswith("?\nAnswer: Max") and "\n\n" not in each for each in text)


def test_others_are_of_the_answers_kind_and_not_right():
    (found,) = choices([question("Max", "Kim Max")], 1000, 5)
    assert found.spans[0] == "Max" and len(found.spans) == 1 + OTHERS == len(set(found.spans))
    assert set(found.spans[1:]) <= {*NAMES, "In"} - {"Max", "Kim"}  # an answer's part is no other
    assert found.prompt.endswith("\nQuestion: Who came by train?\nAnswer:")
    assert choices([question("1871"), question("lived Ann, Bob"), question("come from the south")], 1000, 5) == []
    assert kind_of(["In", "1871", "saw", "south"]) == ("name", "number", "short", "long")


def test_ranks_count_what_costs_less_and_halve_draws():
    assert rank_of([2.0, 1.0, 3.0, 2.0]) == 1.5
    costs = {
        name: [cost(Choice("", "a bb ccc", ("ccc", "a")), span) for span in ("ccc", "a")]
        for name, cost in BASELINES.items()
    }
    assert [name for name, own in costs.items() if rank_of(own) == 0] == ["last in the context", "the longest"]


def test_spans_cost_what_the_whole_text_says(build_model, tokenizer):
    """With the prompt read once, as with every text read by itself; spans of one token and of several."""
    model, as_text = build_model(), {"add_special_tokens": False}
    choice = Choice("town", "Context: Ann, Bob and Max.\nQuestion: Who?\nAnswer:", ("Max", "A", "Bob Ann"))
    before = [tokenizer.bos_token_id, *tokenizer(choice.prompt, **as_text)["input_ids"]]
    for span, cost in zip(choice.spans, span_costs(model, tokenizer, choice), strict=True):
        ids = before + tokenizer(f" {span}", **as_text)["input_ids"]
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        nats = [-log_probs[place - 1, ids[place]].item() for place in range(len(before), len(ids))]
        assert cost == pytest.approx(sum(nats) / len(nats), abs=1e-4)


def test_arms_are_the_growth_studys_and_read_both_texts(tmp_path):
    for arm in ARMS:
        recipe = recipe_of(arm, SMOKE.learning_rate, 0, SMOKE, tmp_path)
        assert recipe.stages == recipe_of_growth(arm, 0, SMOKE).stages
        assert [source.weight for source in recipe.data.sources] == [1.0, 1.0]


def test_report_sets_stages_beside_one_block_after_as_many_tokens():
    """Made-up runs: each stage of the ladder lifts answers by one place, the control stays where it was."""
    asked = [Choice(f"article {place % 8}", "a b", ("a", "b")) for place in range(40)]
    spread = [place % 3 for place in range(40)]

    def run(gain, rate):
        stages = [
            {
                "blocks": stage + 1,
                "tokens": 5,
                "ranks": [4 + extra - gain * stage for extra in spread],
                "nats": [3.0 - gain * stage] * 40,
            }
            for stage in range(SMOKE.stages)
        ]
        return {"stages": stages, "development": abs(rate - best), "flops": 1e12, "cpu_seconds": 1.0}

    best = rates_of(SMOKE)[1]
    gains = {CONTROL: 0, "newest-carried": 1}
    results = {(arm, rate, 0): run(gain, rate) for arm, gain in gains.items() for rate in rates_of(SMOKE)}
    results |= {(arm, best, seed): run(gain, best) for arm, gain in gains.items() for seed in (1, 2)}
    report = summarise(results, SMOKE, ARMS, range(3), asked) | circumstances([])
    first, last = report["arms"]["newest-carried"]
    assert first["minus_control"]["rank"]["difference"] == 0
    assert last["minus_control"]["rank"]["difference"] == pytest.approx(-1) and last["tokens"] == 10
    assert last["minus_control"]["nats"]["difference"] == pytest.approx(-1)
    assert report["minus"][CONTROL]["newest-carried"]["difference"] == pytest.approx(1)
    text = as_markdown(report)
    assert "Not finished, so not reported: top-two, two-blocks, joint" in text and "-1.00 (text -1.00" in text
    with pytest.raises(SystemExit, match="run the study first"):
        summarise({}, SMOKE, ARMS, range(3), asked)


@pytest.mark.slow
def test_a_run_ranks_the_answers_after_every_stage(tmp_path):
    data, work = tmp_path / "data", tmp_path / "work"
    for folder in ("text", "squad"):
        (data / folder).mkdir(parents=True)
    sentence = "The cat sat on the mat, and the hat is on the cat.\n"
    source_file(data, "en").write_text(f"{sentence}\n" * 200, "utf-8")
    source_file(data, "en", development=True).write_text(sentence * 12, "utf-8")
    asked = [
        {"question": f"Who is {name}?", "answers": [{"text": name, "answer_start": STORY.index(name)}]}
        for name in NAMES
    ]
    articles = [{"title": title, "paragraphs": [{"context": STORY, "qas": asked}]} for title in ("town", "village")]
    for name in ("train-v1.1.subset", "dev-v1.1"):
        (data / "squad" / f"{name}.json").write_text(json.dumps({"data": articles}), "utf-8")
    prepare(data, SMOKE, work)
    found = run_arm("newest-carried", 2e-3, 0, SMOKE, data, work)
    assert [stage["blocks"] for stage in found["stages"]] == [1, 2]
    for stage in found["stages"]:
        assert len(stage["ranks"]) == len(stage["nats"]) == len(found["articles"]) == SMOKE.asked
        assert all(0 <= rank <= OTHERS for rank in stage["ranks"]) and min(stage["nats"]) > 0
    assert found["development"] > 0

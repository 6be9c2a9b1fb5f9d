"""The demo's questions as lm-eval tasks: what a model is asked is each choice right after its prompt."""

from pathlib import Path
from typing import Any

import pytest

from frozen_glyph.demo.questions import Question
from frozen_glyph.demo.tasks import write_tasks
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.tasks.harness import LoadedTask, Tasks

QUESTIONS = [
    Question("facts", "both", "en", "Mira lives in", (" Dorn.", " Kell.", " Aven."), 2),
    Question("facts", "both", "en", "7", (" 8", " 9"), 1),  # a template would make a number of it
    Question("extraction", "zh", "zh", "问：谁值班？答：", ("守卫安。", "厨师林。"), 0),
    Question("options", "ru", "en", "Question: {{x}}?\nAnswer: Mira is", (" 'a' \"b\".", " [1]."), 1),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedTask]:
    folder = tmp_path_factory.mktemp("tasks")
    names = write_tasks(folder, QUESTIONS)
    source = Tasks(None, [folder])
    return {name: source.load(name) for name in names}


def requests_of(loaded: LoadedTask) -> list[Any]:
    """What lm-eval asks a model: (prompt, continuation) of every choice of every item."""
    task = next(iter(loaded.leaves.values()))
    task.build_all_requests(rank=0, world_size=1)
    return [instance.args for instance in task.instances]


def test_a_task_is_named_after_the_expert_that_alone_read_what_it_takes(loaded: dict[str, LoadedTask]) -> None:
    assert list(loaded) == ["extraction_zh", "facts", "options_ru"]


@pytest.mark.parametrize("name", ["extraction_zh", "facts", "options_ru"])
def test_choices_follow_their_prompt_literally(loaded: dict[str, LoadedTask], name: str) -> None:
    own = [one for one in QUESTIONS if name in (one.task, f"{one.task}_{one.expert}")]
    assert requests_of(loaded[name]) == [(one.prompt, choice) for one in own for choice in one.choices]
    task = next(iter(loaded[name].leaves.values()))
    assert [task.doc_to_target(doc) for doc in task.eval_docs] == [one.answer for one in own]


def test_tasks_of_ones_own_stand_beside_the_shipped_ones(tmp_path: Path) -> None:
    """lm-eval's and this project's task files are read only when a task is not among one's own."""
    write_tasks(tmp_path, QUESTIONS)
    source = Tasks(None, [tmp_path])
    source.load("facts")
    assert set(source._index) == {"extraction_zh", "facts", "options_ru"}
    source._find("fg_squad")
    assert {"facts", "fg_squad", "arc_easy"} <= set(source._index)
    with pytest.raises(FrozenGlyphError, match=r"task folder '.*none' does not exist"):
        Tasks(None, [tmp_path / "none"])


def test_a_changed_question_or_protocol_is_another_task(loaded: dict[str, LoadedTask], tmp_path: Path) -> None:
    """Finished measurements are kept by this digest."""
    write_tasks(tmp_path, QUESTIONS)
    digest = Tasks(None, [tmp_path]).load("facts").digest
    assert Tasks(None, [tmp_path]).load("facts").digest == digest
    definition = tmp_path / "facts.yaml"
    definition.write_text(definition.read_text("utf-8").replace("version: 1.0", "version: 2.0"), "utf-8")
    assert Tasks(None, [tmp_path]).load("facts").digest != digest
    write_tasks(tmp_path, QUESTIONS[1:])
    assert Tasks(None, [tmp_path]).load("facts").digest != digest

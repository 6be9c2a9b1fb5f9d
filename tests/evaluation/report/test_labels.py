"""No two models or texts of a report have one name."""

from pathlib import Path

import pytest

from frozen_glyph.checkpoint.source import Source
from frozen_glyph.evaluation.candidates import model_labels
from frozen_glyph.evaluation.evaluate import find_texts
from frozen_glyph.evaluation.report.labels import numbered, shortest_labels
from frozen_glyph.evaluation.report.summarise import ALL_TEXTS


def labels_of(*paths: str) -> list[str]:
    return shortest_labels([path.split("/") for path in paths])


def test_as_little_of_a_path_as_tells_it_from_the_others() -> None:
    assert labels_of("a/ru", "a/zh") == ["ru", "zh"]
    assert labels_of("h/1/x/ru", "h/2/x/ru", "h/1/x/zh") == ["1/x/ru", "2/x/ru", "zh"]
    assert labels_of("x/ru", "home/x/ru", "other/x/ru") == ["x/ru", "home/x/ru", "other/x/ru"]


@pytest.mark.parametrize("names", [["ru"] * 3, ["ru", "ru (2)", "ru"], ["a", "a", "a (2)", "a (2)"], []])
def test_what_nothing_tells_apart_is_numbered(names: list[str]) -> None:
    found = numbered(names)
    assert len(set(found)) == len(names)
    assert all(label.startswith(name) for label, name in zip(found, names, strict=True))


def test_models_of_the_hub_and_stages_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("x/ru", "y/ru", "ru@1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "ru").symlink_to(tmp_path / "x" / "ru")
    models = [tmp_path / "x/ru", tmp_path / "y/ru", tmp_path / "ru@1", "user/ru", "user/ru@2", "other/ru@2"]
    assert model_labels([Source.parse(str(model)) for model in models]) == [
        "x/ru", "y/ru", "ru@1", "user/ru", "user/ru@2", "other/ru@2"
    ]  # fmt: skip


def test_texts_of_one_name_are_all_kept(tmp_path: Path) -> None:
    names = ["a/en.txt", "b/en.txt", "b/en.valid.txt", f"a/{ALL_TEXTS}.txt", "a/ru.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    texts = find_texts([tmp_path / name for name in names], None)
    assert texts == dict(zip(["en", "en.txt", "en.valid.txt", f"{ALL_TEXTS}.txt", "ru"], names, strict=True))
    several = find_texts([tmp_path / "a/en.txt", tmp_path / "b/en.txt"], None)
    assert several == {"a/en": "a/en.txt", "b/en": "b/en.txt"}

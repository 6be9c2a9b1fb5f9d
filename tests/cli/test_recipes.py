"""`frozen-glyph recipes`: the list is that of the dry runs, and what it names can be shown, copied and grown."""

import json

from frozen_glyph.recipes.shipped import shipped_recipes


def test_the_list_says_what_every_recipe_costs(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = run("recipes")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if "/growth" in line}
    assert rows.keys() == shipped_recipes("growth").keys()
    assert rows["growing-unicode/growth"] == ["3", "9", "247.6M", "9G", "6.9", "0.38"]  # hub_configs/README.md
    assert "substrates/bvv241-abs" in out and "tiny-trilingual/merge" in out


def test_show_and_copy(run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = shipped_recipes()["tiny-trilingual/growth-ru"]
    assert run("recipes", "show", "tiny-trilingual/growth-ru") == (0, path.read_text("utf-8"), "")
    code, out, _ = run("recipes", "copy", "tiny-trilingual/growth-ru", "mine")
    assert code == 0 and out.splitlines()[0] == "mine/growth-ru.yaml"
    found = json.loads(run("grow", "mine/growth-ru.yaml", "--dry-run", "--json")[1])
    assert [phase["num_hidden_layers"] for phase in found["phases"]] == [1, 2, 3]
    assert "Did you mean 'tiny-trilingual/growth-ru'" in refused("recipes", "show", "tiny-trilingual/growth_ru")


def test_a_file_in_the_way_is_told(refused, tmp_path):
    """Whatever a command writes into, a file that stands there is one line that says what to do."""
    (tmp_path / "notes").write_text("mine")
    for words in (("recipes", "copy", "tiny-trilingual/growth-ru"), ("data", "sample", "--synthetic")):
        assert refused(*words, tmp_path / "notes" / "new").endswith("is a file; choose another folder")
    assert (tmp_path / "notes").read_text() == "mine"

"""`frozen-glyph merge`, `extract` and `reweigh`: what they write, say and refuse."""

import json
import shutil

import pytest


def test_it_writes_a_folder(run, experts, tmp_path):
    code, out, err = run("merge", *experts, "-o", tmp_path / "merged", "--rule", "posterior", "--weights", "3,1")
    assert (code, out.split()[-2:], err) == (0, ["merged:", str(tmp_path / "merged")], "")
    for said in ("rule posterior", "stored once: substrate", "a Bayesian mixture"):
        assert said in out
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert (config["rule"], config["expert_weights"]) == ("posterior", [0.75, 0.25])


def test_a_recipe_and_what_goes_before_it(run, refused, experts, tmp_path):
    recipe = {"experts": [str(experts[0]), {"source": str(experts[1]), "stage": 1}], "rule": "weighted"}
    (tmp_path / "merge.yaml").write_text(json.dumps(recipe | {"weights": [1, 1], "names": ["a", "b"]}))
    words = ("merge", "--config", tmp_path / "merge.yaml", "-o", tmp_path / "merged")
    assert run(*words, "--weights", "3,1", "--set", "names.1=c")[0] == 0
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert (config["expert_names"], config["expert_weights"]) == (["a", "c"], [0.75, 0.25])
    assert [expert["num_hidden_layers"] for expert in config["experts"]] == [2, 1]
    message = refused(*words[:3], "-o", tmp_path / "x", "--set", "wieghts=[1,2]")
    assert message.startswith("unknown recipe key 'wieghts'. Did you mean 'weights'?")
    message = refused(*words[:3], "-o", tmp_path / "x", "--set", "experts.1.stages=1")
    assert "unknown recipe key 'stages' in experts[1]. Did you mean 'stage'?" in message


def test_a_dry_run_says_what_is_shared_and_writes_nothing(run, experts, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("merge", f"{experts[0]}@1", experts[1], "--dry-run")
    assert (code, err) == (0, "")
    assert "ru@1" in out and "stored once: substrate" in out and "merged:" not in out
    found = json.loads(run("merge", *experts, "--dry-run", "--json", "-o", tmp_path / "merged")[1])
    assert [expert["name"] for expert in found["experts"]] == ["ru", "zh"]
    assert sorted(tmp_path.rglob("*")) == before


def test_extract_reweigh_and_inspect(run, refused, experts, tmp_path):
    merged = tmp_path / "merged"
    run("merge", *experts, "-o", merged)
    code, out, err = run("extract", merged, "zh", "-o", tmp_path / "zh")
    assert (code, out.split(), err) == (0, ["extracted:", str(tmp_path / "zh")], "")
    assert run("inspect", tmp_path / "zh", "--verify")[0] == 0
    code, out, err = run("reweigh", merged, "--rule", "weighted", "--weights", "0.7,0.3")
    assert (code, out.split(), err) == (0, ["reweighed:", str(merged)], "")
    code, out, _ = run("inspect", merged, "--verify")
    assert code == 0
    for said in ("rule weighted", "0.700", "one weight for all text"):
        assert said in out
    assert "has no expert 'en'" in refused("extract", merged, "en", "-o", tmp_path / "en")
    assert "choose rule='weighted'" in refused("reweigh", merged, "--rule", "mean", "--weights", "1,2")
    assert "nothing to change" in refused("reweigh", merged)


def test_experts_that_do_not_match(refused, experts, tmp_path, substrate):
    config = json.loads((experts[1] / "config.json").read_text())
    shutil.copytree(experts[1], tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"substrate_fingerprint": "sha256:other"}))
    message = refused("merge", experts[0], tmp_path / "other", "-o", tmp_path / "merged")
    assert message.startswith("experts differ in substrate_fingerprint: ")
    assert substrate.fingerprint in message
    assert "sha256:other" in message
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rule", "meen"), "rule='meen' is not known. Did you mean 'mean'?"),
        (("--weights", "a,b"), "--weights 'a,b' must be numbers separated by commas"),
        (("--weights", "1,2"), "weights=[1.0, 2.0] mean nothing to rule='mean', which counts all experts alike"),
        (("--rule", "posterior", "--weights", "1"), "weights=[1.0] must be 2 non-negative numbers"),
        (("--names", "a"), "recipe field names=['a'] is not allowed: it must be 2 different names"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(refused, experts, tmp_path, options, message):
    assert refused("merge", *experts, "-o", tmp_path / "merged", *options).startswith(message)
    assert not (tmp_path / "merged").exists()


def test_too_few_or_missing_experts(refused, experts, tmp_path):
    assert "needs at least two" in refused("merge", experts[0], "-o", tmp_path / "merged")
    message = refused("merge", experts[0], tmp_path / "no", "-o", tmp_path / "merged")
    assert "no' is no folder and cannot be fetched from the Hub" in message

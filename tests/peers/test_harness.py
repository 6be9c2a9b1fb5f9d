"""The job that runs the suites of others tells what they said: nothing lost, nothing switched off unsaid."""

import json
import tarfile
from pathlib import Path

import pytest
from peers.fetch import PACKAGES, unpack_tests
from peers.reasons import REASONS, reason_for, stale
from peers.table import Outcome, read_outcome, write
from peers.variants import OURS, VARIANTS

from frozen_glyph.model.rules_frozen_glyph import RULES

REPORT = """<testsuites><testsuite>
<testcase classname="a.test_peft.TestX" name="test_good[1]"/>
<testcase classname="a.test_peft.TestX" name="test_bad"><failure message="AssertionError: 1 | 2&#10;more"/></testcase>
<testcase classname="a.test_peft.TestX" name="test_part [first]"/>
<testcase classname="a.test_peft.TestX" name="test_part [second]"><failure message="no"/></testcase>
<testcase classname="a.test_peft.TestX" name="test_gpu"><skipped message="test requires GPU"/></testcase>
<testcase classname="a.test_peft.TestX" name="test_off"><skipped message="ours: frozen"/></testcase>
<testcase classname="a.test_peft.TestX" name="test_broken"><error message="fixture"/></testcase>
</testsuite></testsuites>"""
RESULTS = Path(__file__).parents[2] / "eval" / "results" / "peers.json"
ABOUT = {
    "command": "run",
    "commit": "abc",
    "machine": "m",
    "versions": "v",
    "sources": [{"package": "peft", "version": "1", "archive": "peft.tar.gz sha256:0", "repository": "none"}],
}


def test_every_outcome_is_in_the_table(tmp_path):
    """A test fails where a part of it does; what we switch off and what skips itself are told apart."""
    (tmp_path / "report.xml").write_text(REPORT)
    outcome = read_outcome("peft", "mean", tmp_path / "report.xml")
    assert outcome.passed == 1
    assert outcome.failed == {
        "test_bad": "AssertionError: 1 | 2",
        "test_part": "no",
        "test_broken": "fixture",
    }
    assert (outcome.switched_off, outcome.skipped) == (
        {"test_off": "frozen"},
        {"test_gpu": "test requires GPU"},
    )
    write([outcome], ABOUT, tmp_path / "peers")
    recorded = json.loads((tmp_path / "peers.json").read_text())["outcomes"]
    assert recorded == [vars(outcome) | {"skipped": {"test requires GPU": 1}}]
    table = (tmp_path / "peers.md").read_text()
    assert "| peft | mean | 1 | 3 | 1 | 1 |" in table
    assert "| peft | AssertionError: 1 \\| 2 | mean | `test_bad` |" in table
    assert "| peft | frozen | mean | `test_off` |" in table


def test_a_reason_holds_where_it_says_and_is_missed_where_it_does_nothing():
    first = REASONS[0]
    name = first.tests[0].replace("*", "")
    assert reason_for(first.suite, first.variants[0], name) == first.why
    assert reason_for(first.suite, "llama", name) is None and reason_for("other", first.variants[0], name) is None
    outcome = Outcome(first.suite, first.variants[0], switched_off={name: first.why})
    assert first not in stale([outcome]) and stale([]) == REASONS


def test_the_recorded_run_has_no_failure_and_met_every_reason():
    """A reason that switches nothing off, or a variant that is not known any more, is a line to delete."""
    outcomes = [Outcome(**fields) for fields in json.loads(RESULTS.read_text("utf-8"))["outcomes"]]
    assert {each.suite for each in outcomes} == set(PACKAGES)
    assert {each.variant for each in outcomes} >= {"llama", *OURS} - RULES.keys()
    assert [each.failed for each in outcomes if each.failed] == [] and stale(outcomes) == []
    assert all(set(reason.variants) <= VARIANTS.keys() for reason in REASONS)


def test_of_an_archive_the_tests_alone_are_unpacked(tmp_path):
    """And nothing outside their folder, whatever the archive says."""
    for name in ("pkg-1/tests/a/test_a.py", "pkg-1/src/b.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x")
    with tarfile.open(tmp_path / "pkg.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "pkg-1", "pkg-1")
    unpack_tests(tmp_path / "pkg.tar.gz", tmp_path / "out")
    assert [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.py")] == [Path("a/test_a.py")]
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "pkg-1/src/b.py", "pkg-1/tests/../../../evil.py")
    with pytest.raises(tarfile.FilterError):
        unpack_tests(tmp_path / "evil.tar.gz", tmp_path / "out")

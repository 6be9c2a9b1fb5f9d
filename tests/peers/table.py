"""What the suites of others said, as a table: eval/results/peers.md and .json."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

OURS = "ours: "  # before the reason of a test that reasons.py switches off
MARKS = ("failure", "error", "skipped")
PARTS = {"failed": "Failed", "switched_off": "Switched off by us", "skipped": "Skips itself"}


@dataclass
class Outcome:
    """Of one suite on one variant: how many tests passed, and for the others what was said, by the name of the test."""

    suite: str
    variant: str
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    switched_off: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        return {"passed": self.passed} | {part: len(getattr(self, part)) for part in PARTS}


def read_outcome(suite: str, variant: str, report: Path) -> Outcome:
    """From pytest's report in the XML of JUnit. A test fails where one of its parts does."""
    outcome = Outcome(suite, variant)
    said: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name", "").partition(" [")[0]
        marks = said.setdefault(name, {})
        marks |= {mark.tag: first_line(mark.get("message", "")) for mark in case if mark.tag in MARKS}
    for name, marks in sorted(said.items()):
        reason = marks.get("skipped", "")
        if failed := marks.get("failure") or marks.get("error"):
            outcome.failed[name] = failed
        elif reason.startswith(OURS):
            outcome.switched_off[name] = reason.removeprefix(OURS)
        elif reason:
            outcome.skipped[name] = reason
        else:
            outcome.passed += 1
    return outcome


def first_line(message: str) -> str:
    return (message.strip().splitlines() or ["no message"])[0][:200]


def write(outcomes: list[Outcome], about: dict[str, Any], out: Path) -> None:
    """``out`` with the endings .json and .md; the first keeps no names of the tests that skip themselves."""
    record = [vars(each) | {"skipped": dict(Counter(each.skipped.values()).most_common())} for each in outcomes]
    text = json.dumps(about | {"outcomes": record}, indent=1, ensure_ascii=False)
    out.with_suffix(".json").write_text(text + "\n", "utf-8")
    out.with_suffix(".md").write_text(markdown(outcomes, about), "utf-8")


def markdown(outcomes: list[Outcome], about: dict[str, Any]) -> str:
    lines = ["# The test suites of peers on our model classes", ""]
    lines += [f"Written by `{about['command']}`, commit {about['commit']}; {about['machine']}.", ""]
    lines += [f"{about['versions']}.", ""]
    for source in about["sources"]:
        named = f"{source['package']} {source['version']}: {source['archive']}"
        lines += [f"* {named}; what the archive lacks: {source['repository']}"]
    lines += ["", *head("suite", "class or rule", "passed", "failed", "switched off by us", "skips itself")]
    lines += [row(each.suite, each.variant, *map(str, each.counts().values())) for each in outcomes]
    for part, title in PARTS.items():
        lines += ["", f"## {title}, and why", "", *reasons(outcomes, part)]
    return "\n".join(lines) + "\n"


def reasons(outcomes: list[Outcome], part: str) -> list[str]:
    """One row for each reason: where it held, and for which tests; how many variants of a test have parameters."""
    variants: dict[tuple[str, str], list[str]] = {}
    tests: dict[tuple[str, str], set[str]] = {}
    for each in outcomes:
        for test, reason in getattr(each, part).items():
            if each.variant not in variants.setdefault((each.suite, reason), []):
                variants[each.suite, reason].append(each.variant)
            tests.setdefault((each.suite, reason), set()).add(test)
    if not tests:
        return ["None."]
    lines = head("suite", "why", "class or rule", "tests")
    for (suite, reason), names in sorted(tests.items()):
        functions = Counter(name.partition("[")[0] for name in names)
        listed = ", ".join(f"`{name}`" + (f" ({count})" if count > 1 else "") for name, count in functions.items())
        what = str(len(names)) if part == "skipped" else listed
        lines += [row(suite, reason, ", ".join(variants[suite, reason]), what)]
    return lines


def head(*cells: str) -> list[str]:
    return [row(*cells), row(*("---" for _ in cells))]


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

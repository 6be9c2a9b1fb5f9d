"""Run the test suites of transformers, peft and trl on our model classes, and write what they say as a table.

Command: ``python tests/peers [--suite transformers] [--variant grown] [--checkout transformers=DIR] --out NAME``

Needs, beside the extra ``dev``: ``pip install trl diffusers parameterized httpx``. The suites are fetched (see
``fetch.py``): code of others that runs with your rights, of the same origin as the packages that you have installed.
"""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from peers.fetch import CACHE, PACKAGES, ROOT, fetch, source_of
from peers.reasons import stale
from peers.table import read_outcome, write
from peers.variants import CHOICE, VARIANTS

VERSIONS = ("torch", "transformers", "peft", "trl", "accelerate", "pytest")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", action="append", choices=PACKAGES, help="which one; all by default")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="which class or rule; all by default")
    parser.add_argument("--checkout", action="append", default=[], metavar="PACKAGE=DIR",
                        help="a working copy of the package's repository, where it cannot be cloned")  # fmt: skip
    parser.add_argument("--processes", type=int, default=1, help="how many variants to test at once")
    parser.add_argument("--report", action="store_true", help="run nothing, write what the last runs said")
    parser.add_argument("--out", type=Path, help="write NAME.json and NAME.md")
    return parser.parse_args()


def report(suite: str, variant: str) -> Path:
    return CACHE / "reports" / f"{suite}-{variant}.xml"


def run(suite: str, variant: str) -> None:
    """One suite on one variant, in a process of its own."""
    said = report(suite, variant)
    said.parent.mkdir(parents=True, exist_ok=True)
    said.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"tests/peers/test_{suite}.py", "-m", "peers", "-q", "--tb=short"]
    command += ["-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default", f"--junitxml={said}"]
    begun = time.monotonic()
    with said.with_suffix(".log").open("w") as log:
        environment = os.environ | {CHOICE: variant, "HF_HUB_OFFLINE": "1"}
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    outcome = read_outcome(suite, variant, said)
    print(f"{suite} {variant}: {outcome.counts()}, {time.monotonic() - begun:.0f} s", flush=True)


def main() -> int:
    given = arguments()
    checkouts = dict(entry.split("=", 1) for entry in given.checkout)
    suites = given.suite or list(PACKAGES)
    pairs = [(suite, variant) for suite in suites for variant in given.variant or VARIANTS]
    if not given.report:
        for suite in suites:
            fetch(suite, Path(checkouts[suite]) if suite in checkouts else None)
        with ThreadPoolExecutor(given.processes) as pool:
            list(pool.map(lambda pair: run(*pair), pairs))
    outcomes = [read_outcome(*pair, report(*pair)) for pair in pairs if report(*pair).is_file()]
    if given.out:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        versions = [f"{package} {importlib.metadata.version(package)}" for package in VERSIONS]
        about = {
            "command": "python tests/peers --out eval/results/peers",
            "commit": commit.stdout.strip(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
            "sources": [source_of(suite) for suite in suites],
        }
        write(outcomes, about, given.out)
    complaints = [
        f"{each.suite} {each.variant} {test}: {why}" for each in outcomes for test, why in each.failed.items()
    ]
    if not (given.suite or given.variant):
        complaints += [f"reasons.py: {each.tests} of {each.suite} switch off nothing" for each in stale(outcomes)]
    print("\n".join(complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())

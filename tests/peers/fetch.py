"""The suites of others: their tests are fetched when they are to run, into ``.peers``, and are no part of this project.

The package index has them as far as the source archive of the installed version holds tests (pip compares the hash that
the index names); the rest is in the repository that the package's metadata name, at the tag of that version.
"""

import hashlib
import importlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".peers"
PACKAGES = ("transformers", "peft", "trl")
SOURCE = "source.json"
PARTS = ("tests", "utils")  # of a repository; tests of transformers' configurations import from its utils


def suite(package: str) -> Path:
    """The folder of its tests. They call each other ``tests``, see ``load``."""
    return CACHE / package / "tests"


def load(package: str, module: str) -> ModuleType:
    """A module of a laid out suite; one process loads one suite."""
    folder = str(suite(package).parent)
    if sys.path[0] != folder:
        sys.path.insert(0, folder)
        sys.modules.pop("tests", None)  # pytest's name of the folder that this file is in
    return importlib.import_module(f"tests.{module}")


def fetch(package: str, checkout: Path | None = None) -> None:
    """Lay out the tests of the installed ``package``.

    Args:
        checkout: a working copy of the package's repository; by default it is cloned.

    Raises:
        PackageNotFoundError: the package is not installed.
        CalledProcessError: pip did not get the archive.
    """
    version, folder = importlib.metadata.version(package), suite(package)
    shutil.rmtree(folder.parent, ignore_errors=True)
    archive = download(package, version)
    checkout, repository = (
        (checkout, f"a given folder, {version_in(checkout)}") if checkout else clone(package, version)
    )
    for part in PARTS if checkout else ():
        if (checkout / part).is_dir():
            shutil.copytree(checkout / part, folder.parent / part, dirs_exist_ok=True)
    unpack_tests(archive, folder)
    (folder / "__init__.py").touch()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    source = {"package": package, "version": version, "archive": f"{archive.name} sha256:{digest}"}
    (folder.parent / SOURCE).write_text(json.dumps(source | {"repository": repository}), "utf-8")


def source_of(package: str) -> dict[str, str]:
    """Where its tests are from: package, version, archive, and the repository that has what the archive lacks."""
    return json.loads((suite(package).parent / SOURCE).read_text("utf-8"))


def version_in(checkout: Path) -> str:
    """What a working copy says of its version."""
    for file in filter(Path.is_file, [checkout / "VERSION", *checkout.glob("src/*/__init__.py")]):
        if found := re.search(r"(?:__version__ = \"|\A)(\d[\w.]+)", file.read_text("utf-8")):
            return f"version {found[1]}"
    return "of no known version"


def download(package: str, version: str) -> Path:
    """The source archive of a version, by pip, from the index that it is configured with."""
    folder = CACHE / "archives" / f"{package}-{version}"
    if not folder.is_dir() or not list(folder.iterdir()):
        command = ["download", "--quiet", "--no-deps", "--no-binary", package, "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", *command, f"{package}=={version}"], check=True)
    return next(folder.iterdir())


def unpack_tests(archive: Path, folder: Path) -> None:
    """The folder ``tests`` of a source archive, over what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as files:
        for member in files:
            parts = Path(member.name).parts
            if member.isfile() and parts[1:2] == ("tests",):
                member.name = str(Path(*parts[2:]))
                files.extract(member, folder, filter="data")


def clone(package: str, version: str) -> tuple[Path | None, str]:
    """The tests in the repository at the version's tag; None, and that, where it cannot be had."""
    folder = CACHE / "repositories" / f"{package}-{version}"
    address = home(package)
    if not folder.is_dir():
        command = ["git", "clone", "--depth", "1", "--branch", f"v{version}", "--filter=blob:none", "--sparse"]
        fetched = subprocess.run([*command, address, str(folder)], capture_output=True, text=True)
        if fetched.returncode:
            return None, "none, it could not be cloned"
        subprocess.run(["git", "-C", str(folder), "sparse-checkout", "set", *PARTS], check=True, capture_output=True)
    commit = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return folder, f"tag v{version}, commit {commit.stdout.strip()}"


def home(package: str) -> str:
    """Address of a package's repository, as its metadata say."""
    metadata = importlib.metadata.metadata(package)
    named = dict(entry.split(", ", 1) for entry in metadata.get_all("Project-URL") or [])
    lowered = {name.lower(): address for name, address in named.items()}
    return lowered.get("repository") or lowered.get("homepage") or metadata["Home-page"]

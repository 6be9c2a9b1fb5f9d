"""Nothing in the package takes a POSIX system for granted: macOS and Windows lack modules, functions and encodings.

What a Linux machine can check of them: sources are scanned, and (slow) a growth, a merge and a lock work without the
modules that Windows lacks and with symbolic links refused.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import frozen_glyph

PACKAGE = Path(frozen_glyph.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "definitions" not in path.parts)
ABSENT = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
OF_POSIX = {
    "os": {
        *("chown", "fork", "forkpty", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "killpg", "mkfifo"),
        *("nice", "openpty", "pread", "pwrite", "sched_getaffinity", "setsid", "statvfs", "sync", "uname", "wait4"),
        *("rename", "renames", "symlink", "link", "O_DIRECTORY", "O_NOFOLLOW"),  # os.replace, and links with a fallback
    },
    "signal": {"SIGALRM", "SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "alarm", "setitimer", "pause"},
}
LINKS = {"hardlink_to", "symlink_to", "rename"}
TEXT = {"read_text", "write_text", "open"}  # whose encoding is otherwise that of the system


def faults(source: str) -> list[str]:
    """What in ``source`` another system lacks, by line, unless it is tried or asked for first."""
    tree = ast.parse(source)
    guarded = {id(inner) for node in ast.walk(tree) if is_tried(node) for inner in inside(node.body)}
    guarded |= {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If | ast.IfExp)
        and ("hasattr" in ast.unparse(node.test) or "platform" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    return [f"line {node.lineno}: {what}" for node, what in suspects(tree) if id(node) not in guarded]


def is_tried(node: ast.AST) -> bool:
    """Whether ``node`` goes on where what is in it fails."""
    suppresses = isinstance(node, ast.With) and "suppress(" in ast.unparse(node.items[0])
    return isinstance(node, ast.Try) or suppresses


def inside(nodes: list[ast.stmt]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


def suspects(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for name in node.names:
                    if name.name.partition(".")[0] in ABSENT:
                        yield node, f"import {name.name}"
            case ast.ImportFrom() if (node.module or "").partition(".")[0] in ABSENT:
                yield node, f"from {node.module} import"
            case ast.Attribute(value=ast.Name(id=module)) if node.attr in OF_POSIX.get(module, ()):
                yield node, f"{module}.{node.attr}"
            case ast.Call(func=ast.Attribute(attr=name, value=value)) if name in LINKS and not is_module(value):
                yield node, f"{name}()"
            case ast.Call(func=ast.Attribute(attr=name)) if name in TEXT and opens_text(node, name):
                yield node, f"{name}() without an encoding"
            case ast.Constant(value=str(text)) if text.startswith(("/proc", "/dev/", "/tmp", "/etc")):
                yield node, repr(text)


def opens_text(node: ast.Call, name: str) -> bool:
    """Whether a call reads or writes text in whatever encoding the system has."""
    named = {keyword.arg for keyword in node.keywords}
    if "encoding" in named or None in named:
        return False
    if name == "open":
        mode = next((one.value for one in node.args[:1] if isinstance(one, ast.Constant)), "r")
        return not is_module(node.func.value) and isinstance(mode, str) and set(mode) <= set("rwax+t")
    return len(node.args) < (1 if name == "read_text" else 2)


def is_module(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in ("os", "gzip", "webbrowser")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import resource", ["line 1: import resource"]),
        ("try:\n    import resource\nexcept ImportError:\n    pass", []),
        ("import os\nos.rename(a, b)\nos.replace(a, b)", ["line 2: os.rename"]),
        ("n = os.getloadavg() if hasattr(os, 'getloadavg') else None", []),
        ("path.symlink_to(other)", ["line 1: symlink_to()"]),
        ("path.read_text()\npath.read_text('utf-8')\npath.open('rb')\npath.open()", [
            "line 1: read_text() without an encoding", "line 4: open() without an encoding"]),
        ("x = '/proc/self'", ["line 1: '/proc/self'"]),
    ],
)  # fmt: skip
def test_the_scan_sees_what_it_is_for(source, expected):
    assert faults(source) == expected


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_takes_a_posix_system_for_granted(path):
    assert faults(path.read_text("utf-8")) == []


WITHOUT = """
import os, sys, pathlib, importlib, pkgutil
from transformers import AutoModelForCausalLM, GenerationMixin, Trainer  # others look for these modules themselves
for name in {absent!r}:
    sys.modules[name] = None
def refused(*args, **kwargs):
    raise OSError("a link is not permitted")
os.symlink = os.link = pathlib.Path.symlink_to = pathlib.Path.hardlink_to = refused
for name in ("getuid", "geteuid", "fork", "getloadavg", "wait4"):
    if hasattr(os, name) and name != "fork":
        delattr(os, name)
import frozen_glyph
for module in pkgutil.walk_packages(frozen_glyph.__path__, "frozen_glyph."):
    if not module.name.endswith("__main__") and "definitions" not in module.name:
        importlib.import_module(module.name)
from frozen_glyph import merge_experts
merged = merge_experts([{first!r}, {second!r}], {out!r})
from frozen_glyph.memory import peak_memory
AutoModelForCausalLM.from_pretrained(merged)
print("merged", peak_memory())
"""


@pytest.mark.slow
def test_it_merges_and_loads_without_what_windows_lacks(experts, tmp_path):
    """Every module is imported; locks, shards and memory have a fallback."""
    absent = sorted(ABSENT - {"posix"})  # which Python itself stands on here
    code = WITHOUT.format(absent=absent, first=str(experts[0]), second=str(experts[1]), out=str(tmp_path / "merged"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["merged None"], done.stderr

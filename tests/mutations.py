"""Damage to files as accidents and attackers make it, from a seed: bytes, JSON values, safetensors headers, YAML."""

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

DEEP = "[" * 100_000
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 33, 10**9, 2**40, 2**63, 2**70, 1.5, -0.0, 1e308, float("nan"), float("inf"),
    "", " ", "x", "0", "-1", "float16", "nope", "a\nb", "\x1b[31m", "\u202eabc", "[/red]", "../../etc/passwd",
    "/etc/passwd", "\ud800", "a" * 5000, "model.safetensors", "config.json", [], {}, [None], [0, 0], [[1], [2]], [-1],
    {"": None}, {"a": {"b": []}}, {"weight_map": 5}, [2**40] * 3,
]  # fmt: skip


def values(tree: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value inside ``tree``, its own, (), first."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(below for key, value in inner for below in values(value, (*path, key)))]


def put(tree: Any, path: tuple, value: Any) -> Any:
    """``tree`` with another value at ``path``, in place but for the root."""
    if not path:
        return value
    at(tree, path[:-1])[path[-1]] = value
    return tree


def at(tree: Any, path: tuple) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """A copy of plain data with one to three things wrong."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = values(tree)
        shallow = [path for path in places if len(path) <= 2]
        path = rng.choice(shallow if rng.random() < 0.5 else places)
        parent = at(tree, path[:-1]) if path else None
        match rng.randrange(6):
            case 0 if path:
                del parent[path[-1]]
            case 1 if isinstance(parent, dict):
                parent[rng.choice(["x", "", "__metadata__", "\x1b[2J", f"{path[-1]}2"])] = parent.pop(path[-1])
            case 2:
                tree = put(tree, path, copy.deepcopy(at(tree, rng.choice(places))))
            case 3 if isinstance(at(tree, path), int) and not isinstance(at(tree, path), bool):
                tree = put(tree, path, at(tree, path) + rng.choice((-1, 1, 8, 10**9, 2**40)))
            case _:
                tree = put(tree, path, copy.deepcopy(rng.choice(HOSTILE)))
    return tree


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """``content`` with one thing wrong that knows nothing of its format."""
    place, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    inserted = rng.choice(
        (b"\x00", b"\xff", b"\xed\xa0\x80", b"{", b"]", b'"', b"\n", DEEP.encode(), b"9" * 5000, b"NaN")
    )
    match rng.randrange(7):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + content[end:]
        case 2:
            return content[:end] + content[place:]
        case 3:
            return rng.choice(
                (b"", b"\xef\xbb\xbf" + content, DEEP.encode(), b"null", b"9" * 5000, b"\xff\xfe{\x00}\x00")
            )
        case 4 if place < len(content):
            return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    return content[:place] + inserted + content[place:]


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON file, mostly still JSON."""
    return mutate_bytes(content, rng) if rng.random() < 0.2 else as_json(mutate_tree(json.loads(content), rng))


def mutate_json_lines(content: bytes, rng: random.Random) -> bytes:
    """A file of JSON lines with one of them wrong."""
    lines = content.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = mutate_json(lines[number], rng)
    return b"\n".join(lines) + b"\n"


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, its length, or its bytes."""
    (size,) = struct.unpack("<Q", content[:8])
    header, body = content[8 : 8 + size], content[8 + size :]
    kind = rng.randrange(10)
    if kind == 0:
        return mutate_bytes(content, rng)
    if kind == 1:
        return struct.pack("<Q", rng.choice((0, 1, size - 8, size + 8, 2**31, 2**63, 2**64 - 1))) + header + body
    if kind == 2:
        tree = json.loads(header)
        name = rng.choice([name for name in tree if name != "__metadata__"])
        tree["__metadata__"]["columns"] = rng.choice(
            (
                json.dumps({name: 10**9}),
                json.dumps({name: 0}),
                json.dumps({name: -1}),
                "[",
                "5",
                json.dumps({name: "x"}),
                DEEP,
            )
        )
        header = as_json(tree)
    else:
        header = mutate_json(header, rng)
    return struct.pack("<Q", len(header)) + header + body


NINE = ", ".join(["*a{n}"] * 9)
YAML_BOMB = "a0: &a0 [x]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [{NINE.format(n=n)}]" for n in range(9))
MERGE_BOMB = "a0: &a0 {k: v}\n" + "\n".join(f"a{n + 1}: &a{n + 1} {{<<: [{NINE.format(n=n)}]}}" for n in range(9))
YAML_LINES = [
    YAML_BOMB, MERGE_BOMB, "name: &a [*a]", "seed: 0x" + "f" * 9000, "name: !!python/object:os.system x",
    "seed: 2001-99-99", "? [a, {b: c}]\n: d", "name: !!timestamp x", "name: !!binary '*'", "seed: !!bool x",
    "seed: !!float ''", "1: 2", "- x", "null: x", 'name: "\\x1b[31m"', "...", "%YAML 9.9\n---", "name: !!set {a, b}",
    "seed: 1_0", "seed: 190:20:30", "stages: 5", "training: {learning_rate: .nan}", "seed: .inf",
    "name: '" + "a" * 5000 + "'", "{" * 400, "a: " * 900,
]  # fmt: skip


def mutate_yaml(content: bytes, rng: random.Random, parse: Callable[[bytes], Any], dump: Callable[[Any], str]) -> bytes:
    """A YAML file: as data, as bytes, or with a line that YAML makes something else of."""
    kind = rng.randrange(10)
    if kind < 5:
        return dump(mutate_tree(parse(content), rng)).encode("utf-8", "surrogatepass")
    lines = content.decode().splitlines()
    if kind < 9:
        lines.insert(rng.choice((0, len(lines))), rng.choice(YAML_LINES))
        return "\n".join(lines).encode()
    return mutate_bytes(content, rng)

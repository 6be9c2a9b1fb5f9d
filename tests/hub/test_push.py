"""Pushing over real HTTP with the real client, each a process of its own: all of a checkpoint arrives or nothing."""

import json
import shutil
import subprocess
import sys

import pytest
from hub_server import READER, TOKEN, LoopbackHub

from frozen_glyph.checkpoint.files import sha256_file, write_json
from frozen_glyph.checkpoint.provenance import hash_companions

CLIENT = """
import json, sys, time
time.sleep = lambda seconds: None  # the client waits between attempts
from frozen_glyph.hub import push

found = []
for call in json.loads(sys.stdin.read()):
    try:
        found.append(["url", push(**call)])
    except Exception as error:
        found.append([type(error).__name__, str(error)])
print("RESULT" + json.dumps(found))
"""


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def push(hub, tmp_path):
    """``push(call, ...)``: what a client process finds that makes these calls, [kind, text] each."""

    def push(*calls: dict, **environment: str) -> list[list[str]]:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            input=json.dumps(calls), env=hub.client_environment(tmp_path / "home") | environment,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.partition("RESULT")[2])

    return push


@pytest.fixture(scope="module")
def run_folder(write_expert):
    """A run of two stages as it lies on a disk: card, metrics, and what must not travel."""
    folder = write_expert("ru", [1, 2], seed=5)
    (folder / "README.md").write_text('---\nlibrary_name: transformers\n---\nmodel.from_pretrained("ru")\n')
    (folder / "metrics-1.jsonl").write_text('{"loss": 1.0}\n')
    for stray in (
        ".work/stage-2/checkpoint-1/optimizer.pt",
        ".config.json.99.tmp",
        "notes.txt",
        "tensorboard/events.1",
    ):
        (folder / stray).parent.mkdir(parents=True, exist_ok=True)
        (folder / stray).write_bytes(b"at home")
    return folder


@pytest.fixture
def folder(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "ru")


STRAYS = {"notes.txt", ".config.json.99.tmp"}


def uploads(hub) -> list[str]:
    return [path.rpartition("/")[2] for _, path in hub.requests_of("PUT")]


def commits(hub, repo: str) -> int:
    return len(hub.repos[repo])


def test_all_of_a_checkpoint_and_nothing_else(hub, push, folder):
    ((kind, url),) = push({"folder": str(folder), "repo": "user/ru", "private": True})
    last, files = hub.repos["user/ru"][-1]
    assert (kind, url) == ("url", f"{hub.url}/user/ru/commit/{last}")
    assert "user/ru" in hub.private
    assert commits(hub, "user/ru") == 2  # the Hub's own, and ours
    expected = {path.name for path in folder.iterdir() if path.is_file()} - STRAYS
    assert files.keys() == expected | {".gitattributes"}
    for name in expected - {"README.md"}:
        assert files[name] == (folder / name).read_bytes()
    assert b'from_pretrained("user/ru")' in files["README.md"]
    assert b'from_pretrained("ru")' in (folder / "README.md").read_bytes()


def test_again_sends_nothing_and_makes_no_commit(hub, push, folder):
    call = {"folder": str(folder), "repo": "user/ru"}
    first, second = push(call, call)
    assert first == second
    assert commits(hub, "user/ru") == 2
    assert sorted(uploads(hub)) == sorted(sha256_file(path) for path in folder.glob("*.safetensors"))


def test_a_new_stage_sends_its_own_shards_only(hub, push, folder, tmp_path):
    shorter = shutil.copytree(folder, tmp_path / "shorter")
    for name in ("blocks-2.safetensors", "head-2.safetensors", "stage-2.safetensors.index.json"):
        (shorter / name).unlink()
    shutil.copy(shorter / "stage-1.safetensors.index.json", shorter / "model.safetensors.index.json")
    config = json.loads((shorter / "config.json").read_text())
    fields = {"num_hidden_layers": 1, "ladder": [1], "transformers_weights": "stage-1.safetensors.index.json"}
    write_json(shorter / "config.json", config | fields)
    provenance = json.loads((shorter / "provenance.json").read_text())
    fields = {"stages": provenance["stages"][:1], "companions": hash_companions(shorter)}
    write_json(shorter / "provenance.json", provenance | fields)
    push({"folder": str(shorter), "repo": "user/ru"})
    sent = len(uploads(hub))
    push({"folder": str(folder), "repo": "user/ru"})
    added = {sha256_file(folder / f"{name}-2.safetensors") for name in ("blocks", "head")}
    assert set(uploads(hub)[sent:]) == added and len(uploads(hub)) == sent + 2
    assert commits(hub, "user/ru") == 3
    # Back to one stage: what the folder no longer names goes, what is not ours stays.
    files = hub.repos["user/ru"][-1][1]
    hub.commit("user/ru", files | {"picture.png": b"theirs", "adapter_model.safetensors": b"theirs"})
    push({"folder": str(shorter), "repo": "user/ru"})
    now = hub.repos["user/ru"][-1][1].keys()
    assert not now & {"blocks-2.safetensors", "head-2.safetensors", "stage-2.safetensors.index.json"}
    assert now >= {"picture.png", "adapter_model.safetensors", ".gitattributes", "blocks-1.safetensors"}


def test_an_interrupted_upload_goes_on(hub, push, folder):
    call = {"folder": str(folder), "repo": "user/ru"}
    broken = sha256_file(folder / "blocks-2.safetensors")
    hub.cut = lambda method, path: method == "PUT" and path.endswith(broken)
    ((kind, message),) = push(call)
    assert kind == "HubError"
    assert "Error while uploading 'blocks-2.safetensors'" in message
    assert "push again, what has arrived is not sent again" in message
    assert commits(hub, "user/ru") == 1 and hub.repos["user/ru"][-1][1].keys() == {".gitattributes"}
    arrived = set(hub.objects)
    assert broken not in arrived
    hub.cut = lambda method, path: False
    before = len(uploads(hub))
    ((kind, _),) = push(call)
    assert kind == "url"
    assert set(uploads(hub)[before:]) == {sha256_file(path) for path in folder.glob("*.safetensors")} - arrived
    assert commits(hub, "user/ru") == 2


def test_somebody_else_pushes_meanwhile(hub, push, folder):
    call = {"folder": str(folder), "repo": "user/ru"}
    hub.commit("user/ru", {"README.md": b"---\nlicense: mit\n---\n"})

    def race(method: str, path: str) -> None:
        if path == "/api/models/user/ru/commit/main":
            hub.refuse = lambda method, path: None
            hub.commit("user/ru", {"README.md": b"theirs"})

    hub.refuse = race
    first, second = push(call, call)
    assert first[0] == "HubError"
    assert first[1].startswith("somebody else pushed to 'user/ru' meanwhile, and theirs was not touched; push")
    assert hub.repos["user/ru"][1][1] == {"README.md": b"theirs"}
    assert second[0] == "url" and commits(hub, "user/ru") == 3


def test_every_refusal_names_its_cause_and_pushes_nothing(hub, push, folder):
    for repo in ("user/open", "user/hidden", "user/gated"):
        hub.commit(repo, {"README.md": b""})
    hub.private.add("user/hidden")
    hub.gated.add("user/gated")
    refused = {
        "user/open": {"token": READER},
        "user/hidden": {"token": READER},
        "user/gated": {"token": READER},
        "user/wrong": {"token": "hf_wrong"},
        "other/new": {},
        "user/branch": {"revision": "v2"},
        "user name/x": {},
        "plain": {},
    }
    calls = [{"folder": str(folder), "repo": repo, **options} for repo, options in refused.items()]
    found = dict(
        zip(refused, push(*calls, {"folder": str(folder), "repo": "user/open", "private": True}), strict=False)
    )
    messages = {
        "user/open": "the token may not write to 'user/open'; use one with write access to it",
        "user/hidden": "the token may not write to 'user/hidden'; use one with write access to it",
        "user/gated": "'user/gated' is gated; ask its owner for access",
        "user/wrong": "the Hub does not accept the token; log in again with `hf auth login`, or mend HF_TOKEN",
        "other/new": "the token may not write to 'other/new'",
        "user/branch": "'user/branch' has no branch 'v2'; make it with `hf repos branch create user/branch v2`",
        "user name/x": "'user name/x' is no repository id: ",
        "plain": "'plain' is no repository id; give user/name or organization/name",
    }
    for repo, message in messages.items():
        assert found[repo][0] == "HubError"
        assert found[repo][1].startswith(message), found[repo]
    assert {len(history) for history in hub.repos.values()} == {1}
    assert not hub.objects


def test_no_token_and_no_network(hub, push, folder):
    call = {"folder": str(folder), "repo": "user/ru"}
    ((kind, message),) = push(call, HF_TOKEN="")
    assert kind == "HubError" and message.startswith(
        "no token of the Hub; log in with `hf auth login`, or set HF_TOKEN"
    )
    ((kind, message),) = push(call, HF_ENDPOINT="http://127.0.0.1:9")
    assert kind == "HubError" and message.startswith("the connection to the Hub failed: ")
    ((kind, message),) = push(call, HF_HUB_OFFLINE="1")
    assert kind == "HubError" and "offline" in message
    assert not hub.repos


def test_a_public_repository_does_not_become_private_silently(hub, push, folder):
    hub.commit("user/open", {"README.md": b""})
    ((kind, message),) = push({"folder": str(folder), "repo": "user/open", "private": True})
    assert kind == "HubError" and "exists and is public" in message
    assert commits(hub, "user/open") == 1


def test_merge_pushes_afterwards_and_keeps_its_folder(hub, experts, tmp_path):
    def merge(out: str, **environment: str) -> subprocess.CompletedProcess:
        words = ["merge", *map(str, experts), "-o", str(tmp_path / out), "--push-to-hub", "user/merged"]
        return subprocess.run(
            [sys.executable, "-m", "frozen_glyph.cli", *words], capture_output=True, text=True, timeout=300,
            env=hub.client_environment(tmp_path / "home") | environment,
        )  # fmt: skip

    early = merge("early", HF_TOKEN="hf_wrong")
    assert early.returncode == 1 and early.stderr.startswith("error: the Hub does not accept the token")
    assert not (tmp_path / "early").exists()  # refused before the work
    hub.refuse = lambda method, path: 403 if path.endswith("/commit/main") else None
    late = merge("late")
    again = f"push it with `frozen-glyph push {tmp_path / 'late'} user/merged`"
    assert late.returncode == 1 and again in late.stderr.splitlines()[-1]
    assert (tmp_path / "late" / "provenance.json").exists() and commits(hub, "user/merged") == 1
    hub.refuse = lambda method, path: None
    assert f"pushed: {hub.url}/user/merged/commit/" in merge("good").stdout
    assert "expert-1.safetensors" in hub.repos["user/merged"][-1][1]


def test_push_to_a_branch_leaves_main_as_it_is(hub, push, folder):
    files = {"README.md": b"main"}
    hub.commit("user/ru", files)
    hub.commit("user/ru@v2", files)
    ((kind, _),) = push({"folder": str(folder), "repo": "user/ru", "revision": "v2"})
    assert kind == "url"
    assert hub.repos["user/ru"][-1][1] == files
    assert "blocks-2.safetensors" in hub.repos["user/ru@v2"][-1][1]


DAMAGES = {
    "blocks-1.safetensors": lambda folder: (folder / "blocks-1.safetensors").unlink(),
    "blocks-1.safetensors: is of another checkpoint": lambda folder: shutil.copy(
        folder / "blocks-2.safetensors", folder / "blocks-1.safetensors"
    ),
    "stage-1.safetensors.index.json: missing": lambda folder: (folder / "stage-1.safetensors.index.json").unlink(),
    "tokenizer.json: is missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "has no config.json": lambda folder: (folder / "config.json").unlink(),
    '"tags" with value 1 is not valid': lambda folder: (folder / "README.md").write_text("---\ntags: 1\n---\n"),
}


def test_an_incomplete_folder_stays_at_home(hub, push, folder, tmp_path):
    calls = []
    for number, damage in enumerate(DAMAGES.values()):
        copy = shutil.copytree(folder, tmp_path / f"damaged-{number}")
        damage(copy)
        calls.append({"folder": str(copy), "repo": "user/ru", "token": TOKEN})
    for expected, (kind, message) in zip(DAMAGES, push(*calls), strict=True):
        assert kind in ("CheckpointError", "HubError")
        assert expected in message
    assert not hub.objects
    assert all(len(history) == 1 for history in hub.repos.values())

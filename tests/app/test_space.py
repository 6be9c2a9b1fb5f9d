"""A Space of the page: what is pushed over real HTTP, and that it runs from what was pushed alone."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest
from hub_cards import card_errors
from hub_server import TOKEN, LoopbackHub

from frozen_glyph.app.space import space_files
from frozen_glyph.errors import FrozenGlyphError

PUSH = """
import json, sys
from frozen_glyph.app.space import space_files
from frozen_glyph.hub import push_space
for title in ("look", "look", "another"):
    print(push_space(space_files(["user/ru", "user/ru@1"], title), "user/look", private=True))
"""


def test_files_of_a_space():
    files = space_files(["user/ru@2"], "look")
    assert {"app.py", "README.md", "requirements.txt", "frozen_glyph/app/page.py", "frozen_glyph/app/page.css"} <= set(
        files
    )
    assert not any("__pycache__" in name or name.endswith(".md") for name in set(files) - {"README.md"})
    assert b"Speaker(word) for word in ['user/ru@2']" in files["app.py"]
    compile(files["app.py"], "app.py", "exec")
    card = files["README.md"].decode()
    assert card_errors(card) == [] and "sdk: gradio" in card and "- user/ru\n" in card
    needed = files["requirements.txt"].decode().split()
    assert any(word.startswith("torch>=") for word in needed) and not any("pytest" in word for word in needed)


@pytest.mark.parametrize("word", ["runs/ru/deep", "ru", "/etc", "user/ru\n--x"])
def test_a_space_shows_repositories_of_the_hub_alone(word):
    with pytest.raises(FrozenGlyphError, match="is no repository of the Hub"):
        space_files([word], "look")


@pytest.mark.slow
def test_a_push_is_one_commit_and_again_none(tmp_path):
    with LoopbackHub() as hub:
        done = subprocess.run(
            [sys.executable, "-c", PUSH],
            env=hub.client_environment(tmp_path), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        first, again, other = done.stdout.split()
        assert first == again != other
        assert len(hub.repos["spaces/user/look"]) == 3 and "spaces/user/look" in hub.private
        files = hub.repos["spaces/user/look"][-1][1]
    assert files.keys() == {".gitattributes", *space_files(["user/ru"], "another")}
    assert b"title: another" in files["README.md"]


@pytest.mark.slow
def test_a_space_runs_from_its_own_files(tmp_path, experts):
    """With nothing but what was pushed and the libraries of its requirements, models come from the Hub."""
    pytest.importorskip("gradio", reason="the page needs gradio, which wants an environment of its own")
    folder = tmp_path / "space"
    for name, content in space_files(["user/ru"], "look").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with LoopbackHub() as hub:
        hub.commit_folder("user/ru", experts[0])
        told = {"GRADIO_SERVER_PORT": "7899", "GRADIO_SERVER_NAME": "127.0.0.1", "HF_TOKEN": TOKEN}
        environment = hub.client_environment(tmp_path / "home") | told
        with (tmp_path / "log").open("w") as log:
            space = subprocess.Popen([sys.executable, "app.py"], cwd=folder, env=environment, stderr=log)
        try:
            until = time.monotonic() + 240
            while True:
                assert space.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
                try:
                    config = json.load(urllib.request.urlopen("http://127.0.0.1:7899/config"))
                    break
                except OSError:
                    time.sleep(0.5)
        finally:
            space.kill()
        assert config["title"] == "look" or "frozen glyph" in config["title"]
        assert hub.fetched("user/ru")["blocks-2.safetensors"]

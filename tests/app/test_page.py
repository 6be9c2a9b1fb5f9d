"""The page in a real browser: clicks, a wide and a narrow window, light and dark, and not one request to elsewhere.

Needs gradio and playwright in one environment (``pip install "frozen-glyph[app]" playwright``) and Chromium
(``apt-get install chromium``). ``FROZEN_GLYPH_SHOTS=FOLDER`` keeps pictures of what was seen.
"""

import os
import re
import socket
import sys
import threading
from pathlib import Path

import pytest

from frozen_glyph.app.page import build_page, check_port, gradio, serve_page
from frozen_glyph.errors import FrozenGlyphError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # gradio's own, of pandas
SIZES = {"wide": 1280, "narrow": 390}


def test_without_gradio_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(FrozenGlyphError, match=r"pip install .frozen-glyph\[app\]"):
        gradio()


def test_a_port_that_is_taken_is_named_before_any_work():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(FrozenGlyphError, match=f"port {taken} cannot be used .*; give another --port"):
            check_port(taken)
    check_port(taken)
    with pytest.raises(FrozenGlyphError, match="port 70000 cannot be used"):
        check_port(70000)


@pytest.fixture(scope="module")
def address(merged_folder, experts):
    pytest.importorskip("gradio", reason="the page needs gradio, which wants an environment of its own")
    from frozen_glyph.talk.speakers import Speaker

    page = build_page([Speaker(str(merged_folder), "cpu"), Speaker(str(experts[0]), "cpu")])
    yield serve_page(page, block=False)
    page.close()


@pytest.fixture
def open_page(browser, address):
    """``open_page(width, scheme)``: the page in a new window, and the list of what it asked elsewhere or failed at."""
    contexts = []

    def open_page(width: int, scheme: str):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page, wrong = contexts[-1].new_page(), []
        inside = (address.rstrip("/"), "data:", "blob:")
        page.on("request", lambda asked: None if asked.url.startswith(inside) else wrong.append(asked.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".fg-card")
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


def shoot(page, name: str) -> None:
    if folder := os.environ.get("FROZEN_GLYPH_SHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_tab_answers_clicks(open_page, size, scheme):
    page, wrong = open_page(SIZES[size], scheme)
    page.get_by_label("Text").first.fill("猫 cat")
    page.wait_for_function("document.querySelectorAll('.fg-cards .fg-card').length <= 6")
    assert "猫" in page.locator(".fg-cards").inner_text()
    shoot(page, f"glyphs-{size}-{scheme}")

    page.get_by_role("tab", name="Voices").click()
    page.get_by_role("button", name="Colour").click()
    page.wait_for_selector("span[title]:visible")
    assert re.search(r"weight of each expert under evidence:\s+ru", page.locator("body").inner_text())
    shoot(page, f"voices-{size}-{scheme}")

    page.get_by_role("tab", name="Growth").click()
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector(".fg-sample:visible")
    assert page.locator(".fg-now:visible").inner_text().split()[0] == "2"
    page.get_by_role("slider", name=re.compile("Growth stage")).last.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.fg-now').innerText.trim().startsWith('1')")
    shoot(page, f"growth-{size}-{scheme}")

    page.get_by_role("tab", name="Samples").click()
    page.get_by_label("ru@1").check()
    page.get_by_role("button", name="Write").click()
    page.wait_for_function("document.querySelectorAll('.fg-samples')[1]?.querySelectorAll('.fg-sample').length == 3")
    shoot(page, f"samples-{size}-{scheme}")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]
    assert wrong == []


@pytest.mark.slow
def test_only_this_machine_reaches_it_and_it_gives_no_file(address, tmp_path):
    import httpx

    assert address.startswith("http://127.0.0.1:")
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (f"gradio_api/file={secret}", f"file={secret}", "gradio_api/file=/etc/hostname"):
        assert httpx.get(address + path).status_code in (403, 404)
    assert httpx.post(address + "gradio_api/upload", files={"files": b"too large"}).status_code >= 400
    assert threading.active_count() < 40

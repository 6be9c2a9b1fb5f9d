"""``growth.html`` in a real browser: it opens offline, wide and narrow, light and dark, and asks for no other file.

Needs playwright and Chromium (``pip install playwright``, ``apt-get install chromium``).
"""

import time

import pytest

from frozen_glyph.growth.page import REFRESH_SECONDS, write_page


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_opens_offline_and_stays_in_its_file(browser, copied, width, scheme):
    address = write_page(copied).as_uri()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    assert page.locator("svg").count() >= 3 and page.locator("svg").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground.strip("rgba()").split(",")[:3])) < 384) == (scheme == "dark")
    assert [url for url in asked if not url.startswith("data:")] == [address] and wrong == []
    context.close()


@pytest.mark.slow
def test_it_loads_itself_again_while_the_run_trains_and_not_after(browser, copied):
    page = browser.new_page()
    loads = []
    page.on("load", lambda: loads.append(time.monotonic()))
    page.goto(write_page(copied, live=True).as_uri())
    write_page(copied)  # the run has ended
    page.wait_for_timeout(2.5 * REFRESH_SECONDS * 1000)
    assert len(loads) == 2
    page.close()

"""Keeps ``growth.html`` and ``growth.png`` of a run that trains up to date, at a share of its time that is bounded."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from frozen_glyph.growth.page import REFRESH_SECONDS, write_page
from frozen_glyph.growth.plot import plot_growth

SHARE = 0.002  # of the time, at most, for each of the two
logger = logging.getLogger(__name__)


class Seldom:
    """Calls ``write`` so seldom that it takes at most ``SHARE`` of the time, and not before ``first`` seconds.

    What cannot be drawn or written does not stop what is drawn: a warning says so, once.
    """

    def __init__(self, write: Callable[[], object], first: float) -> None:
        self.write, self.due, self.first = write, time.monotonic() + first, first

    def call(self) -> None:
        begin = time.monotonic()
        if begin < self.due:
            return
        try:
            self.write()
        except (OSError, ValueError) as error:
            logger.warning("%s; the picture of this run is not renewed while it trains", error)
            self.due = float("inf")
            return
        end = time.monotonic()
        self.due = end + max(self.first, (end - begin) / SHARE)


class LivePage(TrainerCallback):
    """Renews page and picture of the run in ``folder`` when something was logged; ``provenance`` is its record so far.

    The page comes after ``REFRESH_SECONDS``; the picture, which takes longer to draw, after 20 times as long.
    """

    def __init__(self, folder: Path, provenance: Mapping[str, Any]) -> None:
        self.page = Seldom(lambda: write_page(folder, provenance, live=True), REFRESH_SECONDS)
        self.picture = Seldom(lambda: plot_growth(folder, provenance), 20 * REFRESH_SECONDS)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.page.call()
            self.picture.call()

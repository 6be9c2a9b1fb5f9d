"""Finished measurements of an evaluation as small JSON files, so that an interrupted run goes on where it stopped.

Each holds the sha256 of its content: one that was changed since is measured again, as is one that holds none.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import CheckpointError, read_json, sha256_json, write_text

logger = logging.getLogger(__name__)


class Parts:
    """A folder of finished parts; a part's key says everything that its content depends on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, name: str, key: str) -> Path:
        return self._folder / f"{name}-{key[:16]}.json"

    def get(self, name: str, depends_on: Any, measure: Callable[[], Any]) -> Any:
        """Return the part ``name`` of a measurement that depends on ``depends_on``; measure it if it is not kept."""
        key = sha256_json([name, depends_on])
        content = self.load(name, key)
        if content is None:
            logger.info("measuring %s", name)
            content = measure()
            self.save(name, key, content)
        return content

    def load(self, name: str, key: str) -> dict[str, Any] | None:
        """Return a finished part, or None. A file that is damaged or has another key counts as absent."""
        try:
            part = read_json(self._path(name, key))
        except (OSError, CheckpointError):
            return None
        if not isinstance(part, dict) or part.get("key") != key:
            return None
        content = part.get("content")
        if part.get("sha256") == sha256_json(content):
            return content
        what = "other bytes than were written" if "sha256" in part else "no sha256 of its content"
        logger.warning("%r has %s; it is measured again", str(self._path(name, key)), what)
        return None

    def save(self, name: str, key: str, content: dict[str, Any]) -> None:
        """Keep a finished part."""
        part = {"key": key, "sha256": sha256_json(content), "content": content}
        write_text(self._path(name, key), json.dumps(part, ensure_ascii=False))

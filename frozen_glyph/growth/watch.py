"""Does a stage that was just trained learn, or is it a bias in disguise? Its newest blocks are looked at before it is
written, and what is found goes into provenance and metrics.

Cost: one pass over at most 32 x 64 training tokens (see ``eval/bench/health.py``).
"""

import json
import warnings
from pathlib import Path
from typing import Literal

import torch

from frozen_glyph.checkpoint.files import write_text
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.health.checkpoint import EXAMPLES, LENGTH
from frozen_glyph.health.measure import LEAST_EXAMPLES, HealthReport, model_health
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.training.data import TokenWindows


class StageCollapsed(FrozenGlyphError):
    """A stage's newest blocks do not learn, and the recipe says ``health: stop``."""


def watch_stage(
    model: FrozenGlyphForCausalLM,
    windows: TokenWindows,
    learning_rate: float,
    verdict: Literal["stop", "warn"],
    title: str,
    kept: Path,
) -> HealthReport | None:
    """``model_health`` of the blocks that are not frozen, on windows evenly spread over the training text.

    None when the text has fewer than 3 windows. ``title`` names the stage, ``kept`` the folder of what it trained.

    Raises:
        StageCollapsed: a block is flagged and ``verdict`` is ``stop``. Under ``warn`` a ``UserWarning`` says the same.
    """
    if len(windows) < LEAST_EXAMPLES:
        return None
    chosen = torch.linspace(0, len(windows) - 1, min(EXAMPLES, len(windows))).round().int().tolist()
    batch = torch.stack([windows[index]["input_ids"][:LENGTH] for index in chosen])
    newest = range(model.config.num_frozen_layers, model.config.num_hidden_layers)
    report = model_health(model, [batch], [f"model.layers.{index}" for index in newest], learning_rate)
    del report["seconds"]  # the rest is the same whenever and wherever it is measured
    if report["collapsed"]:
        flags = [f"{block['name']}: {flag}" for block in report["blocks"] for flag in block["flags"]]
        more = f"; and {len(flags) - 3} more" if len(flags) > 3 else ""
        found = f"{title} does not learn as a stage should: {'; '.join(flags[:3])}{more}"
        if verdict == "stop":
            raise StageCollapsed(
                f"{found}. It was not written; what it trained is kept in {str(kept)!r}. Change the recipe (such as "
                "init, learning_rate, model.hidden_act, model.linear_kinds) and train in a new folder; or run again "
                "with health: warn, which writes this stage as it is without training it again"
            )
        warnings.warn(found, stacklevel=2)
    return report


def add_to_metrics(path: Path, health: HealthReport) -> None:
    """Let the last line of a phase's metrics, its last step, hold ``health`` too."""
    *lines, last = path.read_text("utf-8").splitlines()
    write_text(path, "\n".join([*lines, json.dumps(json.loads(last) | {"health": health})]) + "\n")

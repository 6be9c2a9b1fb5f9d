"""Who speaks while a text is written: what each expert counted for a token, or the stage at which it was settled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from frozen_glyph.evaluation.attribution import Attribution, best_tokens, exits
from frozen_glyph.model.generation_frozen_glyph import CACHE
from frozen_glyph.talk.speakers import Speaker


@dataclass(frozen=True)
class Listener:
    """``arguments`` go to ``generate``; then ``shares`` tells of the token that it chose last."""

    title: str
    names: list[str]
    shares: Callable[[], list[float]]
    ordered: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)

    def hear(self, text: str) -> Attribution:
        """``text``, which the last token ends, with who speaks in it."""
        return Attribution(self.title, self.names, [text], [self.shares()], self.ordered)


@contextmanager
def listening(speaker: Speaker) -> Iterator[Listener | None]:
    """A listener to one answer of ``speaker``; None where there are neither experts nor depths to tell apart."""
    model = getattr(speaker.model, "get_base_model", lambda: speaker.model)()  # below an adapter
    if speaker.experts:
        yield experts_heard(model, speaker)
    elif str(model.config.model_type).startswith("frozen_glyph") and not hasattr(model, "expert_weights"):
        with depths_heard(model) as listener:
            yield listener
    else:
        yield None


def experts_heard(model: Any, speaker: Speaker) -> Listener:
    """Asks the cache what each expert counts."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)

    def shares() -> list[float]:
        return model.expert_weights(cache)[0, -1].tolist()

    return Listener(f"weight of each expert under {speaker.rule}", speaker.experts, shares, arguments={CACHE: cache})


@contextmanager
def depths_heard(model: Any) -> Iterator[Listener]:
    """Watches what leaves the last block of each stage, from which norm and head make a prediction."""
    depths, base = exits(model.config), model.base_model
    states: dict[int, torch.Tensor] = {}

    def keep(place: int, module: Any, inputs: Any, output: torch.Tensor) -> None:
        states[place] = output[:, -1]

    hooks = [
        base.layers[blocks - 1].register_forward_hook(partial(keep, place)) for place, (_, blocks) in enumerate(depths)
    ]

    def shares() -> list[float]:
        chosen = [int(best_tokens(model.lm_head, base.norm(states[place]))) for place in range(len(depths))]
        settled = max((place + 1 for place, token in enumerate(chosen) if token != chosen[-1]), default=0)
        return [float(place == settled) for place in range(len(depths))]

    try:
        title, names = "stage at which a token is settled", [name for name, _ in depths]
        yield Listener(title, names, shares, ordered=True)
    finally:
        for hook in hooks:
            hook.remove()

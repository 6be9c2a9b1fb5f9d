"""Beyond transformers' own generation: a model drafts for itself; and how this version names the cache."""

import inspect
from collections.abc import Callable
from typing import Any

from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.utils.deprecation import deprecate_kwarg

from .drafting_frozen_glyph import BlocksDraft
from .rules_frozen_glyph import rules_with

# What transformers calls the cache of keys and values in arguments and outputs: since 5.24 another name than before.
CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"


def warn_of_old_name(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``forward`` warn of ``past_key_values`` as transformers' own models do, from the version that renamed it."""
    if CACHE == "cache":
        forward = deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")(forward)
    # generate() asks for it at every token, of models that are not transformers' own.
    forward.__dict__["__signature__"] = inspect.signature(forward)
    return forward


LEADING = -1  # as ``assistant_early_exit`` of a merged model: the expert that leads


class FrozenGlyphGenerationMixin(GenerationMixin):
    """transformers' generation, in which a part of the model can draft for the whole: the text is the same.

    ``assistant_early_exit=k`` of ``generate``: the first k blocks of a grown model; ``draft_stage=k``: those of growth
    stage k; with the last norm and head. ``draft_expert=True``: of a merged model the expert that leads when a draft
    begins; its rule must read tokens. Experts side by side end together, so merged models have no exit at a block.
    """

    def generate(
        self: Any, *args: Any, draft_stage: int | None = None, draft_expert: bool = False, **kwargs: Any
    ) -> Any:
        """transformers' ``generate``, with ``draft_stage`` and ``draft_expert``.

        Raises:
            ValueError: the model was not grown, or has no such stage; or none of its experts can draft for all.
        """
        if draft_stage is not None:
            if not hasattr(self.config, "stage_layers"):
                raise ValueError(f"draft_stage={draft_stage} of {type(self).__name__} must be left out: it has none")
            kwargs["assistant_early_exit"] = self.config.stage_layers(draft_stage)[0]
        if draft_expert:
            check_expert_drafts(self.config)
            kwargs["assistant_early_exit"] = LEADING
        return super().generate(*args, **kwargs)

    def _prepare_position_ids_for_generation(self: Any, inputs_tensor: Any, model_kwargs: dict[str, Any]) -> Any:
        """None without padding: the model counts itself, and need not ask at every token whether a document begins."""
        mask = model_kwargs.get("attention_mask")
        if mask is None or (mask.dim() == 2 and bool(mask.all())):
            return None
        return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)

    def _get_candidate_generator(self: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        early = kwargs["generation_config"].assistant_early_exit
        blocks = len(getattr(self.base_model, "layers", ()))
        if early is None:
            return GenerationMixin._get_candidate_generator(self, **kwargs)
        known = kwargs["model_kwargs"]
        inputs = known[CACHE], known.get("attention_mask"), kwargs["generation_config"]
        if early == LEADING and hasattr(self.config, "experts"):
            return self.expert_draft(*inputs)
        if not 1 <= early <= blocks:
            allowed = f"from 1 to {blocks}, its blocks" if blocks else "left out: experts end together"
            raise ValueError(f"assistant_early_exit={early} of {type(self).__name__} must be {allowed}")
        return BlocksDraft(self, early, *inputs)


def check_expert_drafts(config: Any) -> None:
    """Raise a ``ValueError`` unless an expert of the model can draft for all."""
    rules = rules_with(reads_tokens=True)
    if getattr(config, "rule", None) not in rules:
        raise ValueError(f"draft_expert=True needs a merged model whose rule is one of {', '.join(rules)}: who leads?")
    if config.active_experts is not None:
        raise ValueError(
            f"draft_expert=True checks drafts with all experts, of which active_experts={config.active_experts} leaves "
            "some out: set that to None"
        )


__all__ = ["CACHE", "FrozenGlyphGenerationMixin", "warn_of_old_name"]

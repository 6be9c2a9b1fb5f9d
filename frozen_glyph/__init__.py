"""Causal language models over a frozen embedding of glyph pictures: grow them by depth, compose experts.

Importing the package makes transformers' Auto classes know its models; the names below load on first use.
"""

import importlib
from typing import Any

from frozen_glyph import registration

__version__ = "0.1.0"

_HOME = {
    "FrozenGlyphConfig": "frozen_glyph.model.configuration_frozen_glyph",
    "FrozenGlyphMoEConfig": "frozen_glyph.model.configuration_frozen_glyph",
    "FrozenGlyphModel": "frozen_glyph.model.modeling_frozen_glyph",
    "FrozenGlyphForCausalLM": "frozen_glyph.model.modeling_frozen_glyph",
    "FrozenGlyphMoEModel": "frozen_glyph.model.modeling_frozen_glyph_moe",
    "FrozenGlyphMoEForCausalLM": "frozen_glyph.model.modeling_frozen_glyph_moe",
    "FrozenGlyphForSequenceClassification": "frozen_glyph.model.tasks_frozen_glyph",
    "FrozenGlyphForTokenClassification": "frozen_glyph.model.tasks_frozen_glyph",
    "FrozenGlyphForQuestionAnswering": "frozen_glyph.model.tasks_frozen_glyph",
    "FrozenGlyphMoEForSequenceClassification": "frozen_glyph.model.tasks_frozen_glyph",
    "FrozenGlyphMoEForTokenClassification": "frozen_glyph.model.tasks_frozen_glyph",
    "FrozenGlyphMoEForQuestionAnswering": "frozen_glyph.model.tasks_frozen_glyph",
    "GlyphSubstrate": "frozen_glyph.substrate",
    "build_tokenizer": "frozen_glyph.substrate",
    "name_tokens": "frozen_glyph.substrate.naming",
    "install_glyph_embedding": "frozen_glyph.substrate.install",
    "load_with_glyph_embedding": "frozen_glyph.substrate.install",
    "grow": "frozen_glyph.growth.expand",
    "grow_from_recipe": "frozen_glyph.growth.run",
    "load_recipe": "frozen_glyph.growth.recipe",
    "measure_health": "frozen_glyph.health.checkpoint",
    "replace_linear": "frozen_glyph.health.replace",
    "merge_experts": "frozen_glyph.merge.write",
    "extract_expert": "frozen_glyph.merge.extract",
    "reweigh_experts": "frozen_glyph.merge.reweigh",
    "tune_head": "frozen_glyph.merge.tune",
    "export_dense": "frozen_glyph.export.dense",
    "export_gguf": "frozen_glyph.export.gguf",
    "import_published": "frozen_glyph.published.importing",
    "evaluate_models": "frozen_glyph.evaluation.evaluate",
    "push": "frozen_glyph.hub",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


registration.install()

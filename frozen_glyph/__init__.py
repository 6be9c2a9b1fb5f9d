"""Causal language models over a frozen embedding of glyph pictures: grow them by depth, compose experts.

Importing the package registers the classes with transformers' Auto classes; everything else loads on first use.
"""

import importlib

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM, FrozenGlyphModel
from frozen_glyph.model.modeling_frozen_glyph_moe import FrozenGlyphMoEForCausalLM, FrozenGlyphMoEModel

__version__ = "0.1.0"

for _config, _base, _causal in (
    (FrozenGlyphConfig, FrozenGlyphModel, FrozenGlyphForCausalLM),
    (FrozenGlyphMoEConfig, FrozenGlyphMoEModel, FrozenGlyphMoEForCausalLM),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _base, exist_ok=True)
    AutoModelForCausalLM.register(_config, _causal, exist_ok=True)
    # What makes save_pretrained copy the model's files beside the weights.
    _config.register_for_auto_class()
    _base.register_for_auto_class("AutoModel")
    _causal.register_for_auto_class("AutoModelForCausalLM")

_LAZY = {
    "GlyphSubstrate": "frozen_glyph.substrate",
    "build_tokenizer": "frozen_glyph.substrate",
    "grow": "frozen_glyph.growth.expand",
    "grow_from_recipe": "frozen_glyph.growth.run",
    "merge_experts": "frozen_glyph.merge.write",
    "evaluate_models": "frozen_glyph.evaluation.evaluate",
}

__all__ = [
    "FrozenGlyphConfig",
    "FrozenGlyphForCausalLM",
    "FrozenGlyphMoEConfig",
    "FrozenGlyphMoEForCausalLM",
    "FrozenGlyphMoEModel",
    "FrozenGlyphModel",
    *_LAZY,
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

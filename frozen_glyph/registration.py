"""Make transformers' Auto classes know this package's models, without importing transformers before the user does.

Importing transformers' model code takes seconds, and ``frozen-glyph --help`` must not wait for it. So registration runs
when the Auto classes' own module is imported; at once if it already is.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO_CONFIG_MODULE = "transformers.models.auto.configuration_auto"
AUTO_MODEL_MODULE = "transformers.models.auto.modeling_auto"


def register_configs(auto: ModuleType) -> None:
    """Add the configurations to ``AutoConfig``, and have ``save_pretrained`` copy the model's files."""
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig

    for config in (FrozenGlyphConfig, FrozenGlyphMoEConfig):
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)
        config.register_for_auto_class()


def register_models(auto: ModuleType) -> None:
    """Add the models to ``AutoModel`` and ``AutoModelForCausalLM``."""
    from frozen_glyph.model import modeling_frozen_glyph as single
    from frozen_glyph.model import modeling_frozen_glyph_moe as merged

    for base, causal in (
        (single.FrozenGlyphModel, single.FrozenGlyphForCausalLM),
        (merged.FrozenGlyphMoEModel, merged.FrozenGlyphMoEForCausalLM),
    ):
        auto.AutoModel.register(base.config_class, base, exist_ok=True)
        auto.AutoModelForCausalLM.register(causal.config_class, causal, exist_ok=True)
        base.register_for_auto_class("AutoModel")
        causal.register_for_auto_class("AutoModelForCausalLM")


REGISTER = {AUTO_CONFIG_MODULE: register_configs, AUTO_MODEL_MODULE: register_models}


class RegisterAfterImport(MetaPathFinder):
    """Finds the Auto classes' modules the ordinary way and registers our classes once they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in REGISTER:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_then_register(module: ModuleType) -> None:
                run(module)
                REGISTER[fullname](module)

            spec.loader.exec_module = run_then_register  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register now what can be registered now, the rest when it is imported."""
    if not any(isinstance(finder, RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, RegisterAfterImport())
    for name, register in REGISTER.items():
        if name in sys.modules:
            register(sys.modules[name])

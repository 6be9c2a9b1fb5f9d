"""Make transformers' Auto classes know this package's models, without importing transformers before the user does.

Importing transformers' model code takes seconds, and ``frozen-glyph --help`` must not wait for it. So registration runs
when the Auto classes' own module is imported; at once if it already is.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO_CONFIG_MODULE = "transformers.models.auto.configuration_auto"
AUTO_MODEL_MODULE = "transformers.models.auto.modeling_auto"


def register_configs() -> None:
    """Add the configurations to ``AutoConfig``, and have ``save_pretrained`` copy the model's files."""
    auto = sys.modules[AUTO_CONFIG_MODULE]
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig

    for config in (FrozenGlyphConfig, FrozenGlyphMoEConfig):
        auto.AutoConfig.register(config.model_type, config, exist_ok=True)
        config.register_for_auto_class()


def register_models() -> None:
    """Add the models to the Auto classes that the configurations' ``auto_map`` names."""
    auto = sys.modules[AUTO_MODEL_MODULE]
    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig, FrozenGlyphMoEConfig

    for config in (FrozenGlyphConfig, FrozenGlyphMoEConfig):
        places = {name: place for name, place in config().auto_map.items() if name != "AutoConfig"}
        for name, place in places.items():
            module, _, model_class = place.partition(".")
            model = getattr(importlib.import_module(MODEL_ROOM + module), model_class)
            getattr(auto, name).register(config, model, exist_ok=True)
            model.register_for_auto_class(name)


# What to register once which modules have run.
REGISTER = {
    register_configs: {AUTO_CONFIG_MODULE},
    register_models: {AUTO_CONFIG_MODULE, AUTO_MODEL_MODULE},
}
# Registering imports the model room, and must meet none of its files half imported, nor those of transformers that the
# room needs and that bring the Auto classes in before they have finished themselves.
MODEL_ROOM = "frozen_glyph.model."
NEEDED = {"transformers.modeling_layers", "transformers.modeling_utils"}
AWAITED = NEEDED.union(*REGISTER.values())
finished: set[str] = set()
registered: set[Callable[[], None]] = set()


def is_awaited(name: str) -> bool:
    return name in AWAITED or name.startswith(MODEL_ROOM)


def has_run(name: str) -> None:
    """Note that module ``name`` has run, and register what had to wait for it."""
    finished.add(name)
    if all(module in finished for module in list(sys.modules) if is_awaited(module)):
        for register, needed in REGISTER.items():
            if needed <= finished and register not in registered:
                registered.add(register)
                register()


class RegisterAfterImport(MetaPathFinder):
    """Finds the awaited modules the ordinary way and says when they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not is_awaited(fullname):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_note(module: ModuleType) -> None:
                run(module)
                has_run(fullname)

            spec.loader.exec_module = run_and_note  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register now what can be registered now, the rest when it is imported."""
    if not any(isinstance(finder, RegisterAfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, RegisterAfterImport())
    for name in sorted(filter(is_awaited, sys.modules)):
        if not getattr(sys.modules[name].__spec__, "_initializing", False):
            has_run(name)

"""A model by the word that commands know it by, ready to speak; growth stage and merge rule change while it does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.companions import check_links
from frozen_glyph.checkpoint.contract import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CHAT_TEMPLATE,
    CHAT_TEMPLATES,
    CONFIG_FILE,
    PROVENANCE_FILE,
)
from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.checkpoint.loading import (
    FETCHED,
    check_loadable,
    load_config,
    load_model,
    readable,
    refuse_pickles,
    stages_there,
)
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.merge.experts import with_base
from frozen_glyph.merge.recipe import shares
from frozen_glyph.model.rules_frozen_glyph import rules_with_option


class Speaker:
    """The model that ``word`` means (``runs/ru``, ``runs/ru@2+lora``, a Hub id, an adapter's folder) and its tokenizer.

    >>> Speaker("runs/ru@4")
    Traceback (most recent call last):
    frozen_glyph.checkpoint.files.CheckpointError: model 'runs/ru' is no folder and cannot be fetched from the Hub: ...

    Args:
        device: such as cuda:1; None takes cuda where there is one, else cpu.

    Raises:
        CheckpointError: it is no checkpoint that can be read, or an adapter does not fit it.
        FrozenGlyphError: there is no such growth stage, or no such device.
    """

    def __init__(self, word: str, device: str | None = None) -> None:
        source = with_base(Source.parse(word, adapters=True))
        folder = source.fetch("model", (*FETCHED, CHAT_TEMPLATE, CHAT_TEMPLATES))
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"model {source.source!r} has no config.json; name a folder of grow, merge or so")
        check_links(folder)
        check_loadable(folder)
        self.source, self.folder, self.device = source, folder, device
        self.stages = stages_there(folder, load_config(folder))
        self.stage: int | None = None
        self.model: Any = None
        self.tokenizer: Any = None
        self.load(source.stage)

    def load(self, stage: int | None) -> None:
        """Load growth stage ``stage``, from 1; None: the deepest. ``FrozenGlyphError`` where there is no such stage."""
        if stage is not None and not 1 <= stage <= self.stages:
            known = f"1 to {self.stages}" if self.stages else "none"
            raise FrozenGlyphError(f"{self.source.name!r} has no growth stage {stage}; its stages: {known}")
        stage = stage or self.stages or None
        if self.model is not None and stage == self.stage:
            return
        options = {} if stage is None else {"growth_stage": stage}
        self.model, self.tokenizer = load_model(self.folder, self.device, **options)
        if self.source.adapter is not None:
            self.model = with_adapter(self.model, self.source.adapter)
        self.stage = stage

    @property
    def label(self) -> str:
        """What it is called: the checkpoint's name, with its stage, adapter and rule where it has them."""
        stage = "" if self.stage is None else f"@{self.stage}"
        adapter = "" if self.source.adapter is None else f"+{Path(self.source.adapter).name}"
        rule = "" if self.rule is None else f" ({self.voice})"
        return f"{self.source.name}{stage}{adapter}{rule}"

    @property
    def experts(self) -> list[str]:
        """The names of the experts of a merged model whose rule can be changed; none of another."""
        config = self.model.config
        return [] if getattr(config, "embedding_size", None) else list(getattr(config, "expert_names", None) or [])

    @property
    def rule(self) -> str | None:
        """The rule of a merged model, None of another."""
        return getattr(self.model.config, "rule", None)

    @property
    def voice(self) -> str | None:
        """Who speaks in a merged model: one expert where the others count nothing, else the rule."""
        weights = getattr(self.model.config, "logit_weights", [])
        heard = [name for name, weight in zip(self.experts, weights, strict=False) if weight]
        return f"{heard[0]} alone" if len(heard) == 1 and len(weights) > 1 else self.rule

    def set_rule(self, rule: str, weights: Sequence[float] | None = None) -> None:
        """Let the experts count by ``rule`` with ``weights`` (None: equal) from now on; nothing is loaded again.

        Raises:
            FrozenGlyphError: the model has no experts, the rule is unknown, or the weights are not for it.
        """
        if not self.experts:
            raise FrozenGlyphError(f"{self.label!r} has no experts whose rule could be changed; it is one model")
        config, wanted = self.model.config, shares(rule, weights, len(self.experts))
        config.rule, config.expert_weights = rule, wanted

    def run_at_most(self, count: int) -> None:
        """Let at most ``count`` experts run while a text is written.

        Raises:
            FrozenGlyphError: the model has not so many, or its rule needs all of them.
        """
        takes = rules_with_option("active_experts")
        if not 1 <= count <= len(self.experts) or self.rule not in takes:
            raise FrozenGlyphError(
                f"active_experts={count} of {self.label!r} needs the rule {' or '.join(takes)} and must be from 1 to "
                f"its {len(self.experts)} experts; set the rule first"
            )
        self.model.config.active_experts = count

    def hear(self, expert: str) -> None:
        """Let one expert of a merged model speak alone; ``FrozenGlyphError`` where there is none of that name."""
        if expert not in self.experts:
            known = ", ".join(self.experts) or "none"
            raise FrozenGlyphError(f"{self.label!r} has no expert {expert!r}; its experts: {known}")
        self.set_rule("weighted", [float(name == expert) for name in self.experts])

    @property
    def positions(self) -> int | None:
        """How many tokens it reads at most; None where its configuration does not say."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def chats(self) -> bool:
        """Whether it was made to answer messages: it has a chat template, and no run of this package wrote it.

        A learnt vocabulary brings a template too, but ``grow`` trains on running text, where no mark of a chat stands.
        """
        return self.tokenizer.chat_template is not None and not (self.folder / PROVENANCE_FILE).exists()


def with_adapter(model: Any, word: str) -> Any:
    """``model`` with the PEFT adapter of a folder or Hub id on it; ``CheckpointError`` where it does not fit."""
    from peft import PeftModel

    folder = Source(word).fetch("adapter", (ADAPTER_CONFIG, ADAPTER_WEIGHTS))
    refuse_pickles(folder)
    with readable("adapter", word):
        return PeftModel.from_pretrained(model, folder).eval()

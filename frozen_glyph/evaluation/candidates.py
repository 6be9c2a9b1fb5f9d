"""What is to be scored: checkpoints by folder or Hub id, at a growth stage, a merged one under the rules asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.companions import check_links
from frozen_glyph.checkpoint.contract import CONFIG_FILE, PROVENANCE_FILE
from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.checkpoint.loading import FETCHED, check_loadable, load_config, load_model, stages_there
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.checkpoint.reader import checkpoint_sha256
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.evaluation.report.labels import numbered, shortest_labels
from frozen_glyph.model.rules_frozen_glyph import DEFAULT_RULE, RULES


@dataclass(frozen=True)
class Candidate:
    """One model in the report: ``name`` as it was given, ``stages`` to measure, the last being the model itself.

    ``id`` tells it from all others of the report, ``label`` is what it is called there.
    """

    id: str
    label: str
    name: str
    folder: Path
    rule: str | None
    stages: tuple[int | None, ...]
    context_length: int | None
    substrate_fingerprint: str | None
    weights_sha256: str
    flops: tuple[int, ...] = ()  # of all training up to each stage of a run, where its folder tells

    def load(self, stage: int | None, device: str | None = None) -> tuple[Any, Any]:
        """The model at a growth stage, and its tokenizer."""
        options = {"rule": self.rule, "growth_stage": stage}
        return load_model(self.folder, device, **{name: value for name, value in options.items() if value is not None})

    def identity(self, stage: int | None) -> list[Any]:
        """What tells the model from every other."""
        return [self.weights_sha256, self.rule, stage]


def model_labels(models: Sequence[Source]) -> list[str]:
    """A name for each model: the last part of its path or Hub id, or more of them where that is not unique."""
    paths = []
    for model in models:
        parts = model.source.split("/") if model.folder is None else [*model.folder.resolve().parts[1:]]
        stage = "" if model.stage is None else f"@{model.stage}"
        paths.append([*parts[:-1], f"{(parts or ['/'])[-1]}{stage}"])
    return shortest_labels(paths)


def _rules_of(label: str, config: Any, rules: Sequence[str]) -> list[str | None]:
    """The rules to score a model under: none of a single expert, else those asked for or its own."""
    own = getattr(config, "rule", None)
    if own is None:
        return [None]
    for rule in rules:
        if rule not in RULES:
            raise FrozenGlyphError(f"rule {rule!r} of {label} is unknown; rules are {', '.join(RULES)}."
                                   f"{nearest(rule, RULES)}")  # fmt: skip
    kept: list[str | None] = list(dict.fromkeys(rules)) or [own]
    weights = getattr(config, "expert_weights", None) or [1.0]
    if len(set(weights)) == 1 and DEFAULT_RULE in kept and "weighted" in kept:
        kept.remove("weighted")  # at equal weights it is the mean
    return kept


def flops_of(folder: Path) -> tuple[int, ...]:
    """FLOPs of all training up to each stage of the run in ``folder``; nothing where it does not tell."""
    record = read_provenance(folder) if (folder / PROVENANCE_FILE).is_file() else {}
    found = [stage.get("flops") for stage in record.get("stages", [])]
    if not all(isinstance(one, int) for one in found):
        return ()
    return tuple(accumulate(one for one in found if one is not None))


def _stages_of(label: str, folder: Path, config: Any, stage: int | None, every_stage: bool) -> tuple[int | None, ...]:
    """The growth stages to measure, the model's own last."""
    deepest = stages_there(folder, config)
    if stage is not None and stage > deepest:
        raise FrozenGlyphError(f"model {label!r}: growth stage {stage} is not there; it has {deepest or 'none'}")
    last = stage or deepest
    if every_stage and last > 1:
        return tuple(range(1, last + 1))
    return (stage,)


def find_candidates(models: Sequence[str], rules: Sequence[str] = (), every_stage: bool = True) -> list[Candidate]:
    """Return what to score, in the order given; a merged model comes once for every rule.

    Raises:
        FrozenGlyphError: no model, one given twice, an unknown rule or stage.
        CheckpointError: a model is neither a checkpoint folder nor a repository that can be read.
    """
    import frozen_glyph  # noqa: F401  registers the Auto classes

    if not models:
        raise FrozenGlyphError("no model given; name at least one checkpoint folder or Hub id")
    candidates = []
    sources = [Source.parse(model) for model in models]
    if len({(source.folder and source.folder.resolve(), source.name, source.stage) for source in sources}) < len(
        sources
    ):
        raise FrozenGlyphError(f"a model is given twice: {', '.join(models)}")
    for model, source, label in zip(models, sources, model_labels(sources), strict=True):
        folder = source.fetch("model", FETCHED).resolve()
        if not (folder / CONFIG_FILE).is_file():
            raise FrozenGlyphError(
                f"model {source.source!r} has no config.json; name a folder written by save_pretrained, grow or merge"
            )
        check_links(folder)
        check_loadable(folder)
        config = load_config(folder)
        context_length = getattr(config, "max_position_embeddings", None)
        if context_length is not None and context_length < 2:
            raise FrozenGlyphError(
                f"model {source.source!r} reads {context_length} tokens (max_position_embeddings); a model that can be "
                "measured reads at least 2: one token to read, one to score"
            )
        candidate = Candidate(
            id="",
            label=label,
            name=model,
            folder=folder,
            rule=None,
            stages=_stages_of(label, folder, config, source.stage, every_stage),
            context_length=context_length,
            substrate_fingerprint=getattr(config, "substrate_fingerprint", None),
            weights_sha256=checkpoint_sha256(folder),
            flops=flops_of(folder),
        )
        for rule in _rules_of(label, config, rules):
            labelled = label if rule is None else f"{label} ({rule})"
            candidates.append(replace(candidate, label=labelled, rule=rule))
    labels = numbered([candidate.label for candidate in candidates])
    ids = numbered([sha256_json(candidate.identity(candidate.stages[-1]))[:16] for candidate in candidates])
    return [replace(own, id=key, label=label) for own, key, label in zip(candidates, ids, labels, strict=True)]

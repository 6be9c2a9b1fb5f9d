"""From a recipe to what will be written: experts in order, their weights, the shared trunk, configuration and shards.

Shards of a merged checkpoint: ``substrate``, ``trunk`` (blocks that all experts share, if any), ``expert-{j}`` (its own
blocks, final norm and adapters) and ``head`` (all heads side by side).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from frozen_glyph.checkpoint.config import SUBSTRATE_FIELDS, SUBSTRATE_GEOMETRY, identity
from frozen_glyph.checkpoint.contract import (
    HEAD_SHARD,
    SUBSTRATE_SHARD,
    TRUNK_SHARD,
    expert_shard,
)
from frozen_glyph.checkpoint.records import ExpertFacts
from frozen_glyph.checkpoint.streaming import Joined, Window
from frozen_glyph.checkpoint.tensors import (
    EXPERTS_PREFIX,
    HEAD_BIAS,
    HEAD_WEIGHT,
    SUBSTRATE_PREFIX,
    TRUNK_PREFIX,
    merged_prefixes,
    rename,
)
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.merge.companions import choose_companions, differing
from frozen_glyph.merge.experts import Expert, ExpertsDoNotMatch, check_shapes, in_dtype, open_experts
from frozen_glyph.merge.recipe import MergeRecipe, shares
from frozen_glyph.model.rules_frozen_glyph import OPTIONS, RULES
from frozen_glyph.model.weights_frozen_glyph import check_name
from frozen_glyph.recipes.errors import require


class MergeReport(TypedDict):
    """What a merge shares and costs; bytes are of tensors, ``saved_bytes`` what sharing spares."""

    rule: str
    costs: str
    experts: list[ExpertFacts]
    parameters: int
    shared_parameters: int
    bytes: int
    shared_bytes: dict[str, int]
    saved_bytes: int
    bytes_to_write: int
    companions: str
    differing: dict[str, list[str]]


@dataclass(frozen=True, eq=False)
class MergePlan:
    """All that a merge will do. ``shared`` counts the leading blocks that all experts share."""

    experts: list[Expert]
    rule: str
    weights: list[float]
    shared: int
    options: dict[str, Any]  # of the rules
    dtype: str | None = None  # of all numbers, where it was asked
    asked: str | None = None  # the expert whose companions were asked for

    @functools.cached_property
    def shards(self) -> dict[str, dict[str, Joined]]:
        """The tensors of each shard, by the names of the merged model."""
        parts: dict[str, list[Window]] = {}
        for index, expert in enumerate(self.experts):
            prefixes = merged_prefixes(index, len(expert.blocks), self.shared)
            for name, window in expert.all_tensors.items():
                parts.setdefault(rename(name, prefixes), []).append(window)
        found: dict[str, dict[str, Joined]] = {}
        for name, windows in parts.items():
            found.setdefault(merged_shard(name), {})[name] = join(name, windows)
        return found

    @property
    def companions(self) -> Expert:
        """The expert whose chat template and settings go along."""
        return choose_companions(self.experts, self.asked)

    @property
    def bytes_to_write(self) -> int:
        sizes = {shard: sum(tensor.nbytes for tensor in tensors.values()) for shard, tensors in self.shards.items()}
        return sum(nbytes for shard, nbytes in sizes.items() if shard not in self.experts[0].checkpoint.linkable)

    def config(self) -> dict[str, Any]:
        """The merged model's ``config.json``."""
        first = self.experts[0].checkpoint.config
        own = [len(expert.blocks) - self.shared for expert in self.experts]
        return {
            **identity(merged=True),
            **{name: first[name] for name in SUBSTRATE_FIELDS},
            **{name: first[name] for name in (*SUBSTRATE_GEOMETRY, "dtype") if name in first},
            **({"dtype": self.dtype} if self.dtype else {}),
            "num_attention_heads": self.experts[0].fields["num_attention_heads"],
            "max_position_embeddings": min(expert.fields["max_position_embeddings"] for expert in self.experts),
            "num_shared_layers": self.shared,
            "experts": [
                {
                    **expert.fields,
                    "num_hidden_layers": layers,
                    **({"lora": expert.adapter.lora} if expert.adapter else {}),
                }
                for expert, layers in zip(self.experts, own, strict=True)
            ],
            "expert_names": [expert.name for expert in self.experts],
            "expert_weights": self.weights,
            "rule": self.rule,
            **self.options,
        }

    def report(self) -> MergeReport:
        """What is merged, what is shared and what it costs."""
        sizes = {shard: sum(tensor.nbytes for tensor in tensors.values()) for shard, tensors in self.shards.items()}
        parameters = {
            shard: sum(math.prod(tensor.shape) for tensor in tensors.values())
            for shard, tensors in self.shards.items()
            if shard != SUBSTRATE_SHARD  # frozen bits are no parameters
        }
        shared = {"substrate": sizes[SUBSTRATE_SHARD], "trunk": sizes.get(TRUNK_SHARD, 0)}
        return {
            "rule": self.rule,
            "costs": RULES[self.rule].costs,
            "experts": [
                {
                    "name": expert.name,
                    "layers": len(expert.blocks),
                    "shared_layers": self.shared,
                    "adapter": expert.adapter.lora if expert.adapter else None,
                    "weight": weight,
                    "parameters": parameters[expert_shard(index)] + parameters[HEAD_SHARD] // len(self.experts),
                    "origin": {key: value for key, value in expert.checkpoint.parent.items() if key != "parents"},
                }
                for index, (expert, weight) in enumerate(zip(self.experts, self.weights, strict=True))
            ],
            "parameters": sum(parameters.values()),
            "shared_parameters": parameters.get(TRUNK_SHARD, 0),
            "bytes": sum(sizes.values()),
            "shared_bytes": shared,
            "saved_bytes": sum(shared.values()) * (len(self.experts) - 1),
            "bytes_to_write": self.bytes_to_write,
            "companions": self.companions.name,
            "differing": differing(self.experts, self.companions),
        }


def merged_shard(name: str) -> str:
    """The shard that holds a tensor of a merged model."""
    if name.startswith(EXPERTS_PREFIX):
        return expert_shard(int(name.removeprefix(EXPERTS_PREFIX).partition(".")[0]))
    if name.startswith(SUBSTRATE_PREFIX):
        return SUBSTRATE_SHARD
    return TRUNK_SHARD if name.startswith(TRUNK_PREFIX) else HEAD_SHARD


def join(name: str, parts: Sequence[Window]) -> Joined:
    """A tensor of the merged model from those of the experts: heads side by side, of what they share the first."""
    if name == HEAD_WEIGHT:
        return Joined.side_by_side(tuple(parts))
    return Joined.stacked(tuple(parts)) if name == HEAD_BIAS else Joined.alone(parts[0])


def plan_merge(recipe: MergeRecipe, headers_only: bool = False) -> MergePlan:
    """Open the experts of ``recipe`` and check that they dock; ``headers_only`` fetches no shard from the Hub.

    Raises:
        ExpertsDoNotMatch: they do not share substrate, tokenizer, vocabulary, special ids or the type of their heads;
            a merged model among them has another rule; an adapter stands on blocks that not all share.
        FrozenGlyphError: ``companions`` names none of them.
        CheckpointError: a file of an expert is missing or damaged.
    """
    sources = recipe.sources()
    given = [source.folder for source in sources if source.folder is not None]
    groups = [open_experts(source, headers_only, given) for source in sources]
    if recipe.dtype:
        groups = [[in_dtype(expert, recipe.dtype) for expert in group] for group in groups]
    experts = list(itertools.chain(*groups))
    check_match(experts)
    for expert in experts:
        check_shapes(expert)
    for group in groups:
        check_rule(group, recipe.rule)
    outer = shares(recipe.rule, recipe.weights, len(groups))
    weights = [share * expert.weight for share, group in zip(outer, groups, strict=True) for expert in group]
    rule = RULES[recipe.rule]
    options = dict(OPTIONS)
    for name in OPTIONS:
        of_experts = [expert.checkpoint.config.get(name) for expert in experts] if name in rule.options else []
        said = (value for value in (getattr(recipe, name), *of_experts) if value is not None)
        options[name] = next(said, OPTIONS[name])
    if options["active_experts"] is not None:
        allowed = f"from 1 to {len(experts)}, the experts"
        require(options["active_experts"] <= len(experts), "active_experts", options["active_experts"], allowed)
    named = name_experts(groups, recipe.names)
    choose_companions(named, recipe.companions)
    return MergePlan(
        named,
        rule.name,
        rule.weights_of(weights),
        count_shared(experts),
        options,
        recipe.dtype,
        recipe.companions,
    )


def check_match(experts: list[Expert]) -> None:
    """Raise ``ExpertsDoNotMatch``, naming both sides, where two experts differ in what they must share."""
    first = experts[0]
    for other in experts[1:]:
        sides = [
            (name, first.checkpoint.config.get(name), other.checkpoint.config.get(name)) for name in SUBSTRATE_FIELDS
        ]
        sides += [
            (f"type of {name}", first.tensors[name].dtype, other.tensors[name].dtype)
            for name in (HEAD_WEIGHT, HEAD_BIAS)
            if name in first.tensors and name in other.tensors
        ]
        for name, one, two in sides:
            if one != two:
                convert = "; or convert them: --dtype bfloat16, dtype in a merge.yaml" if "type of" in name else ""
                raise ExpertsDoNotMatch(
                    f"experts differ in {name}: {first.checkpoint.label!r} has {one!r}, {other.checkpoint.label!r} has "
                    f"{two!r}; experts must be grown on one substrate and tokenizer, and stored in one type{convert}"
                )


def count_shared(experts: list[Expert]) -> int:
    """How many leading blocks are the same in all experts, and can be stored and run once.

    Raises:
        ExpertsDoNotMatch: an adapter stands on blocks that not all experts share.
    """
    shape = [{**expert.fields, "num_hidden_layers": None} for expert in experts]
    shared = 0
    if all(other == shape[0] for other in shape):
        for blocks in zip(*(expert.blocks for expert in experts), strict=False):
            if len(set(blocks)) > 1:
                break
            shared += 1
    for expert in experts:
        if expert.adapter and len(expert.blocks) != shared:
            raise ExpertsDoNotMatch(
                f"adapter {expert.name!r} stands on {len(expert.blocks)} blocks of {expert.checkpoint.label!r}, of "
                f"which the experts share {shared}; merge it with experts on that trunk, or into its base first "
                "(peft's merge_and_unload)"
            )
    return shared


def check_rule(group: list[Expert], rule: str) -> None:
    """Raise ``ExpertsDoNotMatch`` unless the experts of one merged checkpoint mean the same when merged by ``rule``.

    Weights multiply; ``weighted`` takes a mean as the equal weights it is. Under a rule without weights each expert
    counts once, however they were merged before.
    """
    checkpoint = group[0].checkpoint
    if not checkpoint.merged:
        return
    before = checkpoint.config["rule"]
    if before not in RULES or not RULES[rule].covers(RULES[before]):
        raise ExpertsDoNotMatch(
            f"expert {checkpoint.label!r} is merged by rule {before!r}, this merge by {rule!r}, and one model has one "
            f"rule; choose rule={before!r}, or change it first: frozen-glyph reweigh {checkpoint.label} --rule {rule}"
        )
    if group[0].tuned and RULES[rule].weights != "any":
        raise ExpertsDoNotMatch(
            f"the head of expert {checkpoint.label!r} was tuned for its experts together, whose own logits mean "
            "nothing; choose rule='weighted', or merge what it was tuned from"
        )


def name_experts(groups: list[list[Expert]], names: list[str] | None) -> list[Expert]:
    """All experts under different names: as given, of a merged model ``given/own``; repeated ones are numbered.

    Raises:
        FrozenGlyphError: a name could not be that of a folder.
    """
    found: dict[str, Expert] = {}
    for index, group in enumerate(groups):
        for expert in group:
            name = expert.name
            if names:
                name = f"{names[index]}/{name}" if expert.checkpoint.merged else names[index]
            try:
                check_name(name)  # people make folders of them
            except ValueError:
                raise FrozenGlyphError(
                    f"{name!r} of {expert.checkpoint.label!r} cannot be the name of an expert: no control characters, "
                    "no backslash, no path that leads out of a folder; give others with --names"
                ) from None
            unique = next(
                n for n in itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2))) if n not in found
            )
            found[unique] = expert
    return [dataclasses.replace(expert, name=name) for name, expert in found.items()]

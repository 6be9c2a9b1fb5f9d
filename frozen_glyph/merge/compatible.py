"""Whether experts may dock: same substrate, tokenizer, vocabulary and special ids; and which blocks they share."""

from typing import TYPE_CHECKING, Any

from frozen_glyph.checkpoint.contract import EXPERT_FIELDS, SUBSTRATE_FIELDS
from frozen_glyph.errors import FrozenGlyphError

if TYPE_CHECKING:
    from frozen_glyph.merge.experts import Expert


class ExpertsDoNotMatch(FrozenGlyphError):
    """Two experts differ in what they must share."""


def check_expert_config(label: str, config: Any) -> None:
    """Raise ``ExpertsDoNotMatch`` unless a ``config.json`` is of a model, grown or merged, on frozen glyph bits."""
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in ("frozen_glyph", "frozen_glyph_moe"):
        raise ExpertsDoNotMatch(
            f"expert {label!r} has model_type {kind!r}; only 'frozen_glyph' and 'frozen_glyph_moe' can be merged"
        )
    if config.get("linear_kinds"):
        raise ExpertsDoNotMatch(
            f"expert {label!r} has layers of other kinds (linear_kinds={config['linear_kinds']}); only plain "
            "Linears can be merged"
        )
    if config.get("substrate_dense"):
        raise ExpertsDoNotMatch(f"expert {label!r} is a dense export, which holds no glyph bits; merge its parent")
    if config.get("substrate_trainable") or not config.get("substrate_fingerprint"):
        raise ExpertsDoNotMatch(
            f"expert {label!r} has no frozen substrate with a fingerprint; grow it on a substrate folder"
        )
    fields = ("expert_names", "rule", "expert_weights") if kind == "frozen_glyph_moe" else EXPERT_FIELDS
    if missing := [name for name in fields if name not in config]:
        raise ExpertsDoNotMatch(f"the config.json of expert {label!r} has no {missing[0]!r}; write the folder again")


def check_match(experts: "list[Expert]") -> None:
    """Raise ``ExpertsDoNotMatch``, naming both sides, where two experts differ in what they must share."""
    first = experts[0]
    for other in experts[1:]:
        sides = [
            (name, first.checkpoint.config.get(name), other.checkpoint.config.get(name)) for name in SUBSTRATE_FIELDS
        ]
        sides += [
            (f"type of {name}", first.tensors[name].dtype, other.tensors[name].dtype)
            for name in ("lm_head.weight", "lm_head.bias")
        ]
        for name, one, two in sides:
            if one != two:
                raise ExpertsDoNotMatch(
                    f"experts differ in {name}: {first.checkpoint.label!r} has {one!r}, {other.checkpoint.label!r} has "
                    f"{two!r}; experts must be grown on one substrate and tokenizer, and stored in one type"
                )


def count_shared(experts: "list[Expert]") -> int:
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

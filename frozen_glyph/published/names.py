r"""The names of published tensors -> ours, with what a user adds to them.

Only a repository's own code, which is not run, says what its tensors are called and whether rotation pairs elements
(k, k + K/2) or (2k, 2k + 1). So names are looked up in ``NAMES``, a tensor that has none is an error, and the pairing
is a choice: import both ways and keep the one with the lower loss on any text. A keys file may say all of it:

    names: {'layers\.(\d+)\.query\.weight': 'model.layers.\1.self_attn.q_proj.weight', 'experts\.1\..*': null}
    prefix: experts.0.
    config: {num_attention_heads: 32, layer_norm_eps: 1.0e-5}
    rotary: half
    repeat: each
"""

import dataclasses
import re
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import torch

from frozen_glyph.checkpoint.files import CheckpointError
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.recipes.errors import require
from frozen_glyph.recipes.fields import Text, parse, recipe
from frozen_glyph.recipes.files import read_recipe
from frozen_glyph.recipes.shipped import find_recipe

TABLE = "table"
CONFIG_FIELDS = [entry.name for entry in dataclasses.fields(FrozenGlyphConfig)]
BLOCK = r"(?:(?:transformer\.)?h|(?:transformer_)?layers|(?:transformer_)?blocks)\.(\d+)\."
ATTENTION = BLOCK + r"(?:self_attention|self_attn|attention|attn)\."
MLP = BLOCK + r"(?:mlp|ffn|feed_forward)\.(?:net\.)?"

# Regular expression of a published name -> ours, None for what is left out. Spellings in use for such decoders.
NAMES: dict[str, str | None] = {
    r"(?:token_)?embeddings?\.weight|wte\.weight|embed_tokens\.weight": TABLE,
    BLOCK + r"(?:ln_?1|norm_?1|layer_?norm_?1|input_layernorm)\.(\w+)": r"model.layers.\1.input_layernorm.\2",
    ATTENTION + r"([qkvo])_proj\.(\w+)": r"model.layers.\1.self_attn.\2_proj.\3",
    ATTENTION + r"w([qkvo])\.(\w+)": r"model.layers.\1.self_attn.\2_proj.\3",
    ATTENTION + r"(?:out_proj|c_proj|proj)\.(\w+)": r"model.layers.\1.self_attn.o_proj.\2",
    ATTENTION + r"(?:qkv\.|qkv_proj\.|c_attn\.|in_proj_)(\w+)": r"model.layers.\1.self_attn.qkv.\2",
    BLOCK + r"(?:ln_?2|norm_?2|layer_?norm_?2|post_attention_layernorm)\.(\w+)": (
        r"model.layers.\1.post_attention_layernorm.\2"
    ),
    MLP + r"(?:0|fc_?1|fc_in|c_fc|linear_?1)\.(\w+)": r"model.layers.\1.mlp.fc_in.\2",
    MLP + r"(?:2|fc_?2|fc_out|c_proj|linear_?2)\.(\w+)": r"model.layers.\1.mlp.fc_out.\2",
    r"(?:transformer\.)?(?:ln_?f|norm(?:_?f)?|final_(?:layer_?)?norm|layer_?norm)\.(\w+)": r"model.norm.\1",
    r"(?:lm_head|head|output)\.(\w+)": r"lm_head.\1",
    r".*(?:inv_freq|causal_mask|tril)": None,
}


@recipe()
class PublishedKeys:
    """What a repository does not say."""

    names: dict[Any, Any] = field(default_factory=dict)
    """Patterns of published names -> ours, or null; they go before ``NAMES``."""
    prefix: Text = ""
    """Left out of a name; ``module.`` and ``model.`` always are."""
    config: dict[Any, Any] = field(default_factory=dict)
    """``FrozenGlyphConfig`` fields."""
    rotary: Literal["half", "interleaved"] = "half"
    """Which elements of a head rotate together: (k, k + K/2) or (2k, 2k + 1)."""
    repeat: Literal["each", "all"] = "each"
    """A table narrower than the model is repeated number by number or as a whole."""

    def __post_init__(self) -> None:
        for pattern, ours in self.names.items():
            try:
                empty = re.compile(f"{pattern}|").fullmatch("")  # the empty alternative: a match without any group
                assert empty is not None
                empty.expand("" if ours is None else ours)
            except (re.error, TypeError) as error:
                require(False, f"names.{pattern}", ours, f"our name for a regular expression, or null ({error})")
        for name in self.config:
            require(name in CONFIG_FIELDS, "config", name, f"one of {', '.join(CONFIG_FIELDS)}")


def load_keys(path: Path | None, rotary: str | None = None) -> PublishedKeys:
    """Read a keys file; ``rotary``, where given, goes before it."""
    content = read_recipe(find_recipe(path, "keys")) if path is not None else {}
    return parse(PublishedKeys, content | ({} if rotary is None else {"rotary": rotary}))


def rename(published: dict[str, torch.Tensor], keys: PublishedKeys) -> dict[str, torch.Tensor]:
    """The tensors under our names, in float32; queries, keys and values in one tensor are taken apart.

    Raises:
        CheckpointError: a tensor has no name, which lists all of them, or two have the same.
    """
    names = keys.names | {name: ours for name, ours in NAMES.items() if name not in keys.names}
    found: dict[str, torch.Tensor] = {}
    unknown, twice = [], []
    for name, tensor in published.items():
        bare = re.sub(r"^(?:(?:module|_orig_mod|model)\.)+", "", name).removeprefix(keys.prefix)
        matches = ((re.fullmatch(pattern, text), ours) for pattern, ours in names.items() for text in (name, bare))
        match, ours = next(((match, ours) for match, ours in matches if match), (None, None))
        if match is None:
            unknown.append(f"{name} {list(tensor.shape)}")
        elif ours is not None:
            target = match.expand(ours)
            parts = {target: tensor}
            if ".qkv." in target:
                parts = {
                    target.replace("qkv", f"{part}_proj"): piece
                    for part, piece in zip("qkv", tensor.chunk(3), strict=True)
                }
            twice += [f"{name} -> {target}" for target in parts if target in found]
            found |= {target: part.float() for target, part in parts.items()}
    if unknown or twice:
        what = f"no known name: {', '.join(unknown)}" if unknown else f"two tensors of one name: {', '.join(twice)}"
        raise CheckpointError(f"{what}; say in a keys file what they are (names: published name -> ours, or null)")
    return found

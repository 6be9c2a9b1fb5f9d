"""How many numbers a grown model holds, block by block: by arithmetic where its fields are plain, else of the model.

Plain fields are sizes and switches, as in the files of ``hub_configs``; what they make is known without torch, whose
import alone takes longer than all else that a dry run does. Tests hold the arithmetic to the model.

Shapes: D hidden size, F intermediate size, V vocabulary, S substrate bits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from frozen_glyph.checkpoint.config import DEFAULTS, GROWN
from frozen_glyph.model.limits_frozen_glyph import check_heads, check_limits, check_substrate


class LinearShape(NamedTuple):
    """A Linear of a block: the last part of its name, and its sizes."""

    name: str
    inputs: int
    outputs: int


class BlockShape(NamedTuple):
    """A block: all that it holds, and its Linears."""

    parameters: int
    linears: tuple[LinearShape, ...]

    @property
    def weights(self) -> int:
        """Of its Linears, without biases."""
        return sum(linear.inputs * linear.outputs for linear in self.linears)


@dataclass(frozen=True)
class ModelShape:
    """A model of ``blocks``, the first ``frozen_blocks`` of which never train.

    ``table``: parameters of a table in the substrate's place; ``buffer_bytes``: of all that is no parameter.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    substrate_bits: int
    table: int
    buffer_bytes: int
    blocks: tuple[BlockShape, ...]
    frozen_blocks: int

    @property
    def head_weights(self) -> int:
        return self.vocab_size * self.hidden_size

    @property
    def parts(self) -> dict[str, int]:
        """Parameters beside the blocks, by their names in ``StageRecipe.train``."""
        return {"norm": 2 * self.hidden_size, "head": self.head_weights + self.vocab_size, "embeddings": self.table}

    @property
    def parameters(self) -> int:
        return sum(block.parameters for block in self.blocks) + sum(self.parts.values())

    def trained(self, train: Collection[str], adapters: int = 0) -> "Trained":
        """What trains where ``train`` does: blocks (those not frozen), norm, head, embeddings."""
        blocks = range(self.frozen_blocks, len(self.blocks)) if "blocks" in train else range(0)
        return Trained([part for part in train if part != "blocks"], blocks, adapters)


class Trained(NamedTuple):
    """What trains at a time: parts beside the blocks, numbers of blocks, and weights of adapters."""

    parts: Collection[str]
    blocks: Sequence[int]
    adapters: int

    def parameters(self, shape: ModelShape) -> int:
        blocks = sum(shape.blocks[index].parameters for index in self.blocks)
        return self.adapters + blocks + sum(shape.parts[part] for part in self.parts)


def plain_fields(fields: dict[str, Any]) -> SimpleNamespace | None:
    """``fields`` of a ``FrozenGlyphConfig``, completed, where all are plain and possible; None where it has to say."""
    plain = all(
        value == GROWN if name == "model_type" else name in DEFAULTS and type(value) is type(DEFAULTS[name])
        for name, value in fields.items()
    )
    if not plain:
        return None
    config = SimpleNamespace(**DEFAULTS | fields)
    try:
        check_limits(config)
        check_heads(config)
        check_substrate(config)
    except ValueError:
        return None
    if "intermediate_size" not in fields:
        config.intermediate_size = 4 * config.hidden_size
    return config


def shape_of_fields(fields: dict[str, Any], blocks: int, frozen: int) -> ModelShape:
    """The shape of the model of ``fields`` with ``blocks`` blocks.

    Raises:
        ValueError: there is no such model.
    """
    config = plain_fields(fields | {"num_hidden_layers": blocks})
    if config is None:
        return shape_of_model(meta_model(fields, blocks, frozen))
    width, inner, bits = config.hidden_size, config.intermediate_size, config.substrate_bits
    projected = config.substrate_rotated or bits > width
    narrow = min(bits, width)
    packed = config.vocab_size * (bits // 8) + bits + projected * bits * narrow + config.substrate_whitened * 4 * narrow
    linears = (
        *(LinearShape(name, width, width) for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
        LinearShape("fc_in", width, inner),
        LinearShape("fc_out", inner, width),
    )
    block = BlockShape(4 * width * width + 2 * width * inner + inner + width + 2 * 2 * width, linears)
    return ModelShape(
        vocab_size=config.vocab_size,
        hidden_size=width,
        intermediate_size=inner,
        substrate_bits=bits,
        table=config.vocab_size * width if config.substrate_trainable else 0,
        buffer_bytes=4 * width // config.num_attention_heads + (0 if config.substrate_trainable else packed),
        blocks=(block,) * blocks,
        frozen_blocks=frozen,
    )


def meta_model(fields: dict[str, Any], blocks: int, frozen: int) -> Any:
    """The model with ``blocks`` blocks, without weights."""
    import torch

    from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
    from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM

    shape = fields | {"num_hidden_layers": blocks, "num_frozen_layers": frozen, "ladder": None}
    with torch.device("meta"):
        return FrozenGlyphForCausalLM(FrozenGlyphConfig(**shape))


def shape_of_model(model: Any) -> ModelShape:
    """The shape of a ``FrozenGlyphForCausalLM``, whatever its fields."""
    from torch.nn import Linear

    config = model.config
    blocks = tuple(
        BlockShape(
            sum(parameter.numel() for parameter in block.parameters()),
            tuple(
                LinearShape(name.rpartition(".")[2], part.in_features, part.out_features)
                for name, part in block.named_modules()
                if isinstance(part, Linear)
            ),
        )
        for block in model.model.layers
    )
    return ModelShape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        substrate_bits=config.substrate_bits,
        table=sum(parameter.numel() for parameter in model.substrate.parameters()),
        buffer_bytes=sum(buffer.nbytes for buffer in model.buffers()),
        blocks=blocks,
        frozen_blocks=config.num_frozen_layers,
    )

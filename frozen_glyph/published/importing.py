"""A published ``Bochkov/*`` checkpoint -> our classes: the same logits, without running its code.

frozen-glyph import-published Bochkov/best_bvv_ru -o runs/best-bvv-ru

Its layout: ``config.json`` with ``n_layer``, ``n_head``, ``d_model``, ``block_size`` and ``pad_id``; rotary angles of
base 10000; a token table whose numbers are repeated to ``d_model`` where it is narrower. Names: see ``names.py``.

A table of two values (0 and 1) becomes packed bits. What enters the blocks is then a times the published vector plus a
constant, a = 2 / ((high - low) * sqrt(D)). Blocks and head read the stream of residuals through norms, which see
neither; so what blocks add to it is multiplied by a, the norms' eps by a squared, and the logits stay. At D = 1024, a
is 1/16, and no weight is rounded. Any other table stays numbers: glyph bits cannot be read out of their principal
components.

Shapes: V vocabulary, S numbers of a token in the table, D hidden size, H heads, K head size.
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from frozen_glyph.checkpoint.card import model_card
from frozen_glyph.checkpoint.companions import check_links
from frozen_glyph.checkpoint.contract import CARD_FILE, CONFIG_FILE, DEFAULT_INDEX, WEIGHTS
from frozen_glyph.checkpoint.files import (
    CheckpointError,
    inside,
    read_json,
    read_tensors,
    read_weight_map,
    sha256_file,
    write_text,
)
from frozen_glyph.checkpoint.folders import new_folder
from frozen_glyph.checkpoint.journal import note_below
from frozen_glyph.checkpoint.loading import CONVERT, FETCHED, load_tokenizer, refuse_pickles
from frozen_glyph.checkpoint.places import check_vacant, one_writer
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stages import write_stage
from frozen_glyph.checkpoint.tensors import BLOCKS_PREFIX, HEAD_WEIGHT, SUBSTRATE_PREFIX
from frozen_glyph.model.configuration_frozen_glyph import FrozenGlyphConfig
from frozen_glyph.model.embedding_frozen_glyph import CENTER_SCALE
from frozen_glyph.model.modeling_frozen_glyph import FrozenGlyphForCausalLM
from frozen_glyph.published.names import TABLE, PublishedKeys, rename
from frozen_glyph.substrate import GlyphSubstrate
from frozen_glyph.substrate.vocabulary import tokenizer_sha256

TABLE_FILE, PUBLISHED_TABLE = "normalized_embeddings_weights.safetensors", "normalized_embeddings_weights.pt"
IN_SAFETENSORS = f"name a folder whose files are safetensors: {CONVERT}"
FIELDS = {  # ours -> what config.json calls it
    "num_attention_heads": ("n_head", "num_attention_heads"),
    "max_position_embeddings": ("block_size", "max_position_embeddings"),
    "pad_token_id": ("pad_id", "pad_token_id"),
}


@one_writer("out")
def import_published(
    source: str | Path,
    out: str | Path,
    keys: PublishedKeys | None = None,
    table: str | Path | None = None,
    tokenizer: str | Path | None = None,
) -> Path:
    """Write the published checkpoint ``source``, a folder or Hub id, into the new folder ``out``, as one growth stage.

    Weights are safetensors: a published pickle is converted first, see ``checkpoint/loading.py``. ``table`` is a file
    with the token table, for weights that have none (default: the folder's
    ``normalized_embeddings_weights.safetensors``); ``tokenizer`` a folder or Hub id, for a ``source`` that has none. No
    code is fetched from the Hub, and no pickle opened.

    Raises:
        CheckpointError: a file is missing, damaged or a pickle; a tensor has no known name, is missing or has another
            shape than the others say; ``out`` exists.
        FolderInUse: another process writes ``out``.
    """
    keys = keys or PublishedKeys()
    check_vacant(Path(out))
    where = Source(str(source))
    folder = where.fetch("published model", FETCHED)
    check_links(folder)
    published, files = read_weights(folder)
    tensors = rename(published, keys)
    rows = tensors.pop(TABLE, None)
    if rows is None:
        files.append(find_table(folder, table))
        rows = read_table(files[-1])
    words = published_tokenizer(tokenizer if tokenizer is not None else folder)
    fields = shape(tensors, read_json(inside(folder, CONFIG_FILE)), words) | keys.config
    if keys.repeat == "all":
        rows = rows.repeat(1, fields["hidden_size"] // rows.shape[1])
    substrate = pack(rows, words, fields["hidden_size"])
    model = convert(tensors, rows, fields | {"tokenizer_sha256": tokenizer_sha256(words)}, substrate, keys.rotary)
    words.model_max_length = model.config.max_position_embeddings

    origin = where.at(folder).origin
    parent = origin | {"files": {path.name: sha256_file(path) for path in files}}
    with new_folder(Path(out)) as temporary:
        if substrate is not None:
            substrate.save_pretrained(temporary)
        words.save_pretrained(temporary)
        note_below(temporary)
        layers, parameters = model.config.num_hidden_layers, model.num_parameters()
        stage = {"stage": 1, "layers": layers, "num_hidden_layers": layers, "nats_per_character": {}}
        stage |= {
            "parameters": parameters,
            "trainable_parameters": parameters,
            "files": write_stage(temporary, model, 1),
        }
        write_text(temporary / CARD_FILE, import_card(Path(out).name, origin["name"], substrate is not None))
        recipe = {"name": Path(out).name, **dataclasses.asdict(keys)}
        write_provenance(temporary, "import", {"recipe": recipe, "parents": [parent], "stages": [stage]})
    return Path(out)


def read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], list[Path]]:
    """All tensors of a folder's safetensors, and the files."""
    refuse_pickles(folder)
    names = [WEIGHTS] if (folder / WEIGHTS).exists() else []
    if not names and (folder / DEFAULT_INDEX).exists():
        names = sorted(set(read_weight_map(inside(folder, DEFAULT_INDEX)).values()))
    if not names:
        raise CheckpointError(f"{str(folder)!r} has neither {WEIGHTS} nor {DEFAULT_INDEX}; {IN_SAFETENSORS}")
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        tensors |= read_tensors(inside(folder, name))
    return tensors, [folder / name for name in names]


def find_table(folder: Path, table: str | Path | None) -> Path:
    """The file of the token table: ``table``, or the one in ``folder``."""
    path = Path(table) if table is not None else inside(folder, TABLE_FILE)
    if table is None and not path.exists() and (folder / PUBLISHED_TABLE).exists():
        path = folder / PUBLISHED_TABLE
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{str(path)!r} is no safetensors file: {CONVERT}")
    return path


def read_table(path: Path) -> torch.Tensor:
    """The one matrix of a safetensors file."""
    matrices = [tensor for tensor in read_tensors(path).values() if tensor.dim() == 2]
    if len(matrices) != 1:
        raise CheckpointError(f"{str(path)!r} holds {len(matrices)} matrices; a token table is one, [tokens, numbers]")
    return matrices[0]


def published_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub id, without running code from it."""
    try:
        return load_tokenizer(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{str(source)!r} has no tokenizer that loads without its code ({error}); name another"
        ) from error


def shape(tensors: dict[str, torch.Tensor], config: dict[str, Any], words: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Fields of the configuration: sizes from the tensors, the rest from the published ``config.json``."""
    layers = {int(name.split(".")[2]) for name in tensors if name.startswith("model.layers.")}
    head, inner = tensors.get(HEAD_WEIGHT), tensors.get(f"{BLOCKS_PREFIX}0.mlp.fc_in.weight")
    if head is None or inner is None:
        raise CheckpointError(
            f"no {'lm_head' if head is None else 'MLP'} among the weights; say its name in a keys file"
        )
    if len(words) > head.shape[0]:
        raise CheckpointError(f"the tokenizer has {len(words)} tokens, the head {head.shape[0]}; name the model's own")
    known = {ours: config[name] for ours, names in FIELDS.items() for name in reversed(names) if name in config}
    return {
        "vocab_size": head.shape[0],
        "hidden_size": head.shape[1],
        "intermediate_size": inner.shape[0],
        "num_hidden_layers": len(layers),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
        **known,
    }


def convert(
    tensors: dict[str, torch.Tensor],
    rows: torch.Tensor,
    fields: dict[str, Any],
    substrate: GlyphSubstrate | None,
    rotary: str,
) -> Any:
    """The model of ``tensors`` on ``substrate``, or on the table ``rows`` [V, S] itself.

    Raises:
        CheckpointError: ``fields`` do not fit together; ``tensors`` are not those of the model that they describe.
    """
    width = fields["hidden_size"]
    if "num_attention_heads" not in fields:
        raise CheckpointError(
            "the published config.json names no n_head; say it in a keys file, as config: {num_attention_heads: 32}"
        )
    if substrate is None:
        if width % rows.shape[1]:
            raise CheckpointError(f"a token table {rows.shape[1]} wide cannot be repeated to a model of width {width}")
        fields = fields | {"substrate_dense": True}
        embedding = {"weight": rows.float().repeat_interleave(width // rows.shape[1], dim=1)}
    else:
        a = 2 / (float(rows.max() - rows.min()) * math.sqrt(width))
        eps = fields.get("layer_norm_eps", FrozenGlyphConfig.layer_norm_eps) * a * a
        fields = fields | {"layer_norm_eps": eps, "substrate_bits": substrate.bits}
        fields["substrate_fingerprint"] = substrate.fingerprint
        embedding = {"packed_bits": substrate.packed_bits, "center": substrate.center}
        added = re.compile(r".*\.(?:o_proj|fc_out)\.\w+")
        tensors = {name: tensor * a if added.fullmatch(name) else tensor for name, tensor in tensors.items()}
    try:
        config = FrozenGlyphConfig(**fields, ladder=[fields["num_hidden_layers"]])
    except ValueError as error:
        raise CheckpointError(f"the published configuration cannot be used: {error}") from None
    if rotary == "interleaved":
        tensors = halve(tensors, config.num_attention_heads)
    with torch.device("meta"):
        model = FrozenGlyphForCausalLM(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {name: torch.zeros(size) for name, size in wanted.items() if name.endswith(".bias")}  # where there is none
    state |= tensors | {SUBSTRATE_PREFIX + name: tensor for name, tensor in embedding.items()}
    shapes = {name: tensor.shape for name, tensor in state.items()}
    if wrong := sorted(name for name in wanted | shapes if wanted.get(name) != shapes.get(name)):
        told = (f"{name} is {size(shapes.get(name))}, expected {size(wanted.get(name))}" for name in wrong)
        raise CheckpointError(f"the weights are of another architecture: {'; '.join(told)}; or a keys file can help")
    model.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()}, assign=True)
    return model


def size(shape: torch.Size | None) -> str:
    """A shape in words."""
    return "missing" if shape is None else str(list(shape))


def halve(tensors: dict[str, torch.Tensor], heads: int) -> dict[str, torch.Tensor]:
    """Queries and keys with the rows of each head in another order: pairs (2k, 2k + 1) become (k, k + K/2)."""

    def sort(rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)

    return {name: sort(rows) if re.search(r"\.[qk]_proj\.", name) else rows for name, rows in tensors.items()}


def pack(rows: torch.Tensor, words: PreTrainedTokenizerBase, width: int) -> GlyphSubstrate | None:
    """The table [V, S] as packed bits, or None where it has more than two values or does not fill whole bytes."""
    low, high = rows.min(), rows.max()
    if rows.shape[1] % 8 or width % rows.shape[1] or low == high or not ((rows == low) | (rows == high)).all():
        return None
    packed = torch.from_numpy(np.packbits((rows == high).numpy(), axis=1))
    center = torch.full((rows.shape[1],), CENTER_SCALE // 2, dtype=torch.uint8)
    facts = {"layout": "imported", "bits": rows.shape[1], "width": width, "vocab_size": len(rows)}
    return GlyphSubstrate(words, packed, center, None, facts | {"tokenizer_sha256": tokenizer_sha256(words)})


def import_card(name: str, parent: str, packed: bool) -> str:
    """The model card of an imported checkpoint."""
    table = (
        "Its token codes are packed bits, so models that were grown on them dock on it and merge with it."
        if packed
        else "Its token vectors are a frozen table of numbers without bits, so it can be grown on but not be merged."
    )
    return model_card(
        name,
        f"`{parent}`, converted tensor by tensor; the licence is that of the original. {table}",
        {"Limitations": "A research model. How its rotation pairs elements is a choice: `rotary` in the provenance."},
        ["imported"],
    )

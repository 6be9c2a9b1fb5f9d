"""Dense export: a checkpoint whose token embedding is an ordinary ``nn.Embedding``, for servers that know no other.

frozen-glyph to-dense runs/ru -o runs/ru-dense
frozen-glyph to-dense runs/ru -o runs/ru-starcoder2 --starcoder2
"""

from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.card import inherited, model_card
from frozen_glyph.checkpoint.companions import check_links, copy_model_code
from frozen_glyph.checkpoint.config import GROWN, MERGED
from frozen_glyph.checkpoint.contract import CARD_FILE, CONFIG_FILE, FETCHED_FIRST
from frozen_glyph.checkpoint.files import CheckpointError, sha256_file, write_text
from frozen_glyph.checkpoint.folders import new_folder
from frozen_glyph.checkpoint.journal import note_below
from frozen_glyph.checkpoint.loading import load_causal_lm, load_tokenizer
from frozen_glyph.checkpoint.places import check_vacant, one_writer
from frozen_glyph.checkpoint.provenance import write_provenance
from frozen_glyph.checkpoint.reader import find_weights, open_checkpoint
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.checkpoint.stored import read_config
from frozen_glyph.export.starcoder2 import check_starcoder2, to_starcoder2

FETCHED = (*FETCHED_FIRST, "*.safetensors")


@one_writer("out")
def export_dense(
    source: str | Path | Source, out: str | Path, one_head: bool = False, starcoder2: bool = False
) -> Path:
    """Write the model of ``source``, grown or merged, into the new folder ``out`` with a dense token embedding.

    Every logit keeps its bits, and ``config.json`` the fingerprint of the substrate; ``out`` appears complete or not at
    all. ``source`` is a folder or Hub id, ``NAME@STAGE`` for a growth stage. ``one_head`` also folds the heads of a
    merged model into one ordinary Linear, which vLLM asks for; logits are then the same up to rounding. ``starcoder2``
    writes a grown model as a class of transformers' own, up to rounding too (see ``to_starcoder2``), without our code.

    Raises:
        CheckpointError: ``source`` is no checkpoint of ours, is a dense export itself or no possible StarCoder2, or
            ``out`` exists.
        ValueError: ``source`` is damaged, has no such stage, or is a merged model that ``one_head`` cannot express; the
            message names file, stage or rule.
        FolderInUse: another process writes ``out``.
    """
    source, out = Source.parse(source), Path(out)
    check_vacant(out)
    folder, config = fetch(source)
    if starcoder2:
        check_starcoder2(folder, config)
    elif config.get("substrate_dense") or config.get("substrate_trainable"):
        raise CheckpointError(f"{str(folder)!r} has an ordinary embedding already; use the folder as it is")
    tokenizer, model = load(source, folder)
    model.to_dense()
    if one_head and hasattr(model, "to_one_head"):
        model.to_one_head()
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.ladder = None  # one file, one depth

    with new_folder(out) as temporary:
        if starcoder2:
            card = starcoder2_card(out.name, source.name, folder, model.config)
            to_starcoder2(model).save_pretrained(temporary)
        else:
            card = dense_card(out.name, source.name, folder, model.config)
            model.save_pretrained(temporary)
            copy_model_code(temporary)
        tokenizer.save_pretrained(temporary)
        note_below(temporary)
        write_text(temporary / CARD_FILE, card)
        parent = {**source.at(folder).origin, "config_sha256": sha256_file(folder / CONFIG_FILE), **source.arguments}
        files = {path.name: sha256_file(path) for path in sorted(temporary.glob("*.safetensors"))}
        write_provenance(temporary, "dense", {"parents": [parent], "files": files})
    return out


def fetch(source: Source) -> tuple[Path, dict[str, Any]]:
    """The folder of ``source`` and its configuration; ``CheckpointError`` unless it is a model of ours."""
    folder = source.fetch("model", FETCHED)
    config = read_config(folder)
    if config.get("model_type") not in (GROWN, MERGED):
        raise CheckpointError(
            f"{str(folder)!r} has model_type {config.get('model_type')!r}; exports are made of 'frozen_glyph' or "
            "'frozen_glyph_moe'"
        )
    return folder, config


def load(source: Source, folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model of ``source``, which lies in ``folder``, after a look at every file and link of them."""
    check_links(folder)
    find_weights(source.at(folder), read_config(folder))
    open_checkpoint("model", source).verify({})
    return load_tokenizer(folder), load_causal_lm(folder, **source.arguments)


def dense_card(name: str, parent: str, folder: Path, config: Any) -> str:
    """The model card of a dense export."""
    one_head = getattr(config, "embedding_size", None) is not None
    width = config.embedding_size if one_head else config.hidden_size
    same = "up to rounding, with one head for all experts" if one_head else "bit for bit"
    return model_card(
        name,
        f"Dense export of `{parent}`: the same logits, {same}. Its frozen token embedding is a table of "
        f"{config.vocab_size:,} x {width:,} numbers, made from the glyph substrate `"
        f"{config.substrate_fingerprint}`.",
        {"Limitations": "It holds no glyph bits, so it can neither be merged nor checked against its substrate."},
        ["dense"],
        **inherited([folder]),
    )


def starcoder2_card(name: str, parent: str, folder: Path, config: Any) -> str:
    """The model card of an export as StarCoder2."""
    return model_card(
        name,
        f"`{parent}` as a StarCoder2: the same logits up to rounding. Its token embedding was made from the glyph "
        f"substrate `{config.substrate_fingerprint}`.",
        {"Limitations": "Nothing of it is frozen, and it holds no glyph bits, so it can neither grow nor be merged."},
        ["starcoder2"],
        remote_code=False,
        **inherited([folder]),
    )

"""A grown model as a GGUF file, which llama.cpp and what is built on it run: a StarCoder2 and its tokenizer.

frozen-glyph to-gguf runs/ru -o ru.gguf

llama.cpp's converter knows tokenizers by a hash of what they make of one text, so it refuses all that are not on its
list. But it has one like ours: byte pair encoding of code points with tokens for bytes ("gemma4"), where spaces are
written U+2581. It cuts texts at line breaks alone. That makes no difference: no token of ours reaches from one piece to
the next, save where several spaces precede a word, and their merges come last, after those of the word.

Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.card import inherited
from frozen_glyph.checkpoint.files import CheckpointError, write_atomically
from frozen_glyph.checkpoint.places import check_place
from frozen_glyph.checkpoint.source import Source
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.export.dense import fetch, load
from frozen_glyph.export.starcoder2 import check_starcoder2, to_starcoder2
from frozen_glyph.substrate.ngrams import PIECE
from frozen_glyph.substrate.tokens import BYTE_TOKENS

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python")  # llama.cpp has one GELU for all
SPACE, NO_SPACE = "▁", "<U+2581>"  # what llama.cpp writes for a space, and what it cannot read then
OUR_PIECES = {"type": "Split", "pattern": {"Regex": PIECE}, "behavior": "Isolated", "invert": False}


def export_gguf(source: str | Path | Source, out: str | Path) -> Path:
    """Write the grown model of ``source`` and its tokenizer into the new file ``out``, in the model's number format.

    Logits equal those of ``source`` but for llama.cpp's arithmetic (its GELU is the tanh formula, from a table), tokens
    do except that U+2581 in a text is read as a space. ``llama-quantize`` makes smaller files of it.

    Raises:
        CheckpointError: ``source`` is no grown model of ours or has what llama.cpp's StarCoder2 has not, its tokenizer
            was not built by this package, or ``out`` exists.
        FrozenGlyphError: the package ``gguf`` is missing.
        ValueError: ``source`` is damaged or has no such stage.
    """
    source, out = Source.parse(source), Path(out)
    check_place(out.parent)
    if out.exists():
        raise CheckpointError(f"{str(out)!r} exists; choose a new file")
    library()
    folder, config = fetch(source)
    check_starcoder2(folder, config)
    check_arithmetic(folder, config)
    tokenizer, model = load(source, folder)
    check_tokenizer(folder, tokenizer)
    metadata = {
        "name": out.stem,
        "description": f"Made from {source.name}, substrate {model.config.substrate_fingerprint}",
    }
    stock = to_starcoder2(model)
    write_atomically(out, lambda path: write_gguf(path, stock, tokenizer, metadata | inherited([folder])))
    return out


def library() -> Any:
    """The package ``gguf``, of llama.cpp's authors."""
    try:
        import gguf
    except ModuleNotFoundError:
        raise FrozenGlyphError("to-gguf needs gguf: pip install 'frozen-glyph[gguf]'") from None
    return gguf


def check_arithmetic(folder: Path, config: dict[str, Any]) -> None:
    """Raise ``CheckpointError`` where llama.cpp would compute something else, without a word."""
    if (activation := config.get("hidden_act", "gelu")) not in ACTIVATIONS:
        raise CheckpointError(f"{str(folder)!r} has hidden_act={activation!r}; llama.cpp's StarCoder2 has GELU alone")
    if (kind := (config.get("rope_parameters") or {}).get("rope_type", "default")) != "default":
        raise CheckpointError(f"{str(folder)!r} has rope_type={kind!r}; only 'default' is written for llama.cpp")


def check_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Raise ``CheckpointError`` unless ``tokenizer`` is of the kind that ``build_tokenizer`` makes."""
    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    model, literal = state["model"], [token for token in state["added_tokens"] if not token["special"]]
    ours = model["type"] == "BPE" and model["byte_fallback"] and set(BYTE_TOKENS) <= model["vocab"].keys()
    changes = state["normalizer"] or literal or backend.num_special_tokens_to_add(is_pair=False)
    if not ours or changes or state["pre_tokenizer"] != OUR_PIECES:
        raise CheckpointError(
            f"the tokenizer of {str(folder)!r} was not built by frozen-glyph; llama.cpp's own converter may know it: "
            "give it the folder that `frozen-glyph to-dense --starcoder2` writes"
        )


def write_gguf(path: Path, model: Any, tokenizer: Any, metadata: dict[str, Any]) -> None:
    """Write ``model``, a ``Starcoder2ForCausalLM``, with a ``tokenizer`` of ours."""
    gguf, config = library(), model.config
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.STARCODER2])
    writer.add_name(metadata["name"])
    writer.add_description(metadata["description"])
    if metadata.get("license"):
        writer.add_license(metadata["license"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    add_tokenizer(writer, tokenizer, config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.STARCODER2, config.num_hidden_layers)
    stored = gguf.GGMLQuantizationType[{"float32": "F32", "bfloat16": "BF16", "float16": "F16"}[str(model.dtype)[6:]]]
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if stored.name == 'F32' else 'MOSTLY'}_{stored.name}"])
    for name, tensor in model.state_dict().items():
        kind = stored if tensor.dim() > 1 else gguf.GGMLQuantizationType.F32  # llama.cpp wants norms and biases so
        data = gguf.quantize(tensor.float().contiguous().numpy(), kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: Any, tokenizer: Any, vocab_size: int) -> None:
    """Tokens, merges and specials; documents begin with ``<bos>``, as in training."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gemma4")
    tokens, kinds = zip(*token_entries(tokenizer, vocab_size), strict=True)
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(kinds))
    pairs = [tuple(pair) for pair in model["merges"] if SPACE not in "".join(pair)]
    pairs.sort(key=lambda pair: set("".join(pair)) == {" "})  # spaces last: see above
    writer.add_token_merges([" ".join(part.replace(" ", SPACE) for part in pair) for pair in pairs])
    writer.add_add_bos_token(True)
    for name in ("bos", "eos", "pad"):
        if (token_id := getattr(tokenizer, f"{name}_token_id")) is not None:
            getattr(writer, f"add_{name}_token_id")(token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def token_entries(tokenizer: Any, vocab_size: int) -> Iterator[tuple[str, int]]:
    """Each token as llama.cpp writes it, no two alike, and what kind of token it is."""
    kinds = library().TokenType
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    for token_id in range(vocab_size):
        token = tokenizer.convert_ids_to_tokens(token_id)
        if token is None or token == f"<unused_{token_id}>":
            yield f"<unused_{token_id}>", kinds.UNUSED
        elif token in special:
            yield token, kinds.CONTROL
        elif token in BYTE_TOKENS:
            yield token, kinds.BYTE
        else:
            yield token.replace(SPACE, NO_SPACE).replace(" ", SPACE), kinds.NORMAL

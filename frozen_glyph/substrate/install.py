"""Put a substrate under any causal language model of transformers: its token embedding becomes the frozen vectors.

The model keeps its own class and files: the vectors lie in an ordinary ``nn.Embedding``, so it is saved, loaded and
served like any other. Files do not remember what is frozen; install the substrate again after loading:

    glyphs = install_glyph_embedding(model, tokenizer)  # train the model, then
    model.save_pretrained(folder)
    glyphs.save_pretrained(folder / "glyphs")
    model, glyphs = load_with_glyph_embedding(folder)  # the same vectors, checked and frozen

The substrate and its tokenizer have a folder of their own, because beside the ``config.json`` of some models (Qwen2)
``AutoTokenizer`` replaces the rules of a tokenizer.json by the model's.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from frozen_glyph.checkpoint.loading import load_causal_lm
from frozen_glyph.substrate.artifact import GlyphSubstrate
from frozen_glyph.substrate.choices import SubstrateError

SUBSTRATE_FOLDER = "glyphs"  # inside the model's
FINGERPRINT_FIELD = "glyph_substrate_fingerprint"  # in the configuration of a model that a substrate was put under


def install_glyph_embedding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | GlyphSubstrate, **options: Any
) -> GlyphSubstrate:
    """Replace the input embedding of ``model`` in place by frozen substrate vectors, and return the substrate.

    A head that was tied to the embedding is untied: it keeps the old matrix, which trains on. Where the model's
    vocabulary is larger than the tokenizer (padded to a round number), the rows that no text can reach are zero. The
    vectors take the model's dtype and device; ``config.glyph_substrate_fingerprint`` names them.

    Args:
        model: any causal language model whose ``get_input_embeddings()`` is a table [V, D].
        tokenizer: the model's own fast tokenizer, or a substrate that was built for it.
        options: of ``GlyphSubstrate.build``, except the width, which is the model's.

    Raises:
        SubstrateError: the substrate does not fit the model's width or vocabulary, or cannot be built.
    """
    table: Any = model.get_input_embeddings().weight
    rows, width = table.shape
    if isinstance(tokenizer, GlyphSubstrate):
        if options:
            raise SubstrateError(f"{', '.join(options)} cannot be changed in a finished substrate; give its tokenizer")
        glyphs = tokenizer
    else:
        check_vocabulary(len(tokenizer), rows)
        glyphs = GlyphSubstrate.build(tokenizer, width, **options)
    check_vocabulary(glyphs.vocab_size, rows)
    if glyphs.width != width:
        raise SubstrateError(f"substrate of width {glyphs.width} does not fit a model of width {width}; build another")
    vectors = torch.zeros(rows, width)
    vectors[: glyphs.vocab_size] = glyphs.as_embedding().weight
    embedding = nn.Embedding.from_pretrained(vectors.to(table.device, table.dtype), freeze=True)
    untie(model)
    model.set_input_embeddings(embedding)
    setattr(model.config, FINGERPRINT_FIELD, glyphs.fingerprint)
    return glyphs


def load_with_glyph_embedding(folder: str | Path, **options: Any) -> tuple[PreTrainedModel, GlyphSubstrate]:
    """Load a model and its substrate, saved as the top of this file says; the vectors are checked and frozen again.

    Args:
        folder: the model's, with the substrate in its subfolder ``glyphs``.
        options: of ``AutoModelForCausalLM.from_pretrained``.

    Raises:
        SubstrateError: the model was trained on another substrate, or its embedding holds other vectors.
        CheckpointError: a file of the substrate is missing or damaged.
    """
    glyphs = GlyphSubstrate.from_pretrained(Path(folder, SUBSTRATE_FOLDER))
    model = load_causal_lm(folder, **options)
    named = getattr(model.config, FINGERPRINT_FIELD, None)
    if named != glyphs.fingerprint:
        raise SubstrateError(
            f"the model in {str(folder)!r} was trained on substrate {named}, the folder holds {glyphs.fingerprint}; "
            "put the right substrate there, or call install_glyph_embedding to change it"
        )
    loaded: Any = model.get_input_embeddings().weight
    install_glyph_embedding(model, glyphs)
    if not torch.equal(loaded, model.get_input_embeddings().get_parameter("weight")):
        raise SubstrateError(
            f"the embedding in {str(folder)!r} holds other vectors than its substrate: it was trained or damaged; "
            "fetch the folder again, or call install_glyph_embedding to restore the vectors"
        )
    return model, glyphs


def check_vocabulary(tokens: int, rows: int) -> None:
    """Raise ``SubstrateError`` unless a model of ``rows`` ids has room for ``tokens``."""
    if tokens > rows:
        raise SubstrateError(
            f"the tokenizer has {tokens} tokens, the model's embedding {rows} rows; give the model's own tokenizer, or "
            "call model.resize_token_embeddings first"
        )


def untie(model: PreTrainedModel) -> None:
    """Let the output head keep the matrix that it shares with the input embedding, now and in saved files."""
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys()

"""Build a tokenizer: which token has which id, in the layouts ``bmp``, ``wide`` and ``compact``.

Byte pair encoding with byte fallback (the `tokenizers` library), no normaliser: every string comes back as it was.
The text is cut into pieces first, so that n-grams stay inside words and a context keeps its tokens when more is
appended at a word boundary (lm-eval slices ``encode(context + continuation)`` at ``len(encode(context))``).

``bmp`` and ``wide`` follow arXiv 2507.07129 and 2507.04886: a code point below U+10000 is its own id, and the ids of
surrogates and private use, which stand for no text, hold specials, bytes, n-grams and the characters above U+FFFF.

A vocabulary with reserved ids brings the chat template over their marks (see ``reserved``).
"""

import logging
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.substrate.choices import MOST_IDS, VOCABULARIES
from frozen_glyph.substrate.ngrams import PIECE, CountedText, count_text, learn_ngrams
from frozen_glyph.substrate.reserved import CHAT_MARKS, RESERVED_IDS, chat_template, reserved_names
from frozen_glyph.substrate.tokens import BYTE_TOKENS, list_tokens, tokenizer_sha256

__all__ = ["BYTE_TOKENS", "SPECIAL_TOKENS", "build_tokenizer", "list_tokens", "tokenizer_sha256"]

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
MAX_NGRAM = 16  # code points: what the glyph layout still draws cell by cell
COMPACT_NGRAM = 4  # code points: what it draws without loss

CODE_POINT_COVERAGE = 0.9995  # of a compact vocabulary's text; the rest is spelt in bytes

SURROGATES = range(0xD800, 0xE000)
PRIVATE_USE = range(0xE000, 0xF900)
SPECIAL_IDS = range(0xE000, 0xE100)
BYTE_IDS = range(0xE100, 0xE200)
FREE_IDS = (*SURROGATES, *range(BYTE_IDS.stop, PRIVATE_USE.stop))
MAX_ASTRAL = len(FREE_IDS) // 4  # characters above U+FFFF
MIN_COUNT = 2  # of an n-gram or a character above U+FFFF: what occurs once is chance

Merges = list[tuple[str, str]]


def build_tokenizer(
    texts: Iterable[str],
    vocab_size: int | str,
    max_ngram: int | None = None,
    model_max_length: int | None = None,
    reserved: int | None = None,
) -> PreTrainedTokenizerFast:
    """Learn a vocabulary from ``texts``; the same texts give the same tokenizer.json, byte for byte.

    Ids of a compact vocabulary (``vocab_size`` a number; ``"compact"`` is 4096): 0-2 the specials, 3-258 the bytes,
    then code points (most frequent first), then n-grams in the order learnt, then the reserved ids. Of the free ids,
    code points get as many as are seen when these fill at most half, and otherwise only the most frequent ones that
    cover 99.95 % of the text, at most three quarters of the ids: a rarer one, spelt in bytes, costs less than the
    n-grams that its id can hold.

    Ids of ``"bmp"`` (65,536) and ``"wide"`` (131,072): a code point below U+10000 has its own number, assigned or not.
    0xE000-0xE0FF are the specials (57344 ``<pad>``, ``<bos>``, ``<eos>``, the reserved ids, the others
    ``<unused_ID>``), 0xE100-0xE1FF the bytes. 0xD800-0xDFFF, then 0xE200-0xF8FF, then in ``wide`` 0x10000 on, hold the
    characters above U+FFFF that occur at least twice (most frequent first, at most 1984), then n-grams in the order
    learnt, up to whole words; ``<unused_ID>`` stands where the text does not yield enough. So ``bmp`` is the lower half
    of ``wide``.

    Args:
        texts: the text to learn from, in any number of pieces; read once, and never held as a whole.
        vocab_size: ids to fill, or the name of a layout; a compact vocabulary is smaller, with a warning in the log,
            when the text yields fewer n-grams.
        max_ngram: most code points of an n-gram, 1 to 16; 1 means none are learnt. None means 4 for a compact
            vocabulary and 16 for the others.
        model_max_length: most tokens of a text that the model takes, as noted in tokenizer_config.json.
        reserved: ids for chat marks and names to come, 0 or 6 and more. None means 64 in a compact vocabulary of more
            than 1,024 ids, and none in a smaller one, whose n-grams need the room, or in ``bmp`` and ``wide``, which
            stay as published; these have room for 253.
    """
    if isinstance(vocab_size, str) and vocab_size not in VOCABULARIES:
        raise FrozenGlyphError(
            f"vocab_size {vocab_size!r} is unknown; give a number or one of {sorted(VOCABULARIES)}."
            f"{nearest(vocab_size, VOCABULARIES)}"
        )
    if isinstance(vocab_size, int) and vocab_size > MOST_IDS:
        raise FrozenGlyphError(f"vocab_size {vocab_size} is too large: give at most {MOST_IDS}")
    fixed = vocab_size in ("bmp", "wide")
    size = VOCABULARIES[vocab_size] if isinstance(vocab_size, str) else vocab_size
    names = reserved_names(_reserved_ids(reserved, size, fixed))
    taken = len(SPECIAL_TOKENS) + len(BYTE_TOKENS) + len(names)
    if size <= taken:
        raise FrozenGlyphError(
            f"vocab_size {size} is too small: {taken} ids are specials and bytes; give a larger number"
        )
    if max_ngram is None:
        max_ngram = MAX_NGRAM if fixed else COMPACT_NGRAM
    if not 1 <= max_ngram <= MAX_NGRAM:
        raise FrozenGlyphError(f"max_ngram {max_ngram} is not allowed; give 1 to {MAX_NGRAM} code points")
    text = count_text(texts)
    if fixed:
        tokens, merges = _fixed_vocabulary(text, size, max_ngram, names)
        specials = [tokens[token_id] for token_id in SPECIAL_IDS]
    else:
        tokens, merges = _compact_vocabulary(text, size, max_ngram, names)
        specials = [*SPECIAL_TOKENS, *names]
    tokenizer = _assemble(tokens, merges, specials, model_max_length)
    if names:
        tokenizer.chat_template = chat_template()
    return tokenizer


def _reserved_ids(asked: int | None, size: int, fixed: bool) -> int:
    """How many ids of ``size`` are reserved."""
    if asked is None:
        return RESERVED_IDS if size > 16 * RESERVED_IDS and not fixed else 0
    least, most = len(CHAT_MARKS), len(SPECIAL_IDS) - len(SPECIAL_TOKENS) if fixed else size
    if asked and not least <= asked <= most:
        raise FrozenGlyphError(f"reserved {asked} is not allowed; give 0, or {least}, the chat marks, to {most} ids")
    return asked


def _compact_vocabulary(
    text: CountedText, vocab_size: int, max_ngram: int, reserved: list[str]
) -> tuple[list[str], Merges]:
    """Tokens by id, and the merges."""
    first = (*SPECIAL_TOKENS, *BYTE_TOKENS)
    room = vocab_size - len(first) - len(reserved)
    ordered = text.by_frequency()
    code_points = ordered[: _compact_code_points(ordered, text.counts, room, max_ngram)]
    left_out = ordered[len(code_points) :]
    ngrams, merges = learn_ngrams(
        text.sample, code_points, left_out, room - len(code_points), max_ngram, (*first, *reserved)
    )
    tokens = [*first, *code_points, *ngrams, *reserved]
    if len(tokens) < vocab_size:
        logger.warning("vocab_size %d asked for, but the text yields only %d tokens", vocab_size, len(tokens))
    return tokens, merges


def _compact_code_points(ordered: list[str], counts: dict[str, int], room: int, max_ngram: int) -> int:
    """How many of the code points, most frequent first, get an id of their own."""
    if max_ngram == 1 or len(ordered) <= room // 2:
        return room
    number, uncovered = len(ordered), round((1 - CODE_POINT_COVERAGE) * sum(counts.values()))
    while counts[ordered[number - 1]] <= uncovered:
        number -= 1
        uncovered -= counts[ordered[number]]
    return min(number, room * 3 // 4)


def _fixed_vocabulary(text: CountedText, size: int, max_ngram: int, reserved: list[str]) -> tuple[list[str], Merges]:
    """Tokens by id, and the merges, of a vocabulary where code points are ids."""
    tokens = [f"<unused_{token_id}>" for token_id in range(size)]
    placeholders = set(tokens)
    for code_point in range(0x10000):
        if code_point not in SURROGATES and code_point not in PRIVATE_USE:
            tokens[code_point] = chr(code_point)
    specials = (*SPECIAL_TOKENS, *reserved)
    tokens[SPECIAL_IDS.start : SPECIAL_IDS.start + len(specials)] = specials
    tokens[BYTE_IDS.start : BYTE_IDS.stop] = BYTE_TOKENS

    ordered = text.by_frequency()
    astral = [character for character in ordered if ord(character) > 0xFFFF and text.counts[character] >= MIN_COUNT]
    own_id = {character for character in ordered if ord(character) <= 0xFFFF and ord(character) not in PRIVATE_USE}
    own_id.update(astral[:MAX_ASTRAL])
    left_out = [character for character in ordered if character not in own_id]
    free_ids = (*FREE_IDS, *range(0x10000, size))
    ngrams, merges = learn_ngrams(
        text.sample,
        sorted(own_id),
        left_out,
        len(free_ids) - len(astral[:MAX_ASTRAL]),
        max_ngram,
        forbidden=placeholders | {*specials, *BYTE_TOKENS},
        min_count=MIN_COUNT,
    )
    for token_id, token in zip(free_ids, (*astral[:MAX_ASTRAL], *ngrams), strict=False):
        tokens[token_id] = token
    return tokens, merges


def _assemble(
    tokens: Sequence[str], merges: Merges, specials: Sequence[str], model_max_length: int | None
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(
        models.BPE(
            vocab={token: token_id for token_id, token in enumerate(tokens)},
            merges=merges,
            byte_fallback=True,
            fuse_unk=False,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    pad, bos, eos = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )
    if model_max_length is not None:
        tokenizer.model_max_length = model_max_length
    return tokenizer

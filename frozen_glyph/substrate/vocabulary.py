"""Build the ``compact`` tokenizer: specials, 256 bytes, the code points of a text, and the n-grams worth an id.

Byte pair encoding with byte fallback (the `tokenizers` library), no normaliser: every string comes back as it was.
The text is cut into pieces first, so that n-grams stay inside words and a context keeps its tokens when more is
appended at a word boundary (lm-eval slices ``encode(context + continuation)`` at ``len(encode(context))``).
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.glyphs import Token

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
BYTE_TOKENS = tuple(f"<0x{value:02X}>" for value in range(256))
RESERVED = (*SPECIAL_TOKENS, *BYTE_TOKENS)
MAX_NGRAM = 16  # code points: what the glyph layout still draws cell by cell

# One piece is, in this order of preference (Oniguruma syntax):
#   a word with the space before it | punctuation or operators with the space before it |
#   the spaces before such a space | spaces before anything else | any other white space, one character at a time.
PIECE = r" ?[^\s\p{P}\p{Sm}\p{Sc}]+| ?[\p{P}\p{Sm}\p{Sc}]+| +(?= \S)| +|\s"

CODE_POINT_COVERAGE = 0.9995  # of the text's characters; the rest is spelt in bytes
BREAK = "\U0010ffff"  # a noncharacter that stands for left-out code points while n-grams are counted


def build_tokenizer(
    texts: Iterable[str], vocab_size: int, max_ngram: int = 4, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Learn a ``compact`` vocabulary from ``texts``; the same texts give the same tokenizer.json, byte for byte.

    Ids: 0-2 the specials, 3-258 the bytes, then code points (most frequent first), then n-grams in the order learnt.
    Of the free ids, code points get as many as are seen when these fill at most half, and otherwise only the most
    frequent ones that cover 99.95 % of the text, at most three quarters of the ids: a rarer one, spelt in bytes,
    costs less than the n-grams that its id can hold.

    Args:
        texts: the text to learn from, in any number of pieces.
        vocab_size: ids to fill; a text that yields fewer n-grams gives a smaller vocabulary and a warning in the log.
        max_ngram: most code points of an n-gram, 1 to 16; 1 means none are learnt.
        model_max_length: most tokens of a text that the model takes, as noted in tokenizer_config.json.
    """
    if vocab_size <= len(RESERVED):
        raise FrozenGlyphError(
            f"vocab_size {vocab_size} is too small: {len(RESERVED)} ids are specials and bytes; give a larger number"
        )
    if not 1 <= max_ngram <= MAX_NGRAM:
        raise FrozenGlyphError(f"max_ngram {max_ngram} is not allowed; give 1 to {MAX_NGRAM} code points")
    texts = list(texts)
    room = vocab_size - len(RESERVED)
    code_points = _choose_code_points(texts, room, max_ngram)
    ngrams, merges = _learn_ngrams(texts, code_points, room - len(code_points), max_ngram)
    tokens = [*RESERVED, *code_points, *ngrams]
    if len(tokens) < vocab_size:
        logger.warning("vocab_size %d asked for, but the text yields only %d tokens", vocab_size, len(tokens))

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
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    pad, bos, eos = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )
    if model_max_length is not None:
        tokenizer.model_max_length = model_max_length
    return tokenizer


def list_tokens(tokenizer: PreTrainedTokenizerBase) -> list[Token]:
    """What each id of ``tokenizer`` stands for, in the order of the ids."""
    backend = _backend_state(tokenizer)
    if backend["model"].get("type") != "BPE" or not backend["model"].get("byte_fallback"):
        raise FrozenGlyphError(
            f"tokenizer model {backend['model'].get('type')!r} cannot be drawn: only BPE with byte_fallback is known; "
            "build the tokenizer with build_tokenizer"
        )
    specials = {token["content"] for token in backend["added_tokens"] if token["special"]}
    texts = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    tokens: list[Token] = []
    for token_id, text in enumerate(texts):
        if text is None:
            raise FrozenGlyphError(f"tokenizer has no token with id {token_id}; ids must run from 0 without a gap")
        tokens.append(Token(text, "special" if text in specials else "byte" if text in BYTE_TOKENS else "text"))
    return tokens


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of what the tokenizer does: its tokenizer.json in canonical form, less the padding of its last call."""
    state = {name: part for name, part in _backend_state(tokenizer).items() if name not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(state, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _backend_state(tokenizer: PreTrainedTokenizerBase) -> dict:
    if not tokenizer.is_fast:
        raise FrozenGlyphError(f"tokenizer {type(tokenizer).__name__} is not a fast one; it must have a tokenizer.json")
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _choose_code_points(texts: list[str], room: int, max_ngram: int) -> list[str]:
    """The code points that get an id of their own, most frequent first, ties by code point."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    counts.pop(BREAK, None)
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    if not ordered:
        raise FrozenGlyphError("texts hold no characters; give some text to learn the vocabulary from")
    if max_ngram == 1 or len(ordered) <= room // 2:
        return ordered[:room]
    uncovered = round((1 - CODE_POINT_COVERAGE) * counts.total())
    while counts[ordered[-1]] <= uncovered:
        uncovered -= counts[ordered.pop()]
    return ordered[: room * 3 // 4]


def _learn_ngrams(
    texts: list[str], code_points: list[str], room: int, max_ngram: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """Up to ``room`` n-grams over ``code_points`` and the merges that make them, in the order learnt."""
    if max_ngram == 1 or room == 0:
        return [], []
    # Left-out code points break a piece in two, or the trainer would join their neighbours.
    kept = set(code_points)
    breaks = {ord(character): BREAK for character in set().union(*texts) - kept}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(BREAK, "removed"), pre_tokenizers.Split(Regex(PIECE), "isolated")]
    )
    trainer = trainers.BpeTrainer(
        # Some merges are left out below (an n-gram may not spell a special or byte token): others take their place.
        vocab_size=len(code_points) + room + len(RESERVED),
        initial_alphabet=code_points,
        max_token_length=max_ngram + 1,  # exclusive in some versions of the library, so checked again below
        show_progress=False,
    )
    learner.train_from_iterator(_lines(texts, breaks), trainer)

    known = kept | set(RESERVED)
    ngrams: list[str] = []
    merges: list[tuple[str, str]] = []
    for left, right in json.loads(learner.to_str())["model"]["merges"]:
        ngram = left + right
        if len(ngram) > max_ngram or ngram in RESERVED or left not in known or right not in known:
            continue
        if ngram not in known:
            if len(ngrams) == room:
                break
            ngrams.append(ngram)
            known.add(ngram)
        merges.append((left, right))
    return ngrams, merges


def _lines(texts: list[str], breaks: dict[int, str]) -> Iterator[str]:
    """The texts line by line (each newline is a piece of its own, so no n-gram is lost)."""
    for text in texts:
        for line in text.translate(breaks).split("\n"):
            if line:
                yield line

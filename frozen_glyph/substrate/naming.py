"""Give reserved ids of a written vocabulary their names: what takes the place of growing a frozen table.

    name_tokens("runs/ru", ["<|observation|>"])  # the next free reserved id, in whatever folder has a tokenizer

The id keeps its vector, and the vocabulary its identity: a model goes on, and its experts dock on those that gave no
name or another one. ``tokenizer_config.json`` records under ``named_tokens`` what each was built with.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from frozen_glyph.checkpoint.companions import check_links
from frozen_glyph.checkpoint.contract import (
    CHAT_TEMPLATE,
    PROVENANCE_FILE,
    SPECIAL_TOKENS,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
)
from frozen_glyph.checkpoint.files import read_json, write_json, write_text
from frozen_glyph.checkpoint.loading import load_tokenizer
from frozen_glyph.checkpoint.places import one_writer
from frozen_glyph.checkpoint.provenance import read_provenance, rewriting
from frozen_glyph.checkpoint.verify import check_companions
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.substrate.reserved import CHAT_MARKS, chat_template
from frozen_glyph.substrate.tokens import NAMED, built_names, rename_tokens

# What reserved tokens are called here and in vocabularies of others.
FREE = re.compile(r"[<\[]\|?(reserved|unused|extra|special)(_special_token)?_?\d+\|?[>\]]", re.IGNORECASE)
ALLOWED = re.compile(r"<[^\s<>]{1,62}>|\[[^\s\[\]]{1,62}\]")


@one_writer("folder")
def name_tokens(
    folder: str | Path, names: Sequence[str] | Mapping[str, int | None], chat: bool = False
) -> dict[str, int]:
    """Name reserved ids of the tokenizer in ``folder``: a substrate, checkpoint or tokenizer folder, in place.

    Args:
        names: the names, each for the next free reserved id; of a mapping, for the id that it says unless that is None.
            An id that was named before gets the new name. A name that its id has already changes nothing.
        chat: give the vocabulary the chat marks and the chat template too, as new ones have them.

    Returns:
        The id of each name.

    Raises:
        FrozenGlyphError: a name is a token already, or not written in brackets; no reserved id is left; an id is not
            reserved.
        CheckpointError: ``folder`` holds no fast tokenizer, or a damaged one.
        FolderInUse: another process writes into ``folder``.
    """
    folder = Path(folder)
    wanted: dict[str, int | None] = dict.fromkeys(CHAT_MARKS if chat else ())
    wanted |= names if isinstance(names, Mapping) else dict.fromkeys(names)
    if not wanted:
        raise FrozenGlyphError(f"nothing to name in {str(folder)!r}: give names, or ask for the chat marks")
    state = read_json(folder / TOKENIZER_FILE)
    check_links(folder)
    if (folder / PROVENANCE_FILE).exists():
        check_companions(folder, read_provenance(folder))
    tokenizer = load_tokenizer(folder, local_files_only=True)
    if chat:
        check_chat(folder, tokenizer)
    ids = choose_ids(tokenizer, wanted)
    before = {token_id: name for name, token_id in tokenizer.get_vocab().items()}
    changes = {before[token_id]: name for name, token_id in ids.items() if before[token_id] != name}
    built = built_names(tokenizer)
    named = {name: built.get(old, old) for old, name in changes.items()}
    named |= {name: old for name, old in built.items() if name not in changes}
    settings = [name for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS) if (folder / name).exists()]
    with rewriting(folder, TOKENIZER_FILE, TOKENIZER_CONFIG, SPECIAL_TOKENS, CHAT_TEMPLATE):
        for name in settings:  # before the tokenizer: names of the record that are no tokens yet say nothing
            content = rename_texts(read_json(folder / name), changes)
            write_json(folder / name, content | {NAMED: named} if name == TOKENIZER_CONFIG else content)
        if TOKENIZER_CONFIG not in settings:
            write_json(folder / TOKENIZER_CONFIG, {NAMED: named})
        rename_tokens(state, changes)
        write_text(folder / TOKENIZER_FILE, Tokenizer.from_str(json.dumps(state)).to_str(pretty=True))
        if chat:
            write_text(folder / CHAT_TEMPLATE, chat_template())
    return ids


def parse_name(text: str) -> tuple[str, int | None]:
    """``NAME`` or ``NAME=ID``.

    >>> parse_name("<|plan|>=4090")
    ('<|plan|>', 4090)
    """
    name, _, number = text.rpartition("=")
    return (name, int(number)) if name and number.isascii() and number.isdecimal() else (text, None)


def check_chat(folder: Path, tokenizer: Any) -> None:
    """Raise ``FrozenGlyphError`` where the chat template cannot be put beside ``tokenizer``."""
    if tokenizer.chat_template not in (None, chat_template()):
        raise FrozenGlyphError(
            f"{str(folder)!r} has a chat template of its own; name what it needs, or take it away first"
        )
    if tokenizer.eos_token is None:
        raise FrozenGlyphError(f"the tokenizer in {str(folder)!r} has no eos_token, which ends the turns of a chat")


def choose_ids(tokenizer: Any, wanted: Mapping[str, int | None]) -> dict[str, int]:
    """The id of each name of ``wanted``; see ``name_tokens`` for the errors."""
    ids: dict[str, int] = tokenizer.get_vocab()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {token["id"]: token["content"] for token in state["added_tokens"] if token["special"]}
    used = {token for token in tokenizer.special_tokens_map.values() if isinstance(token, str)}
    elsewhere = f"{state['post_processor']} {tokenizer.chat_template}"
    open_ids = {i: name for i, name in special.items() if name not in used and name not in elsewhere}
    free = sorted(i for i, name in open_ids.items() if FREE.fullmatch(name) and i not in wanted.values())
    chosen: dict[str, int] = {}
    for name, token_id in wanted.items():
        if name in ids and token_id in (None, ids[name]) and ids[name] in special:
            chosen[name] = ids[name]
            continue
        if not ALLOWED.fullmatch(name) or FREE.fullmatch(name):
            raise FrozenGlyphError(
                f"name {name!r} is not allowed: give one word in brackets, such as '<|observation|>', of at most 64 "
                "characters, and not that of a reserved id"
            )
        if name in ids:
            raise FrozenGlyphError(f"name {name!r} is token {ids[name]} already; give another name")
        if token_id is None:
            if not free:
                raise FrozenGlyphError(
                    f"no reserved id is left for {name!r}; a frozen table cannot grow, so build a vocabulary with more "
                    "(`substrate build --reserved`)"
                )
            token_id = free.pop(0)
        if token_id not in open_ids or token_id in chosen.values():
            left = f"{free[0]} to {free[-1]}" if free else "none"
            raise FrozenGlyphError(f"id {token_id} is not free for {name!r}; reserved ids that are: {left}")
        chosen[name] = token_id
    return chosen


def rename_texts(content: Any, names: Mapping[str, str]) -> Any:
    """Plain data with the texts that are a name of ``names`` renamed, wherever they stand; keys stay."""
    if isinstance(content, dict):
        return {key: rename_texts(value, names) for key, value in content.items()}
    if isinstance(content, list):
        return [rename_texts(value, names) for value in content]
    return names.get(content, content) if isinstance(content, str) else content

"""What each source gave to the packed tokens, beside the share that was asked of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import read_json
from frozen_glyph.checkpoint.records import CorpusRecord
from frozen_glyph.training.recipe import DataRecipe, SourceRecipe

MISSED = 0.1  # of the share that was asked: a source that is further from it is told of


@dataclass
class Tally:
    """Tokens that were packed, by source; ``ended``: the source whose end left others with text that is not read."""

    tokens: list[int] = field(default_factory=list)
    ended: int | None = None


def tally_file(tokens: Path) -> Path:
    """Where the tally of a file of packed tokens lies."""
    return tokens.with_suffix(".json")


def corpus_record(data: DataRecipe, tokens: Path) -> CorpusRecord | None:
    """What provenance says of packed tokens; None when an earlier version packed them, which counted nothing."""
    if not tally_file(tokens).exists():
        return None
    tally: dict[str, Any] = read_json(tally_file(tokens))
    total, asked = sum(tally["tokens"]), sum(source.weight or 0 for source in data.sources)
    sources: list[dict[str, Any]] = [
        {"name": name_of(source), "tokens": count, "share": round(count / max(total, 1), 4)}
        | ({"asked": round(source.weight / asked, 4)} if source.weight else {})
        for source, count in zip(data.sources, tally["tokens"], strict=True)
    ]
    record: CorpusRecord = {"tokens": total, "normalized": data.normalize, "sources": sources}
    if tally["ended"] is not None:
        record["ended"] = name_of(data.sources[tally["ended"]])
    return record


def name_of(source: SourceRecipe) -> str:
    return source.dataset or ", ".join(Path(name).name for name in source.files or [])


def mixture_warning(record: CorpusRecord, asked_tokens: int | None) -> str | None:
    """What a weighted mixture of sources came to, if it ended early or a share is not what was asked."""
    missed = any(
        "asked" in source and abs(source["share"] - source["asked"]) > MISSED * source["asked"]
        for source in record["sources"]
    )
    if not missed and "ended" not in record:
        return None
    shares = "; ".join(
        f"{source['name']!r} {source['tokens']:,} tokens, {source['share']:.1%} (asked {source['asked']:.1%})"
        for source in record["sources"]
    )
    wanted = f" of {asked_tokens:,}" if asked_tokens is not None else ""
    early = (
        f" It ended with {record['ended']!r}, and what the other sources have beyond that is not read: give that "
        "source more text or a smaller weight."
        if "ended" in record
        else " A document is never divided, so that long ones miss a ratio: divide them, or pack more tokens."
    )
    return f"the mixture has {record['tokens']:,}{wanted} tokens: {shares}.{early}"

"""Which checkpoint a word means, and its files: in a folder, or on the Hub, of which only what is needed is fetched.

A word is ``NAME``, ``NAME@STAGE`` or, where experts are merged, ``NAME[@STAGE]+ADAPTER``. The Hub's library, which is
slow to import, is imported when it is needed.

The user's words are followed anywhere. What a file says instead, such as the ``base_model_name_or_path`` of an adapter,
may come from a stranger and would put the contents of any folder into what is written: it is a word too, but leads only
to the Hub, to the folder that the file lies in or the one above, and to folders that the user named beside it.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.files import CheckpointError, inside, read_header, read_json
from frozen_glyph.checkpoint.header import TensorFile
from frozen_glyph.checkpoint.reach import HUB_ID, is_reached, unreached
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.formats import FormatError


@dataclass(frozen=True)
class Source:
    """A checkpoint by name.

    Args:
        source: a folder or Hub id.
        stage: its growth stage, from 1; None: what a plain load gives.
        adapter: a PEFT folder or Hub id with a LoRA adapter of that stage.
        revision: of the Hub.

    Raises:
        FrozenGlyphError: a name is empty, or the stage is not above 0.
    """

    source: str
    stage: int | None = None
    adapter: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        if not self.source or self.adapter == "":
            raise FrozenGlyphError(f"{str(self)!r} has an empty name; give a folder or Hub id, as in runs/ru@2")
        if self.stage is not None and self.stage < 1:
            raise FrozenGlyphError(f"{str(self)!r}: growth stage {self.stage} must be a number from 1 on")

    @classmethod
    def parse(cls, word: "str | Path | Source", folder: Path = Path(), adapters: bool = False) -> "Source":
        """Read a word, whose names are relative to ``folder``; what was parsed already is given back.

        Names that hold an ``@`` or ``+`` themselves are found where they exist. ``adapters``: one may be named.

        >>> Source.parse("runs/ru@2")
        Source(source='runs/ru', stage=2, adapter=None, revision=None)

        Raises:
            FrozenGlyphError: behind an @ stands no number above 0, a name is empty, or an adapter is not allowed.
        """
        if isinstance(word, Source):
            return word
        word = str(word)
        readings = list(split(word))
        name, stage, adapter = next((r for r in readings if there(folder, *r)), readings[-1])
        if stage is not None and not (stage.isdecimal() and int(stage)):
            raise FrozenGlyphError(f"{word!r}: growth stage {stage!r} must be a number from 1 on, as in runs/ru@2")
        if adapter is not None and not adapters:
            raise FrozenGlyphError(f"{word!r}: only experts of a merge can have an adapter; leave +{adapter} out")
        return cls(name, None if stage is None else int(stage), adapter)

    def __str__(self) -> str:
        stage = "" if self.stage is None else f"@{self.stage}"
        return f"{self.source}{stage}" + ("" if self.adapter is None else f"+{self.adapter}")

    @property
    def folder(self) -> Path | None:
        """The folder; None of a Hub id."""
        return Path(self.source) if Path(self.source).is_dir() else None

    @property
    def name(self) -> str:
        """What the checkpoint is called: the folder's own name, or the Hub id."""
        return self.source if self.folder is None else self.folder.resolve().name

    @property
    def origin(self) -> dict[str, Any]:
        """What is recorded of where it was: its name, and of the Hub the revision."""
        return {"name": self.name, **({} if self.folder is not None else {"revision": self.revision})}

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``from_pretrained`` takes beside the folder."""
        return {} if self.stage is None else {"growth_stage": self.stage}

    def fetch(self, what: str, names: Iterable[str]) -> Path:
        """The folder, or that of the cache after the files ``names`` (patterns) were fetched from the Hub.

        The cache's folder has the name of the commit. ``what`` the checkpoint is, such as ``parent``, is for the error.

        Raises:
            CheckpointError: the name is no folder and cannot be fetched.
        """
        if self.folder is not None:
            return self.folder
        options = self.hub_options(what)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.source, allow_patterns=list(names), **options))
        except (OSError, ValueError) as error:
            raise unreached(what, self.source, str(error)) from error

    def hub_options(self, what: str = "checkpoint") -> dict[str, Any]:
        """How to ask the Hub's library for files; what the Hub would have to be reached for comes from the cache."""
        return {"revision": self.revision, "local_files_only": not is_reached(what, self.source)}

    def at(self, fetched: Path) -> "Source":
        """The same at the commit that ``fetch`` found, so that files fetched one after the other belong together."""
        return self if self.folder is not None else dataclasses.replace(self, revision=fetched.name)

    def holds(self, name: str) -> bool:
        """Whether there is such a file, which is not fetched."""
        if self.folder is not None:
            return (self.folder / name).is_file()
        options = self.hub_options()
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            hf_hub_download(self.source, name, dry_run=True, **options)
        except EntryNotFoundError:  # without a network: not among what was fetched
            return False
        return True

    def json(self, name: str) -> Any:
        """Content of a JSON file; None when there is no such file."""
        if self.folder is not None:
            return read_json(inside(self.folder, name)) if (self.folder / name).exists() else None
        options = self.hub_options()
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return read_json(Path(hf_hub_download(self.source, name, **options)))
        except EntryNotFoundError:
            return None

    def header(self, shard: str) -> TensorFile:
        """Header of a shard, which is not fetched; ``CheckpointError`` when it is missing or damaged."""
        if self.folder is not None:
            return read_header(inside(self.folder, shard))
        from huggingface_hub import parse_safetensors_file_metadata
        from huggingface_hub.errors import EntryNotFoundError, SafetensorsParsingError

        try:
            found = parse_safetensors_file_metadata(self.source, shard, revision=self.revision)
        except EntryNotFoundError:
            raise CheckpointError(f"{shard!r} is missing in {self.source!r}") from None
        except (SafetensorsParsingError, TypeError, LookupError, AttributeError) as error:
            raise CheckpointError(f"{shard!r} of {self.source!r} cannot be read: {error}") from None
        entries = {
            name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": list(tensor.data_offsets)}
            for name, tensor in found.tensors.items()
        }
        try:
            return TensorFile.from_header({**entries, "__metadata__": found.metadata}, 0)
        except FormatError as error:
            raise CheckpointError(f"{shard!r} of {self.source!r} cannot be read: {error}") from None


def told_source(word: str, file: Path, named: Collection[Path] = ()) -> Source:
    """The checkpoint that ``file`` names: of the Hub, around the file, or of the folders ``named`` by the user.

    Raises:
        CheckpointError: it names a folder elsewhere, or no checkpoint.
    """
    try:
        source = Source.parse(word)
    except FrozenGlyphError as error:
        raise CheckpointError(f"{str(file)!r} names no checkpoint as its base: {error}") from None
    allowed = {*file.resolve().parents[:2], *(folder.resolve() for folder in named)}
    if (source.folder is None and HUB_ID.fullmatch(source.source)) or Path(source.source).resolve() in allowed:
        return source
    raise CheckpointError(
        f"{str(file)!r} names as its base {word!r}, which is no Hub id and no folder around it; a file is not followed "
        f"elsewhere: say it yourself, as {word}+{file.parent}"
    )


def split(word: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Every name, stage and adapter that ``word`` may mean, the longest name first; last what it means by itself."""
    for place in [len(word), *(place for place in reversed(range(len(word))) if word[place] == "+")]:
        base, adapter = word[:place], word[place + 1 :] if place < len(word) else None
        yield base, None, adapter
        if "@" in base:
            name, _, stage = base.rpartition("@")
            yield name, stage, adapter


def there(folder: Path, name: str, stage: str | None, adapter: str | None) -> bool:
    """Whether a reading names something that exists in ``folder``."""
    return name != "" and (stage is None or stage.isdecimal()) and (folder / name).exists()

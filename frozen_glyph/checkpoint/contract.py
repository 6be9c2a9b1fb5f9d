"""What a checkpoint folder holds: the name of every file, who writes it, who copies it, what goes to the Hub.

Lists of what is copied, pushed or removed are read off ``PLAN``. Nothing here imports torch. The model room, which
travels alone, has its own copy of what it needs; tests compare the two.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CONFIG_FILE, GENERATION_FILE = "config.json", "generation_config.json"
CARD_FILE, PROVENANCE_FILE = "README.md", "provenance.json"
TOKENIZER_FILE, SUBSTRATE_FILE = "tokenizer.json", "substrate.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
CHAT_TEMPLATE, CHAT_TEMPLATES = "chat_template.jinja", "additional_chat_templates/*.jinja"
CODE_FILES = "*_frozen_glyph*.py"  # the model room, for machines that load with trust_remote_code
FETCHED_FIRST = ("*.json", "*.jinja", CARD_FILE)  # from a repository of the Hub: all that is small
WEIGHTS, DEFAULT_INDEX = "model.safetensors", "model.safetensors.index.json"  # of the deepest stage
SUBSTRATE_SHARD, TRUNK_SHARD, HEAD_SHARD = "substrate.safetensors", "trunk.safetensors", "head.safetensors"
STAGE_INDEX, HEAD_OF_STAGE = "stage-{stage}.safetensors.index.json", "head-{stage}.safetensors"
BLOCKS, BLOCKS_OF_STAGE = "blocks-{group}.safetensors", "blocks-{group}.stage-{stage}.safetensors"
EXPERT_SHARD = "expert-{index}.safetensors"
METRICS = {"blocks": "metrics-{stage}.jsonl", "lora": "metrics-{stage}-lora.jsonl"}  # by phase of a stage
GROWTH_PICTURE, GROWTH_PAGE, TUNING_METRICS = "growth.png", "growth.html", "metrics.jsonl"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # names that peft reads
ADAPTER_FOLDER = "lora"  # in an extracted expert's folder; a run has one for each stage
CONTROL = "{name}-control"  # beside a run's folder: the run that it is held against
WORK_FOLDER = ".work"  # in the folder of a run: packed tokens and checkpoints of the stage that trains


def control_folder(folder: Path) -> Path:
    """Where the control of the run in ``folder`` lies."""
    return folder.resolve().with_name(CONTROL.format(name=folder.resolve().name))


def stage_index(stage: int) -> str:
    """File name of the index of a growth stage."""
    return STAGE_INDEX.format(stage=stage)


def blocks_shard(group: int, stage: int) -> str:
    """File name of the blocks that stage ``group`` added, as stage ``stage`` trained them."""
    return (BLOCKS if group == stage else BLOCKS_OF_STAGE).format(group=group, stage=stage)


def head_shard(stage: int) -> str:
    """File name of the final norm and head of a growth stage."""
    return HEAD_OF_STAGE.format(stage=stage)


def expert_shard(index: int) -> str:
    """File name of an expert's own blocks, final norm and adapters in a merged checkpoint."""
    return EXPERT_SHARD.format(index=index)


def metrics_file(stage: int, phase: str = "blocks") -> str:
    """File name of the losses of a growth stage, phase ``blocks`` or ``lora``."""
    return METRICS[phase].format(stage=stage)


def adapter_folder(stage: int) -> str:
    """Name of the folder of the adapters that a growth stage keeps."""
    return f"{ADAPTER_FOLDER}-{stage}"


def pattern(name: str) -> re.Pattern[str]:
    """What matches the names that a ``name`` with places gives: a number for ``{stage}`` and the like, a group each.

    >>> pattern("head-{stage}.safetensors").fullmatch("head-12.safetensors")[1]
    '12'
    """
    parts = (r"[\w-]*".join(map(re.escape, part.split("*"))) for part in re.split(r"{\w+}", name))
    return re.compile(r"(\d+)".join(parts))


@dataclass(frozen=True)
class Entry:
    """A file of a checkpoint folder. In its ``name`` ``{stage}`` and the like stand for a number, ``*`` for a word.

    ``written`` are the verbs that make it, ``copied`` those that take it over by name from the folder they read, which
    ``continue``, a run that goes on from a parent, does too; shards are linked, as the indexes name them. ``save`` is
    ``save_pretrained``; where no verb is, the user writes it. ``pushed``: ``required``, a folder without it is refused;
    ``optional``, where it is there; ``named``, where an index or the provenance names it. ``hashed``: the provenance
    records its sha256 among those of shards and adapters, of others as of companions. ``ours``: nobody else gives such
    a name, and a push removes what the folder holds no longer.
    """

    name: str
    written: str
    copied: str = ""
    pushed: Literal["required", "optional", "named", "never"] = "never"
    hashed: bool = False
    ours: bool = False

    @property
    def glob(self) -> str:
        """What finds it in a folder; a word may be anything here."""
        return re.sub(r"{\w+}", "*", self.name)


EVERY = "grow import merge extract tune dense save"
PLAN = (
    Entry(CONFIG_FILE, EVERY, "", "required"),
    Entry(CARD_FILE, EVERY, "continue", "required"),
    Entry(TOKENIZER_FILE, "grow import dense", "continue merge extract tune save", "required"),
    Entry(TOKENIZER_CONFIG, "grow import dense", "continue merge extract tune save", "optional"),
    Entry(SPECIAL_TOKENS, "grow import dense", "continue merge extract tune save", "optional"),
    Entry(CHAT_TEMPLATE, "grow import dense", "continue merge extract tune save", "optional"),
    Entry(CHAT_TEMPLATES, "grow import dense", "continue merge extract tune save", "optional"),
    Entry(CODE_FILES, EVERY, "", "required", ours=True),
    Entry(SUBSTRATE_FILE, "grow import", "continue merge extract tune dense save", "optional"),
    Entry(GENERATION_FILE, "grow import dense save", "continue merge extract tune", "optional"),
    Entry(PROVENANCE_FILE, "grow import merge extract tune dense", "", "optional"),
    Entry(SUBSTRATE_SHARD, "grow import merge extract tune", "", "named", hashed=True, ours=True),
    Entry(BLOCKS, "grow import extract", "", "named", hashed=True, ours=True),
    Entry(BLOCKS_OF_STAGE, "grow", "", "named", hashed=True, ours=True),
    Entry(HEAD_OF_STAGE, "grow import", "", "named", hashed=True, ours=True),
    Entry(HEAD_SHARD, "merge extract tune", "", "named", hashed=True, ours=True),
    Entry(TRUNK_SHARD, "merge tune", "", "named", hashed=True, ours=True),
    Entry(EXPERT_SHARD, "merge tune", "", "named", hashed=True, ours=True),
    Entry(WEIGHTS, "dense save", "", "named", hashed=True, ours=True),
    Entry("model-{shard}-of-{shards}.safetensors", "dense save", "", "named", hashed=True, ours=True),
    Entry(DEFAULT_INDEX, EVERY, "", "named", ours=True),
    Entry(STAGE_INDEX, "grow import", "continue", "named", ours=True),
    Entry(METRICS["blocks"], "grow", "continue", "optional", ours=True),
    Entry(METRICS["lora"], "grow", "", "optional", ours=True),
    Entry(GROWTH_PICTURE, "grow", "", "optional"),
    Entry(GROWTH_PAGE, "grow", "", "optional"),
    Entry(TUNING_METRICS, "tune"),
    Entry(f"{ADAPTER_FOLDER}-{{stage}}/{ADAPTER_CONFIG}", "grow", "", "named", hashed=True, ours=True),
    Entry(f"{ADAPTER_FOLDER}-{{stage}}/{ADAPTER_WEIGHTS}", "grow", "", "named", hashed=True, ours=True),
    Entry(f"{ADAPTER_FOLDER}/{ADAPTER_CONFIG}", "extract", "", "named", hashed=True),
    Entry(f"{ADAPTER_FOLDER}/{ADAPTER_WEIGHTS}", "extract", "", "named", hashed=True),
    Entry("*.yaml", "", "", "optional"),
    Entry("LICENSE*", "", "", "optional"),
)


def copied_by(verb: str, stages: int = 0) -> list[str]:
    """Names of the files that ``verb`` takes over from the folder that it reads, and of these ``stages`` if any."""
    names = [entry.name for entry in PLAN if verb in entry.copied.split()]
    numbers = range(1, stages + 1)
    return [name.format(stage=n) for name in names for n in (numbers if "{stage}" in name else [0])]


def is_written(path: str) -> bool:
    """Whether a command of this package gives a file of a checkpoint folder this name."""
    return any(entry.written and pattern(entry.name).fullmatch(path) for entry in PLAN)


def is_companion(path: str) -> bool:
    """Whether a file of this name lies beside the shards, and the provenance records its sha256 apart from theirs.

    The card is for people, who edit it, and whose usage a push rewrites.
    """
    names = (entry.name for entry in PLAN if entry.written and not entry.hashed)
    return any(pattern(name).fullmatch(path) for name in names if name not in (CARD_FILE, PROVENANCE_FILE))


def is_read(path: str) -> bool:
    """Whether the companion ``path`` decides what a folder means to commands that go on from it.

    Code, losses and pictures do not; a generation config and chat templates only go along, and people change them.
    """
    unread = (
        CODE_FILES,
        *METRICS.values(),
        TUNING_METRICS,
        GROWTH_PICTURE,
        GROWTH_PAGE,
        GENERATION_FILE,
        CHAT_TEMPLATE,
        CHAT_TEMPLATES,
    )
    return not any(pattern(name).fullmatch(path) for name in unread)


def is_ours(path: str) -> bool:
    """Whether nobody but this package, or ``save_pretrained`` of its models, gives a file this name."""
    return any(entry.ours and pattern(entry.name).fullmatch(path) for entry in PLAN)

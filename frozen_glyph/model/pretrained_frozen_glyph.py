"""Loading that is strict: a missing, damaged or foreign tensor is an error that names the file, never a random layer.

It also knows growth stages, checks the substrate, freezes again what files do not remember to be frozen, and takes the
tokenizer's files along when a model is saved.
"""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import cached_file

from .embedding_frozen_glyph import FrozenGlyphEmbedding
from .verification_frozen_glyph import changed_files
from .weights_frozen_glyph import (
    INDEX,
    INDEX_SUFFIX,
    SAVED_SHARD,
    WEIGHTS,
    check_name,
    choose_weights,
    find_inside,
    shard_names,
    stage_index,
)

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "embedding_size", "substrate_bits")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "additional_chat_templates/*.jinja", "substrate.json",
)  # fmt: skip
CODE_FILES, LAST_CODE = "*_frozen_glyph*.py", "tasks_frozen_glyph.py"  # LAST_CODE imports all others
HEADS = ("lm_head", "score", "qa_outputs")  # modules of which a model has one or none


class StrictPreTrainedModel(PreTrainedModel):
    """What ``from_pretrained`` and ``save_pretrained`` of every model here do beyond transformers' own.

    ``new_head`` is the module that a checkpoint of another task need not hold, ``pipeline_tag`` what the Hub files a
    saved model under.
    """

    new_head: str | None = None
    pipeline_tag = "feature-extraction"

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        growth_stage: int | str | None = None,
        verify: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """``PreTrainedModel.from_pretrained``, strictly, with ``growth_stage=k`` for the model after stage k.

        The substrate is always checked against its fingerprint. ``verify=True`` reads every byte of the weights and
        compares their sha256 with what was recorded when they were written: from the page cache 0.3 seconds of
        processor time for 0.5 GB, several times what mapping the files takes. ``ignore_mismatched_sizes`` makes a new
        head of a task model where the checkpoint's is of another number of labels.

        Raises:
            ValueError: no such stage; a file is damaged or of another checkpoint, or its name or link leads out of
                the folder, which is found before it is opened; a tensor is missing, superfluous or of the wrong shape;
                the substrate's bits are not those of the fingerprint in the configuration. The message names the file.
            OSError: a file is missing.
        """
        source = pretrained_model_name_or_path
        if growth_stage is not None:
            kwargs |= cls.stage_arguments(source, growth_stage, kwargs)
        kwargs["use_safetensors"] = True  # never a pickle
        other_labels = kwargs.get("ignore_mismatched_sizes", False)
        kwargs["ignore_mismatched_sizes"] = True  # they are refused below, by name
        first = cls.first_file(source, kwargs)
        if source is not None:
            check_names(source, first, kwargs)
            cls.check_sizes(source, first, kwargs)
        try:
            loaded: Any = super().from_pretrained(source, *model_args, output_loading_info=True, **kwargs)
        except (SafetensorError, json.JSONDecodeError) as error:
            damaged = [f"{name} {complaint}" for name, complaint in examine_shards(source, first, kwargs)[1].items()]
            raise ValueError(
                f"checkpoint {str(source)!r} is damaged: {'; '.join(damaged) or error}; fetch or write it again"
            ) from error
        model, info = loaded
        owners, complaints = ({}, {}) if source is None else examine_shards(source, first, kwargs)
        if verify and not complaints:
            complaints = changed_files(sorted(set(owners.values())), lambda name: find_file(source, name, kwargs))
        problems = [f"{name} {complaint}" for name, complaint in complaints.items()]
        for kind, keys in misfits(model, info, owners, other_labels).items():
            if keys:
                files = (owners.get(key) or owners.get(f"{cls.base_model_prefix}.{key}") for key in keys[:5])
                named = (f"{key} ({file})" if file else key for key, file in zip(keys, files, strict=False))
                problems.append(f"{kind}: {', '.join(named)}")
        if problems:
            raise ValueError(
                f"checkpoint {str(source)!r} does not fit {cls.__name__}: {'; '.join(problems)}. "
                "The folder is incomplete or was written for another configuration; fetch or write it again"
            )
        model.check_substrate(owners.get("model.embed_tokens.packed_bits", "the weights"))
        model.apply_freezing()
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """``PreTrainedModel.save_pretrained``; the tokenizer's files go along where the model's folder has them, and a
        card where there is none. What was loaded from the Hub has a tokenizer at hand once that was loaded too.

        Raises:
            ValueError: the folder holds a grown or merged checkpoint, whose shards would be left beside the new ones;
                the substrate has no bits.
        """
        folder, weights = Path(save_directory), not getattr(self, "_hf_peft_config_loaded", False)
        if weights:
            if isinstance(self.substrate, FrozenGlyphEmbedding):
                self.substrate.check_bits()
            check_overwritable(folder)
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            if weights:
                remove_replaced(folder)
            carry_companions(self.name_or_path, folder)
            carry_code(self.name_or_path, folder)
            write_simple_card(folder, self.pipeline_tag)

    @classmethod
    def given_config(cls, source: Any, kwargs: dict[str, Any]) -> Any:
        """The configuration among the arguments of ``from_pretrained``, or that of the checkpoint."""
        config = kwargs.get("config") or source
        if hasattr(config, "model_type"):
            return config
        config_class: Any = cls.config_class
        return config_class.from_pretrained(config, **{name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs})

    @classmethod
    def check_sizes(cls, source: Any, first: str | None, kwargs: dict[str, Any]) -> None:
        """Raise ``ValueError`` where the configuration asks for more than the weight files hold: nothing was made then.

        ``first`` is as in ``first_file``. Files that are still to be fetched are not looked at.
        """
        shapes = stored_shapes(source, first, kwargs)
        if not shapes:
            return
        config = cls.given_config(source, kwargs)
        longest = max(size for shape in shapes for size in (*shape, 1))
        asked = {name: kwargs.get(name, getattr(config, name, None)) for name in SIZES}
        allowed = {name: 8 * longest if name == "substrate_bits" else longest for name in SIZES}
        asked["num_hidden_layers"] = kwargs.get("num_hidden_layers", config.num_hidden_layers)
        allowed["num_hidden_layers"] = len(shapes) + getattr(config, "first_own_layer", 0) + 1  # of a cache, if merged
        for name, size in asked.items():
            if isinstance(size, int) and size > allowed[name]:
                raise ValueError(
                    f"checkpoint {str(source)!r} does not fit {cls.__name__}: {name}={size}, but its {len(shapes)} "
                    f"tensors are at most {longest} long. The folder is incomplete or was written for another "
                    "configuration; fetch or write it again"
                )

    @classmethod
    def first_file(cls, source: Any, kwargs: dict[str, Any]) -> str | None:
        """The file that a load is told to begin with; ``kwargs`` are the arguments of ``from_pretrained``."""
        if source is None:  # from_pretrained(None, config=..., state_dict=...)
            return None
        return kwargs.get("transformers_weights") or getattr(
            cls.given_config(source, kwargs), "transformers_weights", None
        )

    @classmethod
    def stage_arguments(cls, source: Any, growth_stage: int | str, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of ``from_pretrained`` that select ``growth_stage``; nothing given is changed."""
        try:
            stage = int(str(growth_stage))
        except ValueError:
            raise ValueError(f"growth_stage={growth_stage!r} must be the number of a stage, counted from 1") from None
        config = cls.given_config(source, kwargs)
        if not hasattr(config, "stage_layers"):
            raise ValueError(f"growth_stage={stage}: a {config.model_type!r} checkpoint has no growth stages")
        blocks, frozen = config.stage_layers(stage)
        # Auto classes have put num_frozen_layers=0, which thaws all blocks, into the configuration.
        frozen = kwargs.get("num_frozen_layers", frozen if config.num_frozen_layers else 0)
        fields = {"num_hidden_layers": blocks, "num_frozen_layers": frozen, "ladder": config.ladder[:stage]}
        if stage < len(config.ladder):
            fields["transformers_weights"] = stage_index(stage)
        if config is not kwargs.get("config"):
            return fields
        config = copy.deepcopy(config)
        for name, value in fields.items():
            setattr(config, name, value)
        return {"config": config}

    @property
    def substrate(self) -> nn.Module:
        """The token embedding: see ``make_substrate``."""
        return self.get_input_embeddings()

    def check_substrate(self, file: str = "the weights") -> None:
        """Raise ``ValueError`` unless the substrate, from ``file``, has the fingerprint in the configuration."""
        expected, substrate = self.config.substrate_fingerprint, self.substrate
        if expected is None or not isinstance(substrate, FrozenGlyphEmbedding) or substrate.packed_bits.is_meta:
            return
        found = substrate.fingerprint(self.config.tokenizer_sha256)
        if found != expected:
            raise ValueError(
                f"the substrate in {file} has fingerprint {found}, the configuration names {expected}: "
                "file damaged, or config.json and tokenizer of another model; fetch the checkpoint again"
            )

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that do not train."""
        return []

    def apply_freezing(self) -> None:
        """Stop the gradients of ``frozen_modules``; ``from_pretrained`` does this because files do not remember it."""
        for module in self.frozen_modules():
            module.requires_grad_(False)


def find_file(source: Any, name: str, arguments: dict[str, Any], fetch: bool = False) -> Path | None:
    """Path of a file in a folder, or of its copy in the cache if it was fetched from the Hub; None if it is not there.

    ``arguments`` are those of ``from_pretrained``; ``fetch`` fetches it now.
    """
    hub = {key: arguments[key] for key in HUB_ARGUMENTS if arguments.get(key) is not None}
    path = cached_file(
        source,
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **(hub if fetch else hub | {"local_files_only": True, "force_download": False}),
    )
    return None if path is None else Path(path)


def carry_companions(source: Any, folder: Path) -> None:
    """Copy the tokenizer's files and the substrate's description from ``source``, as far as they are at hand.

    Raises:
        ValueError: one of them is a link that leads out of ``source``.
    """
    config = find_file(source, "config.json", {}) if source else None
    if config is None:
        return
    for pattern in COMPANIONS:
        for path in sorted(config.parent.glob(pattern)):
            name = path.relative_to(config.parent).as_posix()
            if not (folder / name).exists():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(find_inside(config.parent, name), folder / name)


def check_overwritable(folder: Path) -> None:
    """Raise ``ValueError`` where ``save_pretrained`` would leave shards of another checkpoint, and what names them."""
    for index in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        try:
            shards = shard_names(json.loads(index.read_bytes()))
        except ValueError:
            shards = [index.name]
        if left := [shard for shard in shards if not SAVED_SHARD.fullmatch(shard)]:
            raise ValueError(
                f"{str(folder)!r} holds a checkpoint in parts, of which {index.name} and {left[0]} would stay beside "
                "what is saved and name another model; save into a new folder"
            )


def remove_replaced(folder: Path) -> None:
    """Leave one answer where a model was saved in one file over several, or the other way round.

    ``save_pretrained`` has removed the shards of the save before, but not an index or a file that held everything.
    """
    if (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        shards = shard_names(json.loads((folder / INDEX).read_bytes()))
        whole = all((folder / shard).exists() for shard in shards)
        (folder / (WEIGHTS if whole and WEIGHTS not in shards else INDEX)).unlink()


def carry_code(source: Any, folder: Path) -> None:
    """Copy the rest of the model room: ``save_pretrained`` takes along only what the class that is saved imports.

    It lies beside this file or, where that came with a checkpoint, in ``source``, as far as it is at hand.

    Raises:
        ValueError: one of the files is a link that leads out of ``source``.
    """
    room = Path(__file__).parent
    if not (room / LAST_CODE).exists():
        last = find_file(source, LAST_CODE, {}) if source else None
        if last is None:
            return
        room = last.parent
    for path in sorted(room.glob(CODE_FILES)):
        if not (folder / path.name).exists():
            shutil.copyfile(find_inside(room, path.name), folder / path.name)


def write_simple_card(folder: Path, pipeline_tag: str) -> None:
    """Write a model card that says only what the model is, unless there is one."""
    if not (folder / "README.md").exists():
        data = ModelCardData(library_name="transformers", pipeline_tag=pipeline_tag, tags=["frozen-glyph"])
        text = f"A model for {pipeline_tag} over a frozen glyph embedding, written by `save_pretrained`."
        ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {folder.resolve().name}\n\n{text}\n").save(folder / "README.md")


def misfits(model: Any, info: dict[str, Any], owners: dict[str, str], other_labels: bool) -> dict[str, list[str]]:
    """The tensors that keep a checkpoint from being ``model``, by what is wrong with them.

    A head that the model has not is that of another task. Its own ``new_head`` may be missing where the checkpoint is
    of another class and holds no part of it, and may have another shape where ``other_labels`` are asked for.

    Args:
        info: what transformers found at loading.
        owners: the file of each tensor of the checkpoint.
    """

    def head_of(key: str) -> str:
        return key.partition(".")[0]

    trained = type(model).__name__ in (model.config.architectures or [])
    new = None if trained or model.new_head in map(head_of, owners) else model.new_head
    return {
        "missing": sorted(key for key in info["missing_keys"] if head_of(key) != new),
        "unexpected": sorted(
            key for key in info["unexpected_keys"] if head_of(key) not in HEADS or hasattr(model, head_of(key))
        ),
        "mismatched": sorted(
            key for key, *_ in info["mismatched_keys"] if not (other_labels and head_of(key) == model.new_head)
        ),
    }


def check_names(source: Any, named: str | None, arguments: dict[str, Any]) -> None:
    """Raise ``ValueError`` where a name or link of the weights leads out of ``source``; nothing was opened then.

    See ``examine_shards`` for the arguments. An index that cannot be read is left to the loader.
    """
    local, folder = Path(source).is_dir(), Path(source) / (arguments.get("subfolder") or "")
    first = choose_weights(lambda name: (folder / name).is_file(), named) if local else named or INDEX
    check_name(first)
    if local:
        find_inside(folder, first)
    path = find_file(source, first, arguments, fetch=True) if first.endswith(INDEX_SUFFIX) else None
    if path is None:
        return
    try:
        index = json.loads(path.read_bytes())
    except ValueError:
        return
    try:
        for shard in shard_names(index):
            if local:  # the Hub's client keeps what it fetches in its cache
                find_inside(folder, shard)
    except ValueError as error:
        raise ValueError(f"checkpoint {str(source)!r} cannot be used, {first}: {error}; fetch it again") from None


def stored_shapes(source: Any, named: str | None, arguments: dict[str, Any]) -> list[list[int]]:
    """Shapes of all tensors of a checkpoint whose files are at hand, none where one cannot be read."""
    owners, complaints = examine_shards(source, named, arguments)
    shapes = []
    for shard in [] if complaints else sorted(set(owners.values())):
        with safe_open(find_file(source, shard, arguments), framework="pt") as file:
            shapes += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - not a mapping
    return shapes


def examine_shards(source: Any, named: str | None, arguments: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Read the headers of a checkpoint's weight files.

    ``named`` is what the configuration says, ``arguments`` are those of ``from_pretrained``.

    Returns:
        owners: the file that holds each tensor, or should hold it.
        complaints: file -> what is wrong with it.
    """
    owners: dict[str, str] = {}
    complaints: dict[str, str] = {}
    first = choose_weights(lambda name: find_file(source, name, arguments) is not None, named)
    shards, expected = [first], {}
    if first.endswith(INDEX_SUFFIX):
        path = find_file(source, first, arguments)
        if path is None:
            return {}, {first: "is missing"}
        try:
            index = json.loads(path.read_bytes())
            shards = shard_names(index)
        except ValueError as error:
            return {}, {first: f"cannot be read ({error})"}
        owners, expected = dict(index["weight_map"]), index.get("metadata", {}).get("content_sha256", {})
    for shard in shards:
        path = find_file(source, shard, arguments)
        if path is None:
            complaints[shard] = "is missing"
            continue
        try:
            with safe_open(path, framework="pt") as file:
                names, metadata = file.keys(), file.metadata() or {}
        except SafetensorError as error:
            complaints[shard] = f"cannot be read ({error})"
            continue
        owners |= dict.fromkeys(names, shard)
        if shard in expected and metadata.get("content_sha256") != expected[shard]:
            complaints[shard] = "is of another checkpoint or was changed"
    return owners, complaints


__all__ = ["StrictPreTrainedModel"]

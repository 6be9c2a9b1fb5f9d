"""The one way to transformers' Auto classes: no code of a folder runs, no pickle is opened, nobody is asked.

Without ``trust_remote_code=False`` transformers asks on the terminal whether to run what a folder brings, and without
safetensors it opens pickles.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from frozen_glyph.checkpoint.contract import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS,
    stage_index,
)
from frozen_glyph.checkpoint.files import CheckpointError, inside, read_json, read_weight_map
from frozen_glyph.checkpoint.reach import is_reached
from frozen_glyph.checkpoint.stored import read_config
from frozen_glyph.errors import FrozenGlyphError, one_line
from frozen_glyph.model.weights_frozen_glyph import INDEX_SUFFIX

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack")  # what weights were kept in before
FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model")  # of a repository: configuration, weights, tokenizer
LARGEST_ID = 2**24  # below which every id of a tokenizer lies; tokenizers keeps a place for each
CONVERT = (
    "a pickle can run code and is never opened; convert it where you trust it, by "
    "torch.load(FILE, weights_only=True) and safetensors.torch.save_file"
)


def load_tokenizer(source: str | Path, **options: Any) -> Any:
    """``AutoTokenizer.from_pretrained`` of a folder or Hub id.

    Raises:
        CheckpointError: it needs code of its own, or an id is so large that no memory holds a place for each; the name
            is no folder and cannot be fetched.
    """
    from transformers import AutoTokenizer

    if not Path(source).exists() and not is_reached("tokenizer", str(source)):
        options["local_files_only"] = True
    check_ids(source, recorded_ids(Path(source) / TOKENIZER_FILE))
    with readable("tokenizer", source):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    check_ids(source, tokenizer.get_vocab())
    return tokenizer


def recorded_ids(file: Path) -> dict[str, Any]:
    """Names and ids in a tokenizer.json, whose reader asks for memory by the largest; none without a file."""
    content = read_json(file) if file.is_file() else {}
    model = content.get("model") if isinstance(content, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    added = content.get("added_tokens") if isinstance(content, dict) else None
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    for entry in added if isinstance(added, list) else ():
        if isinstance(entry, dict):
            ids[str(entry.get("content"))] = entry.get("id")
    return ids


def check_ids(source: str | Path, ids: dict[str, Any]) -> None:
    """Raise where an id is so large that no memory holds a place for each; what is no id others refuse."""
    name, largest = max(
        ((name, number) for name, number in ids.items() if isinstance(number, int)),
        key=lambda entry: entry[1],
        default=("", 0),
    )
    if largest >= LARGEST_ID:
        raise CheckpointError(
            f"the tokenizer of {str(source)!r} gives {name!r} the id {largest}; ids must be below {LARGEST_ID:,}; "
            "fetch or write it again"
        )


def load_config(folder: Path) -> Any:
    """``AutoConfig.from_pretrained`` of a folder; ``CheckpointError`` where its model needs code of its own."""
    from transformers import AutoConfig

    with readable("model", folder):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def load_causal_lm(folder: str | Path, **options: Any) -> Any:
    """``AutoModelForCausalLM.from_pretrained`` of a folder; importing frozen_glyph has registered its classes.

    Raises:
        CheckpointError: the model needs code of its own, or its weights are pickles.
        ValueError, OSError: transformers cannot load it, as it says.
    """
    from transformers import AutoModelForCausalLM

    import frozen_glyph  # noqa: F401  registers the Auto classes

    check_loadable(Path(folder))
    with readable("model", folder):
        return AutoModelForCausalLM.from_pretrained(
            folder, **{"trust_remote_code": False, "use_safetensors": True, **options}
        )


def load_model(folder: Path, device: str | None = None, **overrides: Any) -> tuple[Any, Any]:
    """Return the model of a checkpoint folder, ready to be measured or to speak, and its tokenizer.

    Importing frozen_glyph registers its classes, so its checkpoints need no ``trust_remote_code`` here.

    Args:
        device: such as cuda:1; None takes cuda where there is one, else cpu.
        overrides: for ``from_pretrained``, such as ``rule="posterior"`` or ``growth_stage=2``.

    Raises:
        FrozenGlyphError: there is no such device.
    """
    import torch

    from frozen_glyph.model.embedding_frozen_glyph import FrozenGlyphEmbedding

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FrozenGlyphError(
            f"device {device!r} cannot be used ({reason}); give cpu, cuda or such as cuda:1"
        ) from None
    # Straight to the device where accelerate is there, else by way of memory.
    placed = {"device_map": {"": device}} if find_spec("accelerate") else {}
    model = load_causal_lm(folder, dtype="auto", **placed, **overrides).eval()
    model = model if placed else model.to(device)
    for module in model.modules():
        if isinstance(module, FrozenGlyphEmbedding):
            module.materialize()  # looked up from now on, as in any other model: the same vectors
    return model, load_tokenizer(folder)


def stages_there(folder: Path, config: Any) -> int:
    """How many growth stages the folder holds: 0 of what ``save_pretrained`` wrote, though it keeps its ladder."""
    deepest = len(getattr(config, "ladder", None) or [])
    return deepest if any((folder / stage_index(number)).is_file() for number in range(1, deepest + 1)) else 0


@contextmanager
def readable(what: str, source: str | Path) -> Iterator[None]:
    """Make one line that names ``source`` of whatever transformers and what is below it raise of a damaged file.

    Raises:
        CheckpointError: instead of any error but one line of a ValueError or OSError that names ``source``, a missing
            library and a lack of memory.
    """
    try:
        yield
    except (FrozenGlyphError, ImportError, MemoryError):
        raise
    except BaseException as error:
        name, said = type(error).__name__, str(error)
        panic = name == "PanicException"  # of Rust, which is no Exception
        if (not isinstance(error, Exception) and not panic) or name == "OutOfMemoryError":
            raise
        if "trust_remote_code" in said:
            raise CheckpointError(
                f"the {what} of {str(source)!r} loads only with code that lies beside it, and no such code is run; "
                "name one of a kind that transformers or frozen_glyph knows"
            ) from None
        if type(error) in (ValueError, OSError) and said == one_line(said) and str(source) in said:
            raise
        raise CheckpointError(
            f"the {what} of {str(source)!r} cannot be loaded: {said or name}; fetch or write it again"
        ) from error


def check_loadable(folder: Path) -> None:
    """Raise ``CheckpointError``, which names the file, where a load of ``folder`` as a language model opens a pickle or
    another model, or its ``config.json`` is damaged, of a model for another task or alone."""
    if (folder / CONFIG_FILE).exists():
        read_config(folder)
    for index in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        read_weight_map(index)  # refuses one that names anything but safetensors
    refuse_pickles(folder)
    weights = any(path.name.endswith((WEIGHTS, INDEX_SUFFIX)) for path in folder.glob("*"))
    if (folder / CONFIG_FILE).exists() and not weights:
        raise CheckpointError(f"{str(folder)!r} holds a configuration without weights; fetch or write {WEIGHTS} again")
    if (folder / ADAPTER_CONFIG).exists():
        adapter = read_json(inside(folder, ADAPTER_CONFIG))
        base = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
        if not isinstance(base, str) or Path(base).resolve() != folder.resolve():
            raise CheckpointError(
                f"{str(folder / ADAPTER_CONFIG)!r} lies beside a model: transformers would load {base!r}, its base, in "
                "place of this one; move the adapter into a folder of its own"
            )


def refuse_pickles(folder: Path) -> None:
    """Raise ``CheckpointError``, which names the file, where pickles lie in place of weights or of an adapter."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    pickles = [name for name in names if name.endswith(PICKLES)]
    adapters = [name for name in pickles if name.startswith("adapter_model")]
    weights = [name for name in pickles if name not in adapters]
    for needed, safe, instead in (
        (CONFIG_FILE, (WEIGHTS, INDEX_SUFFIX), weights),
        (ADAPTER_CONFIG, (ADAPTER_WEIGHTS,), adapters),
    ):
        if needed in names and instead and not any(name.endswith(safe) for name in names):
            raise CheckpointError(f"{str(folder / instead[0])!r} lies there without safetensors: {CONVERT}")

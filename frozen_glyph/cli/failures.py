"""What is said of a command that failed: one line; a fault of this package shows where it happened instead."""

import errno
from typing import Any

from frozen_glyph.errors import lacking_memory

# Libraries whose errors are no ValueError; of Rust even a panic, which is no Exception.
FOREIGN = {"huggingface_hub", "pyarrow", "pydantic_core", "pyo3_runtime", "safetensors", "sqlite3", "tokenizers"}

LESS_MEMORY = "a smaller --batch-size, a shorter context or text, a model in bfloat16 or another --device needs less"

EXTRAS = {"gradio": "app", "gguf": "gguf", "torchao": "quant", "bitsandbytes": "quant"}  # that [all] does not bring

PATHS = {
    errno.ENOENT: "does not exist; check the path",
    errno.ENOTDIR: "leads through a file, where a folder belongs; check the path",
    errno.EEXIST: "is there already, as another kind of file; choose another path",
    errno.EISDIR: "is a folder; give the path of a file",
    errno.EACCES: "may not be read or written by you; change its rights, or choose another place",
    errno.EPERM: "may not be read or written by you; change its rights, or choose another place",
    errno.EROFS: "is on a file system that cannot be written to; choose another place",
    errno.ENAMETOOLONG: "is too long a name; choose a shorter one",
}
SYSTEM = {
    errno.ENOSPC: "no space is left on the device; free some, or write elsewhere",
    errno.EDQUOT: "your quota of the disk is used up; free some, or write elsewhere",
    errno.EMFILE: "too many files are open; raise the limit, as with `ulimit -n 4096`",
}


def told(error: BaseException) -> str | None:
    """What the user can mend, what a library says of its input, what the system lacks; None of a fault of our own."""
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0], "all")
        return f'{error}; install what the command needs with pip install "frozen-glyph[{extra}]"'
    if hasattr(error, "format_message"):
        return wrong_usage(error)
    if (said := lacking_memory(error)) is not None:
        return f"out of memory ({said}); {LESS_MEMORY}"
    if isinstance(error.__cause__, EOFError):  # click makes an end of the input of it
        return f"a file, or the input, ends too soon: {error.__cause__}".removesuffix(": ")
    if isinstance(error, OSError):
        return system_error(error)
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, ValueError | RecursionError) or library in FOREIGN:
        return str(error) or type(error).__name__
    return None


def system_error(error: OSError) -> str:
    """What the operating system refused, with the path and what to do.

    >>> system_error(FileNotFoundError(errno.ENOENT, "No such file or directory", "runs/ru"))
    "'runs/ru' does not exist; check the path"
    """
    code = error.errno or 0
    where = None if error.filename is None else repr(str(error.filename))
    if code in SYSTEM:
        return SYSTEM[code] if where is None else f"{where}: {SYSTEM[code]}"
    if code in PATHS and where is not None:
        return f"{where} {PATHS[code]}"
    return str(error) or type(error).__name__


def wrong_usage(error: Any) -> str:
    """What is wrong with the words of a command, and where the right ones are told.

    ``error`` is a ``ClickException``, of click or of the copy that typer carries.
    """
    invalid = error.__cause__
    if type(invalid).__name__ == "ValidationError":  # of pydantic, by which typer reads values
        from frozen_glyph.recipes.errors import allowed_value

        found = invalid.errors(include_url=False)[0]
        problem = found.get("ctx", {}).get("error")
        error.message = str(problem or f"{found['input']!r} must be {allowed_value(found, []).partition(',')[0]}")
    said = " ".join(error.format_message().split())
    if (context := getattr(error, "ctx", None)) is None:
        return said
    return f"{said}{'' if said.endswith(('.', '?', ')')) else '.'} See `{context.command_path} --help`"

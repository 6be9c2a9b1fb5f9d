"""Run lm-evaluation-harness on a model through its Python API: any of its tasks, unmodified, and those of eval/tasks.

Tasks name datasets of the Hub. In a mirror (see mirror.py) the folders of the same names stand in for them: datasets
looks there first when it is the working folder. https://github.com/EleutherAI/lm-evaluation-harness
"""

import logging
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frozen_glyph.checkpoint.files import sha256_json
from frozen_glyph.errors import FrozenGlyphError, nearest
from frozen_glyph.evaluation.tasks.answers import Answers
from frozen_glyph.evaluation.tasks.suites import definitions_digest, stock_folders, tasks_folder

if TYPE_CHECKING:
    from frozen_glyph.evaluation.tasks.asking import AskedLM

SAMPLED = {"do_sample": True, "temperature": 1.0, "top_k": 0}  # from the whole distribution, nothing cut off
ABOUT = ("title", "context", "passage")  # fields of an item that name what it is about, or are it
_CHATTY_LOGGERS = ("lm_eval", "datasets", "evaluate")


class MissingDataError(FrozenGlyphError):
    """The data of a task are not in the mirror, or cannot be fetched from the Hub."""


@contextmanager
def _replaced(*replacements: tuple[Any, str, Any]) -> Iterator[None]:
    """Give attributes of modules another value for a while."""
    before = [getattr(module, name) for module, name, _ in replacements]
    try:
        for module, name, value in replacements:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(replacements, before, strict=True):
            setattr(module, name, value)


@contextmanager
def _quiet(bars: bool = True) -> Iterator[None]:
    """Let only errors of the loggers through, and of progress ``bars`` at most those of requests to the model."""
    import datasets
    import lm_eval.api.model
    import lm_eval.api.task
    from tqdm import tqdm

    silenced = [lm_eval.api.task, lm_eval.api.model]
    if not bars:
        import lm_eval.models.huggingface

        silenced.append(lm_eval.models.huggingface)

    def no_bar(iterable: Any = None, **options: Any) -> Any:
        return tqdm(iterable, **{**options, "disable": True})

    levels = {name: logging.getLogger(name).level for name in _CHATTY_LOGGERS}
    bars_disabled = datasets.are_progress_bars_disabled()
    try:
        datasets.disable_progress_bars()
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        with _replaced(*((module, "tqdm", no_bar) for module in silenced)):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not bars_disabled:
            datasets.enable_progress_bars()


@contextmanager
def _data_from(mirror: Path | None) -> Iterator[None]:
    """Let names of datasets mean the folders of ``mirror`` and nothing else, or with None what the Hub has."""
    if mirror is None:
        yield
        return
    import datasets
    import huggingface_hub

    libraries = datasets.config, huggingface_hub.constants
    with _replaced(*((library, "HF_HUB_OFFLINE", True) for library in libraries)), _working_in(mirror):
        yield


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    """Work in ``folder`` and import nothing from it: the empty entry of ``sys.path`` means the folder of before."""
    before = str(Path.cwd())
    relative = "" in sys.path
    if relative:
        sys.path[sys.path.index("")] = before
    try:
        with chdir(folder):
            yield
    finally:
        if relative:
            sys.path[sys.path.index(before)] = ""


@contextmanager
def _own_squad_metric() -> Iterator[None]:
    """Let lm-eval's squadv2 aggregate with the script of this package, and none of a mirror or of the Hub."""
    import evaluate

    load = evaluate.load

    def load_own(path: str, *arguments: Any, **options: Any) -> Any:
        return load(str(tasks_folder() / "squad_v2.py") if path == "squad_v2" else path, *arguments, **options)

    with _replaced((evaluate, "load", load_own)):
        yield


@dataclass(frozen=True)
class LoadedTask:
    """A task or group with its data: the leaves by name, ``digest`` of definitions and data, what was left out.

    It runs where it was loaded: with the data of ``mirror`` (None: of the Hub), and ``bars`` as its ``Tasks`` say.
    """

    name: str
    leaves: dict[str, Any]
    digest: str
    remarks: list[str]
    mirror: Path | None
    bars: bool

    def choose(self, limit: int | None, seed: int) -> dict[str, list[int]]:
        """The items to use of every leaf: all, or ``limit`` of the whole task drawn at random."""
        everything = [(leaf, item) for leaf, task in self.leaves.items() for item in range(len(task.eval_docs))]
        if limit is not None and limit < len(everything):
            everything = sorted(random.Random(seed).sample(everything, limit))
        chosen: dict[str, list[int]] = {}
        for leaf, item in everything:
            chosen.setdefault(leaf, []).append(item)
        return chosen

    @property
    def datasets(self) -> set[str]:
        """Names of the datasets that its items come from."""
        return {str(task.DATASET_PATH) for task in self.leaves.values()}

    @property
    def is_sampled_as_published(self) -> bool:
        """Whether the publications drew samples of it: their tasks but for translation."""
        metadata = [task.config.metadata or {} for task in self.leaves.values()]
        return all(own.get("published") and "tokenize" not in own for own in metadata)

    def prompts(self) -> list[str]:
        """Every item's prompt, without what all items share."""
        return [str(task.doc_to_text(doc)) for task in self.leaves.values() for doc in task.eval_docs]

    def clusters(self, chosen: dict[str, list[int]]) -> list[int] | None:
        """Of each ``chosen`` item the number of the text that it is about; None where no text has several items."""
        parts = [(self.leaves[leaf].eval_docs, sorted(items)) for leaf, items in chosen.items()]  # may be made anew
        docs = [all_docs[item] for all_docs, items in parts for item in items]
        for field in ABOUT:
            numbers: dict[str, int] = {}
            if all(isinstance(doc, dict) and doc.get(field) for doc in docs):
                found = [numbers.setdefault(str(doc[field]), len(numbers)) for doc in docs]
                if 1 < len(numbers) < len(docs):
                    return found
        return None

    def run(self, lm: Any, chosen: dict[str, list[int]], seed: int) -> dict[str, Any]:
        """Return lm-eval's results of the ``chosen`` items, every one of them under ``samples``, by leaf."""
        # evaluate() and not simple_evaluate(): the latter runs pip and git each time to describe the machine.
        from lm_eval import evaluate
        from transformers import set_seed

        set_seed(seed)
        tasks = {leaf: self.leaves[leaf] for leaf in chosen}
        with _quiet(self.bars), _own_squad_metric(), _data_from(self.mirror):
            # Intervals are computed from the items, in statistics.py; lm-eval's own bootstrap is not needed.
            results = evaluate(lm, {"tasks": tasks, "groups": {}, "group_map": {}}, samples=chosen, bootstrap_iters=0)
        if results is None:
            raise FrozenGlyphError("lm-eval returns results on rank 0 only; run this in a single process")
        return results


class Tasks:
    """lm-eval's tasks by name, with data from a mirror (None: from the Hub), and those of the caller's ``folders``.

    ``bars``: show lm-eval's own bar of the requests to the model.
    """

    def __init__(self, mirror: Path | None, folders: Sequence[str | Path] = (), bars: bool = True) -> None:
        for folder in folders:
            if not Path(folder).is_dir():
                raise FrozenGlyphError(f"task folder {str(folder)!r} does not exist; give a folder of lm-eval tasks")
        self._mirror, self._bars = mirror, bars
        self._folders = [Path(folder).resolve() for folder in folders]
        self._index: Mapping[str, Any] = {}
        # lm-eval takes seconds to read its thousands of task files: only until the task that is asked for is found.
        shipped = [tasks_folder(), *self._folders]
        self._unread: list[dict[str, Any]] = [
            {"include_path": self._folders, "include_defaults": False},
            {"include_path": [*stock_folders(), *shipped], "include_defaults": False},
            {"include_path": shipped},
        ]

    def _find(self, name: str) -> None:
        """Read task files until one defines ``name``; an unknown one is answered with the nearest known task."""
        from lm_eval.tasks import TaskManager

        while name not in self._index:
            if not self._unread:
                raise FrozenGlyphError(
                    f"task {name!r} is unknown; take one of `lm_eval ls tasks` or of eval/tasks."
                    f"{nearest(name, self._index)}"
                )
            with _quiet():
                self._manager = TaskManager(**self._unread.pop(0))
            self._index = self._manager.task_index

    def _leaf_names(self, name: str) -> list[str]:
        """The tasks that a group or tag stands for."""
        self._find(name)
        index = self._index
        config = index[name].cfg or {}
        if index[name].kind.name == "GROUP":
            return [leaf for child in config["task"] for leaf in self._leaf_names(child)]
        if index[name].kind.name == "TAG":
            return sorted(leaf for leaf, entry in index.items() if name in entry.tags)
        return [name]

    def load(self, name: str, generation: Mapping[str, Any] | None = None) -> LoadedTask:
        """Load a task; ``generation`` changes how text is generated. A leaf without data is left out with a remark.

        Raises:
            FrozenGlyphError: no task has this name.
            MissingDataError: no leaf of the task has data.
        """
        names = self._leaf_names(name)
        leaves: dict[str, Any] = {}
        missing: dict[str, str] = {}
        with _quiet(), _data_from(self._mirror):
            for leaf in names:
                try:
                    leaves |= self._manager.load([leaf])["tasks"]
                # What datasets raises for a dataset, configuration or split that is not there.
                except (OSError, ValueError, KeyError) as error:
                    missing[leaf] = str(error).splitlines()[0]
        where = "on the Hub" if self._mirror is None else "in the mirror"
        if not leaves:
            raise MissingDataError(f"no data of task {name!r} {where}: {next(iter(missing.values()))}")
        for task in leaves.values():
            if task.get_config("num_fewshot") is None:
                task.set_config("num_fewshot", 0)
            if generation and task.OUTPUT_TYPE == "generate_until":
                task.set_config("generation_kwargs", dict(generation), update=True)
        remarks = [f"{name}: without {', '.join(missing)}, whose data are not {where}"] if missing else []
        data = {leaf: [str(doc) for doc in task.eval_docs] for leaf, task in leaves.items()}
        definitions = [definitions_digest(folder) for folder in (tasks_folder(), *self._folders)]
        digest = sha256_json([version("lm-eval"), definitions[0], data, generation, *definitions[1:]])
        return LoadedTask(name, leaves, digest, remarks, self._mirror, self._bars)


def as_lm(
    model: Any, tokenizer: Any, batch_size: int = 16, answers: Path | None = None, identity: Any = None
) -> "AskedLM":
    """Return a loaded model as lm-eval takes it; ``.model`` and ``.tokenizer`` are the transformers objects.

    What the model of this ``identity`` answers is kept in the file ``answers``: a run that was stopped asks only for
    the rest.
    """
    from frozen_glyph.evaluation.tasks.asking import AskedLM

    with _quiet():
        return AskedLM(Answers(answers, identity), pretrained=model, tokenizer=tokenizer, batch_size=batch_size)

"""Convert a folder of benchmark files into a mirror: folders shaped like the Hub datasets that tasks name.

With the mirror as working directory and HF_HUB_OFFLINE=1, ``datasets.load_dataset("cais/mmlu", "anatomy")`` and
``evaluate.load("squad_v2")`` find the mirror's folders, so lm-eval's stock tasks run unmodified without a network. The
layout of the data folder is in eval/tasks/README.md.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from frozen_glyph.checkpoint.files import CheckpointError, sha256_file, sha256_json
from frozen_glyph.checkpoint.folders import files_below, neighbour
from frozen_glyph.checkpoint.journal import JOURNAL_FILE, note_below
from frozen_glyph.checkpoint.places import check_vacant, one_writer
from frozen_glyph.evaluation.tasks import benchmark_files as files
from frozen_glyph.evaluation.tasks.mirror_folder import check_unchanged, put_in_place, read_manifest
from frozen_glyph.evaluation.tasks.suites import suites_folder, tasks_folder

if TYPE_CHECKING:
    from datasets import Features

FORMAT = 1  # of the mirror; a new number makes mirrors of the old format stale
MMLU, OPUS = "cais/mmlu", "Helsinki-NLP/opus-100"
MMLU_SUBJECTS = 57
# lm-eval's stock tasks open this split though zero shots take nothing from it, and ``datasets`` refuses an empty one.
WITH_TRAINING_SPLIT = ("allenai/ai2_arc", "tau/commonsense_qa", "aps/super_glue", "lighteval/squad_v2")
NO_TRAINING = "This mirror holds no training examples: evaluate without shots."
OFFICIAL_QUESTIONS = {"rajpurkar/squad": 10_570, "lighteval/squad_v2": 11_873}
_Splits = dict[str, list[files.Row]]


@dataclass(frozen=True)
class Mirror:
    """What a mirror holds; names are "dataset", or "dataset:configuration" where a dataset has several."""

    root: Path
    present: list[str]
    missing: dict[str, str]  # the reason by name
    remarks: list[str]  # what a report on these data must say

    def why_missing(self, dataset: str, configuration: str | None) -> str | None:
        """Return why data are not in the mirror, or None if they are."""
        name = _name(dataset, configuration)
        if name in self.present:
            return None
        return self.missing.get(name, f"the data folder has no files for {name}")


def _name(dataset: str, configuration: str | None) -> str:
    return f"{dataset}:{configuration}" if configuration else dataset


@dataclass(frozen=True)
class _Source:
    """The files of one configuration of a dataset, by split."""

    dataset: str
    configuration: str | None
    splits: dict[str, str]  # relative to the data folder
    read: Callable[[Path], list[files.Row]]

    @property
    def name(self) -> str:
        return _name(self.dataset, self.configuration)

    def absent_file(self, data_dir: Path) -> str | None:
        return next((name for name in self.splits.values() if not (data_dir / name).is_file()), None)


def _sources(data_dir: Path) -> list[_Source]:
    """Return all that a mirror can hold, whether its files are there or not."""
    arc = [
        _Source(
            "allenai/ai2_arc",
            name,
            {"validation": f"arc/{name}-Dev.jsonl", "test": f"arc/{name}-Test.jsonl"},
            files.read_arc,
        )
        for name in ("ARC-Easy", "ARC-Challenge")
    ]
    translations = [
        _Source(OPUS, pair, {"test": f"opus/ntrex.{pair}.tsv"}, files.read_translations) for pair in ("en-ru", "en-zh")
    ]
    mmlu = [
        _Source(
            MMLU,
            subject,
            {
                "test": f"mmlu/test/{subject}_test.csv",
                "validation": f"mmlu/val/{subject}_val.csv",
                "dev": f"mmlu/dev/{subject}_dev.csv",
            },
            files.read_mmlu,
        )
        for subject in sorted({path.stem.rpartition("_")[0] for path in data_dir.glob("mmlu/*/*_*.csv")})
    ]
    commonsense_qa = {"validation": "commonsense_qa/dev_rand_split.jsonl"}
    return [
        *arc,
        _Source("tau/commonsense_qa", None, commonsense_qa, files.read_commonsense_qa),
        _Source("aps/super_glue", "boolq", {"validation": "boolq/dev.jsonl"}, files.read_boolq),
        _Source("lighteval/squad_v2", None, {"validation": "squad/dev-v2.0.json"}, files.read_squad),
        _Source("rajpurkar/squad", None, {"validation": "squad/dev-v1.1.json"}, files.read_squad),
        *translations,
        *mmlu,
    ]


def _features(dataset: str, configuration: str) -> "Features":
    """Return the column types of a dataset on the Hub; translations have ``source`` besides."""
    from datasets import ClassLabel, Features, Sequence, Translation, Value

    text, texts = Value("string"), Sequence(Value("string"))
    question = {"id": text, "question": text}
    match dataset:
        case "cais/mmlu":
            letters = ClassLabel(names=["A", "B", "C", "D"])
            return Features({"question": text, "subject": text, "choices": texts, "answer": letters})
        case "allenai/ai2_arc":
            return Features({**question, "choices": {"text": texts, "label": texts}, "answerKey": text})
        case "tau/commonsense_qa":
            choices = {"label": texts, "text": texts}
            return Features({**question, "question_concept": text, "choices": choices, "answerKey": text})
        case "aps/super_glue":
            label = ClassLabel(names=["False", "True"])
            return Features({"question": text, "passage": text, "idx": Value("int32"), "label": label})
        case "Helsinki-NLP/opus-100":
            return Features({"translation": Translation(configuration.split("-")), "source": text})
        case _:
            answers = {"text": texts, "answer_start": Sequence(Value("int32"))}
            return Features({"id": text, "title": text, "context": text, "question": text, "answers": answers})


def _without_content(value: Any) -> Any:
    """Return the one row of a training split: the shape of ``value``, but nothing of what it says."""
    match value:
        case dict():
            return {key: _without_content(own) for key, own in value.items()}
        case list():
            return []
        case str():
            return NO_TRAINING
    return -1


def _write_dataset(folder: Path, dataset: str, configurations: dict[str, _Splits]) -> None:
    """Write the configurations of a dataset as Parquet files and the README.md by which ``load_dataset`` finds them."""
    from datasets import Dataset
    from pyarrow import parquet

    entries = []
    for configuration, splits in configurations.items():
        features = _features(dataset, configuration)
        if dataset in WITH_TRAINING_SPLIT:
            splits = {"train": [_without_content(next(iter(splits.values()))[0])], **splits}
        data_files = []
        for split, rows in splits.items():
            # ``datasets`` keeps what it has read by the names of files, so the name must say the content.
            path = folder / configuration / f"{split}-{sha256_json(rows)[:16]}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = {column: [row[column] for row in rows] for column in features}
            table = Dataset.from_dict(columns, features=features).data.table  # its schema carries the features
            parquet.write_table(table, path)  # Dataset.to_parquet would draw a progress bar for every file
            data_files.append({"split": split, "path": path.relative_to(folder).as_posix()})
        entries.append({"config_name": configuration, "data_files": data_files})
    header = yaml.safe_dump({"configs": entries}, sort_keys=False)
    note = f"A local stand-in for {dataset}, written by frozen-glyph from local files."
    remark = _ntrex_remark() if dataset == OPUS else ""
    (folder / "README.md").write_text(f"---\n{header}---\n\n{note}\n{remark}\n", encoding="utf-8")


def _ntrex_remark() -> str:
    return f"{OPUS}: the sentences are of NTREX (newstest2019), not of OPUS-100; BLEU is not comparable with OPUS-100."


def _write_definitions(folder: Path, subjects: list[str]) -> None:
    """Copy tasks and suites, so that one command line serves Hub and mirror; ``mmlu`` becomes what is there of it."""
    for name, origin in (("tasks", tasks_folder()), ("suites", suites_folder())):
        shutil.copytree(origin, folder / "eval" / name, ignore=shutil.ignore_patterns("__pycache__"))
    if 0 < len(subjects) < MMLU_SUBJECTS:
        # A group of the include path replaces lm-eval's own of the same name.
        group = {
            "group": "mmlu",
            "group_alias": f"mmlu ({len(subjects)} of {MMLU_SUBJECTS} subjects)",
            "task": [f"mmlu_{subject}" for subject in subjects],
            "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
            "metadata": {"version": 2},
        }
        path = folder / "eval" / "tasks" / "mmlu.yaml"
        path.write_text(yaml.safe_dump(group, sort_keys=False), encoding="utf-8")
    # ``evaluate.load`` looks for NAME/NAME.py.
    (folder / "squad_v2").mkdir()
    for file in ("squad_v2.py", "squad_scoring.py"):
        shutil.copyfile(tasks_folder() / file, folder / "squad_v2" / file)


def _remarks(contents: dict[str, dict[str, _Splits]]) -> list[str]:
    remarks = [_ntrex_remark()] if OPUS in contents else []
    if MMLU in contents and len(contents[MMLU]) - 1 < MMLU_SUBJECTS:
        remarks.append(f"{MMLU}: {len(contents[MMLU]) - 1} of {MMLU_SUBJECTS} subjects; the others lack a file.")
    for dataset, official in OFFICIAL_QUESTIONS.items():
        if dataset in contents and (found := len(contents[dataset]["default"]["validation"])) != official:
            remarks.append(f"{dataset}: {found} of the official {official} questions.")
    return remarks


def _digest(data_dir: Path, names: list[str]) -> str:
    definitions = [path for folder in (tasks_folder(), suites_folder()) for path in folder.iterdir() if path.is_file()]
    return sha256_json(
        [
            FORMAT,
            sorted((name, sha256_file(data_dir / name)) for name in names),
            sorted((path.name, sha256_file(path)) for path in definitions),
        ]
    )


@one_writer("root")
def write_mirror(data_dir: Path, root: Path) -> Mirror:
    """Write the mirror of ``data_dir`` into the folder ``root``; nothing is done where it is there already.

    A mirror of other data is replaced: what it recorded to have written. Files that others put into it stay.

    A dataset is in the mirror if all its files are there. The mirror has the tasks and suites as well, so that
    ``lm_eval run --config eval/suites/standard.yaml`` works in it as in the source checkout.

    Raises:
        DataError: ``data_dir`` is no folder or holds nothing to mirror, or a file is malformed (named with its line).
        CheckpointError: ``root`` is neither free nor a mirror, or somebody changed a file of it.
        FolderInUse: another process writes it.
    """
    data_dir, root = Path(data_dir), Path(root)
    if not data_dir.is_dir():
        raise files.DataError(f"data folder {str(data_dir)!r} does not exist; see eval/tasks/README.md for its layout")
    sources = _sources(data_dir)
    absent = {source.name: source.absent_file(data_dir) for source in sources}
    there = [source for source in sources if absent[source.name] is None]
    texts = sorted(data_dir.glob("text/*.valid.txt"))
    if not there and not texts:
        raise files.DataError(
            f"data folder {str(data_dir)!r} holds no benchmark and no text/NAME.valid.txt; "
            "see eval/tasks/README.md for its layout"
        )
    names = [name for source in there for name in source.splits.values()]
    digest = _digest(data_dir, [*names, *(f"text/{path.name}" for path in texts)])
    old = read_manifest(root)
    if old.get("digest") == digest and all((root / name).exists() for name in old.get("files", {})):
        check_unchanged(root, old.get("files", {}))
        return Mirror(root, old["present"], old["missing"], old["remarks"])
    if not old:
        check_vacant(root)
    elif "files" not in old:
        raise CheckpointError(
            f"{str(root)!r} is a mirror of other data by a version that did not record what it wrote; remove it, or "
            "choose a new folder"
        )
    else:
        check_unchanged(root, old["files"])

    contents: dict[str, dict[str, _Splits]] = {}
    for source in there:
        splits = {split: source.read(data_dir / name) for split, name in source.splits.items()}
        contents.setdefault(source.dataset, {})[source.configuration or "default"] = splits
    for path in texts:
        files.check_text(path)
    subjects = list(contents.get(MMLU, {}))
    if subjects:
        by_subject = list(contents[MMLU].values())
        contents[MMLU]["all"] = {split: [row for own in by_subject for row in own[split]] for split in by_subject[0]}
    mirror = Mirror(
        root,
        present=[
            *(source.name for source in there),
            *([f"{MMLU}:all"] if subjects else []),
            *(f"text:{path.name.removesuffix('.valid.txt')}" for path in texts),
        ],
        missing={name: f"{file} does not exist" for name, file in absent.items() if file is not None},
        remarks=_remarks(contents),
    )
    with neighbour(root) as folder:
        for dataset, configurations in contents.items():
            _write_dataset(folder / dataset, dataset, configurations)
            note_below(folder / dataset)
        (folder / "text").mkdir()
        for path in texts:
            shutil.copyfile(path, folder / "text" / path.name)
        _write_definitions(folder, subjects)
        note_below(folder)
        report = {name: value for name, value in asdict(mirror).items() if name != "root"}
        report["files"] = {name: sha256_file(folder / name) for name in files_below(folder) if name != JOURNAL_FILE}
        put_in_place(folder, root, old.get("files", {}), {"digest": digest, **report})
    return mirror

"""What ``frozen-glyph eval`` calls: models x (held-out texts + tasks) -> report.json, report.md, report.html.

Every finished (model, stage, task) is kept in ``parts/`` and reused, and every answer that lm-eval got of a model in
``answers/``: an interrupted run goes on, a repeated one is quick. Both hold JSON and nothing that runs.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from frozen_glyph.checkpoint.places import one_writer
from frozen_glyph.errors import FrozenGlyphError
from frozen_glyph.evaluation.assemble import assemble
from frozen_glyph.evaluation.candidates import find_candidates
from frozen_glyph.evaluation.measure import ANSWERS, Protocol, Say, measure_model
from frozen_glyph.evaluation.progress import MeasuringBar
from frozen_glyph.evaluation.report.labels import shortest_labels
from frozen_glyph.evaluation.report.schema import Report
from frozen_glyph.evaluation.report.summarise import ALL_TEXTS
from frozen_glyph.evaluation.report.write import write_report
from frozen_glyph.evaluation.tasks.contamination import contamination
from frozen_glyph.evaluation.tasks.harness import SAMPLED, LoadedTask, MissingDataError, Tasks
from frozen_glyph.evaluation.tasks.mirror import write_mirror
from frozen_glyph.evaluation.tasks.suites import read_suite
from frozen_glyph.text.documents import read_text

HUB = "hub"
TEXT_SUITE = "text"


def find_texts(files: Sequence[Path], limit: int | None) -> dict[str, str]:
    """Return the texts by name (``en.valid.txt``: en), each cut to its first ``limit`` paragraphs."""
    paths = [path.resolve() for path in files]
    if len(set(paths)) < len(paths):
        raise FrozenGlyphError(f"a text is given twice: {', '.join(map(str, files))}")
    short = [path.name.removesuffix(".txt").removesuffix(".valid") for path in paths]
    beside = Counter((path.parent, name) for path, name in zip(paths, short, strict=True))
    beside |= {(path.parent, ALL_TEXTS): 2 for path in paths}  # the report's own name for all texts together
    labels = shortest_labels(
        [
            [*path.parent.parts[1:], name if beside[path.parent, name] == 1 else path.name]
            for path, name in zip(paths, short, strict=True)
        ]
    )
    return {label: beginning(path, limit) for label, path in zip(labels, files, strict=True)}


def beginning(path: Path, limit: int | None) -> str:
    """The text of a file, or its first ``limit`` paragraphs; a blank line ends a document and is no paragraph."""
    text = read_text(path)
    if limit is None:
        return text
    lines, paragraphs = [], 0
    for line in text.splitlines():
        paragraphs += bool(line.strip())
        if paragraphs > limit:
            break
        lines.append(line)
    return "\n".join(lines)


def load_tasks(names: Sequence[str], source: Tasks, chosen: bool, say: Say) -> tuple[list[LoadedTask], list[str]]:
    """Load tasks; those without data are left out with a remark, unless they were ``chosen`` by name."""
    loaded, remarks = [], []
    for name in names:
        say(f"reading {name}")
        try:
            task = source.load(name)
        except MissingDataError as error:
            if chosen:
                raise
            remarks.append(f"{name} was not run: {error}")
        else:
            if any(leaf.OUTPUT_TYPE == "loglikelihood_rolling" for leaf in task.leaves.values()):
                raise FrozenGlyphError(
                    f"task {name!r} measures the loss of whole texts, which has no right and wrong items; leave it out "
                    "and name its texts as held-out texts (--text)"
                )
            loaded.append(task)
            remarks += task.remarks
    return loaded, remarks


@one_writer("out", launched=True)
def evaluate_models(
    models: Sequence[str | Path],
    data: str | Path,
    out: str | Path,
    *,
    suite: str = "quick",
    tasks: Sequence[str] | None = None,
    task_folders: Sequence[str | Path] = (),
    limit: int | None = None,
    texts: Sequence[Path] = (),
    rules: Sequence[str] = (),
    every_stage: bool = True,
    sampling: bool = False,
    training_texts: Sequence[Path] = (),
    seed: int = 0,
    batch_size: int = 16,
    device: str | None = None,
    answers: bool = True,
    say: Say = lambda line: None,
    progress: bool = False,
    amend: Callable[[Report], object] = lambda report: None,
) -> Report:
    """Score every model on held-out texts and tasks and write the report into ``out``.

    Args:
        models: checkpoint folders or Hub ids, ``@STAGE`` after a name takes a growth stage. Merged models are
            compared with the single ones, else all with the first.
        data: a folder laid out as eval/tasks/README.md says, or "hub" to let lm-eval fetch its datasets.
        out: receives report.json, report.md, report.html, and parts/ and answers/ (reused next time).
        suite: quick, standard, paper or text: which tasks to run, as eval/suites lists them.
        tasks: names of tasks instead; an empty list runs none.
        task_folders: folders of lm-eval tasks of your own, as its ``--include_path``, that ``tasks`` may name.
        limit: items of each task, drawn at random, and paragraphs of each text; None takes what the suite says.
        texts: held-out text files; without any, ``text/NAME.valid.txt`` of ``data``.
        rules: rules to score a merged model under; without any, its own.
        every_stage: measure a grown model after every stage, not only the last.
        sampling: repeat tasks of the published protocol ten times with sampled generation, as published.
        training_texts: text that the models were trained on, looked through for items of the tasks.
        seed: of the bootstrap, of the choice of items, and of sampling.
        answers: keep every answer too, so that a run stopped in the midst of a task goes on there; that takes about
            2 ms an answer, more than a tiny model does.
        say: is told in a line what is being done.
        progress: show one bar over all measurements on standard error, in place of lm-eval's bars.
        amend: is given the report before it is written, to add what only the caller knows.

    Returns:
        The report (see report/schema.py).

    Raises:
        FolderInUse: another process writes into ``out``.
        FrozenGlyphError: a model, its data or an option is not usable; the message names it.
    """
    from frozen_glyph.text.loss import MAX_CONTEXT

    started = time.monotonic()
    out = Path(out)
    if limit is not None and limit < 1:
        raise FrozenGlyphError(f"limit {limit} is out of range; give a number of items of at least 1, or none for all")
    listed = read_suite(suite)
    if limit is None and tasks is None:
        limit = listed.get("limit")
    candidates = find_candidates([str(model) for model in models], rules, every_stage)
    mirror, remarks = None, []
    if data != HUB:
        if not Path(data).is_dir():
            raise FrozenGlyphError(f"data folder {str(data)!r} does not exist; give a folder laid out as "
                                   "eval/tasks/README.md says, or hub")  # fmt: skip
        mirrored = write_mirror(Path(data), out / "mirror")
        mirror, remarks = (out / "mirror").resolve(), mirrored.remarks
        texts = texts or sorted(Path(data).glob("text/*.valid.txt"))
    # The tasks of the suite "text" let a plain lm_eval do what is done here for any text.
    suite_tasks = [] if suite == TEXT_SUITE else listed["tasks"]
    names = list(dict.fromkeys(suite_tasks if tasks is None else tasks))
    loaded: list[LoadedTask] = []
    sampled: list[LoadedTask] = []
    left_out: list[str] = []
    if names:  # lm-eval, which takes seconds to import, is only needed for tasks
        source = Tasks(mirror, task_folders, bars=not progress)
        loaded, left_out = load_tasks(names, source, tasks is not None, say)
        if sampling:
            sampled = [source.load(task.name, SAMPLED) for task in loaded if task.is_sampled_as_published]
    protocol = Protocol(
        texts=find_texts([Path(path) for path in texts], limit),
        # One context length for all: only then are the blocks of a text the same and can be compared in pairs.
        context_length=min([MAX_CONTEXT, *(c.context_length for c in candidates if c.context_length is not None)]),
        tasks=loaded,
        sampled=sampled,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        device=device,
        answers=answers,
    )
    if not protocol.texts and not protocol.tasks:
        raise FrozenGlyphError(
            f"nothing to evaluate in {str(data)!r}: neither a text (text/NAME.valid.txt, or name one) "
            "nor data of a task; eval/tasks/README.md gives the layout"
        )
    if old := sorted(path.name for path in out.glob(f"{ANSWERS}/*.db")):
        say(f"{out / ANSWERS}: {', '.join(old)} of an older version can run code and are not opened; delete them")
    with MeasuringBar(protocol.measurements * sum(len(c.stages) for c in candidates), progress) as bar:
        measured = [
            [measure_model(candidate, stage, protocol, out, say, bar) for stage in candidate.stages]
            for candidate in candidates
        ]
    report = assemble(candidates, measured, seed)
    for remark in report["provenance"]["remarks"]:
        say(remark)
    notes = []
    if limit is not None:
        notes.append(
            f"Only {limit} items of each task, drawn at random, and the first {limit} paragraphs of each text."
        )
    if report["provenance"]["remarks"]:
        notes.append("Some of it could not be measured; the remarks under Provenance say which, and how it counts.")
    if notes:
        report["note"] = " ".join(notes)
    if training_texts:
        say("looking for items in the training text")
        report["contamination"] = contamination({task.name: task.prompts() for task in loaded}, training_texts)
    used = {name for task in loaded for name in task.datasets}
    report["provenance"] |= {
        "seed": seed,
        "limit": limit,
        "remarks": [
            *report["provenance"]["remarks"],
            *(remark for remark in remarks if remark.split(":")[0] in used),
            *left_out,
        ],
        "settings": {
            "suite": suite if tasks is None else "chosen tasks",
            "data": str(data),
            "context length of held-out loss": protocol.context_length,
            "batch size": batch_size,
            "device": device or "cuda where there is one, else cpu",
        },
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": round(time.monotonic() - started, 1),
    }
    amend(report)
    write_report(report, out)
    return report

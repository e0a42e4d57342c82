"""Predict many tasks in one call: `predict RUN --tasks FOLDER`.

    FOLDER/TASK/support/CLASS/*.png    examples to learn from
    FOLDER/TASK/query/*.png            images to classify, or one image FOLDER/TASK/query.png

If all query images of a task are in folders of its classes, `query/CLASS/*.png`, their true classes
are known, and the error of the task is measured.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta import files
from jaxmeta.commands import abstaining
from jaxmeta.data.reading import is_hidden, listed
from jaxmeta.files import shown
from jaxmeta.recipes import settings
from jaxmeta.recipes.base import UserTask
from jaxmeta.recipes.folders import IDENTITY, Stored, read_identity
from jaxmeta.recipes.outputs import check_free
from jaxmeta.recipes.predictor import predictor
from jaxmeta.recipes.results import provenance
from jaxmeta.training.estimates import estimate


class TaskFolder(NamedTuple):
    """The folder of a task: its examples, and its query images."""

    name: str
    support: Path
    query: Path


def predict_tasks(
    run: Path,
    stored: Stored,
    folder: Path,
    ink: bool | None,
    out: Path,
    *,
    overwrite: bool,
    abstain_below: float | None = None,
) -> dict[str, Any]:
    """Predict all tasks of a folder, write the result to `out` as JSON, and print it.

    Raises:
      ValueError, OSError: a run of another kind; a folder that is not a task, or has images that
        can't be read; `out` exists or can't be written.
    """
    experiment, data = stored
    recipe, domain = experiment.learner, experiment.domain
    if domain.kind != "classification":
        raise ValueError(f"--tasks requires a classifier; this is a run of {domain.name}.")
    _check_out(out, overwrite)
    found = task_folders(folder)
    given = {own: domain.read(data, own.support, own.query, ink) for own in found}
    known = {own: _true_classes(own, task) for own, task in given.items()}
    predict = predictor(run, experiment, data)
    rows, errors = [], []
    sure, predicted, truth = [], [], []
    for own, task in given.items():
        probabilities = np.asarray(recipe.probabilities(predict(task, own.query)))
        row: dict[str, Any] = {"task": shown(own.name)}
        if known[own]:
            wrong = [
                task.names[best] != name
                for best, name in zip(probabilities.argmax(axis=1), known[own], strict=True)
            ]
            errors.append(sum(wrong) / len(wrong))
            row["error"] = errors[-1]
        row["queries"] = _queries(own, task, known[own], probabilities)
        if abstain_below is not None:
            for query, p in zip(row["queries"], probabilities.max(axis=1).tolist(), strict=True):
                query["abstains"] = p < abstain_below
        sure.append(probabilities.max(axis=1))
        predicted += [task.names[best] for best in probabilities.argmax(axis=1)]
        truth += known[own] or [None] * len(task.rows)
        rows.append(row)
    abstention = {}
    if abstain_below is not None:
        abstention = abstaining.measured(abstain_below, np.concatenate(sure), predicted, truth)
    statistics = settings.values(domain).get("query_statistics")
    results = {
        "run": shown(run.name),
        IDENTITY: read_identity(run),
        "learner": recipe.name,
        "query_statistics": statistics,
        "num_tasks": len(rows),
        **_mean(errors),
        **abstention,
        "tasks": rows,
        **provenance(),
    }
    files.write_json(out, results)
    _print(list(given.values()), results)
    if statistics == "batch":
        print(
            "Each prediction depends on all query images of its task, which are normalised "
            "together; with --query-statistics support, it depends on the support only."
        )
    if abstention:
        print("\n".join(abstaining.lines(run, abstention, len(truth))))
    print(f"predictions: {shown(out)}")
    return results


def task_folders(folder: Path) -> list[TaskFolder]:
    """The tasks in a folder, sorted by name.

    Raises:
      ValueError: there are none, or a folder is not a task.
      OSError: a folder can't be read.
    """
    names = [name for name in listed(folder) if (folder / name).is_dir()]
    if not names:
        raise ValueError(
            f"{shown(folder)} holds no task; give each task a folder of its own, with "
            "support/CLASS/*.png and query/*.png."
        )
    return [_task_folder(folder / name) for name in names]


def _task_folder(path: Path) -> TaskFolder:
    entries = listed(path)
    queries = [name for name in entries if Path(name).stem == "query" and not is_hidden(name)]
    if not (path / "support").is_dir():
        raise ValueError(
            f"{shown(path)} is not a task: it has no folder support; put the examples of each "
            f"class in a folder of its own, as in {shown(path / 'support' / 'CLASS' / '*.png')}."
        )
    if len(queries) != 1:
        has = f"has {' and '.join(map(shown, queries))}" if queries else "has no query"
        raise ValueError(
            f"{shown(path)} is not a task: it {has}; put the images to classify in a folder query, "
            "or give one image, query.png."
        )
    return TaskFolder(path.name, path / "support", path / queries[0])


def _true_classes(own: TaskFolder, task: UserTask) -> tuple[str | None, ...]:
    """The true classes of the query images; empty if they are unknown.

    Raises:
      ValueError: some are known and others are not.
    """
    if not any(task.truth):
        return ()
    if None in task.truth:
        row = task.rows[task.truth.index(None)]
        raise ValueError(
            f"{shown(row)} is in no folder of a class, while other query images are; the classes "
            f"are those of {shown(own.support)}."
        )
    return task.truth


def _queries(
    own: TaskFolder, task: UserTask, truth: tuple[str | None, ...], probabilities: np.ndarray
) -> list[dict[str, Any]]:
    """The predictions of one task, one entry per query image."""
    names, folder = [*map(shown, task.names)], own.query.parent
    rows = []
    for number, (path, of_image) in enumerate(zip(task.rows, probabilities.tolist(), strict=True)):
        best = int(np.argmax(of_image))
        row: dict[str, Any] = {"file": shown(Path(path).relative_to(folder).as_posix())}
        if truth:
            row["true_class"] = shown(truth[number])
        row |= {"class": names[best], "probability": round(of_image[best], 6)}
        row["probabilities"] = {name: round(p, 6) for name, p in zip(names, of_image, strict=True)}
        rows.append(row)
    return rows


def _mean(errors: list[float]) -> dict[str, Any]:
    """The mean error over the tasks whose classes are known; the interval requires two of them."""
    if not errors:
        return {}
    if len(errors) == 1:
        return {"error": errors[0], "tasks_with_error": 1}
    mean, ci95 = estimate(np.array(errors))
    return {"error": float(mean), "error_ci95": float(ci95), "tasks_with_error": len(errors)}


def _check_out(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() != ".json":
        raise ValueError(f"--out {shown(out)}: the result of --tasks is JSON; give a .json file.")
    files.check_writable(out)
    check_free(out, overwrite=overwrite)


def _print(given: list[UserTask], results: dict[str, Any]) -> None:
    """A line per task, and the mean error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("task", "classes", "examples", "queries", "error")
    for task, row in zip(given, results["tasks"], strict=True):
        counts = (len(task.names), len(task.support.targets), len(task.rows))
        error = f"{row['error']:.1%}" if "error" in row else ""
        table.add_row(*map(Text, (row["task"], *map(str, counts), error)))
    Console().print(table)
    if "error" in results:
        interval = f" ± {100 * results['error_ci95']:.1f}" if "error_ci95" in results else ""
        count = results["tasks_with_error"]
        tasks = "task" if count == 1 else "tasks"
        print(f"mean error {100 * results['error']:.1f}{interval} % over {count} {tasks}")

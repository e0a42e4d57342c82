"""Use a run on a task of your own: learn from a few examples, and predict others.

    predict RUN --support FOLDER --query FOLDER

For images `--support` holds `FOLDER/class/*.png`, `--query` images, by themselves or in folders;
for curves both are tables of numbers (CSV).
"""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from jaxmeta import files
from jaxmeta.commands.experiment import Modules
from jaxmeta.commands.guard import read_arguments, recipes_named
from jaxmeta.recipes import registry
from jaxmeta.recipes.base import UserTask
from jaxmeta.recipes.folders import read_config
from jaxmeta.recipes.restoring import restore_as
from jaxmeta.training.state import shared_of


@dataclass(frozen=True)
class Predict:
    """Adapt what a run trained to a few examples and predict others."""

    run_dir: tyro.conf.Positional[Path]
    """The run folder."""
    support: Path
    """What to learn from: of images a folder, FOLDER/class/*.png (or jpg, jpeg); of curves a CSV
    of places and values."""
    query: Path
    """What to predict: a folder of images or one image; of curves a CSV of places."""
    out: Path = Path("predictions.png")
    """The picture; the table goes beside it, with the suffix .csv."""
    ink: bool | None = None
    """Dark drawings on light paper: read ink as 1, paper as 0, as omniglot and glyphs are.
    Defaults to what the run's data set is."""
    recipes: Modules = ()
    """Modules of your own that declare recipes or domains, separated by commas."""


def command(arguments: list[str], prog: str) -> None:
    """Adapt, predict every query, print the table, draw the picture."""
    registry.load(recipes_named(arguments))
    predict_with(read_arguments(Predict, prog, arguments))


def predict_with(options: Predict) -> None:
    """As `command`, with the options as a value.

    Raises:
      ValueError, OSError: a run that can't be used on such a task, files that can't be read.
    """
    from rich.console import Console
    from rich.table import Table

    experiment, data = read_config(options.run_dir)
    recipe, domain = experiment.learner, experiment.domain
    given = domain.read(data, options.support, options.query, options.ink)
    experiment = experiment.replaced(domain.for_user_task(given))
    run = restore_as(options.run_dir, experiment, data)
    _check_shapes(options.query, given.inputs, run.example.query.inputs)
    # Some learners read the support in the order given, and have never seen it class by class.
    key = jax.random.key(experiment.training.seed)
    support = given.support
    if given.names:
        order = np.asarray(jax.random.permutation(key, len(given.support.targets)))
        support = jax.tree.map(lambda leaf: leaf[order], support)
    support = jax.tree.map(jax.numpy.asarray, support)
    shared = shared_of(run.learner, run.trained)
    adapted = run.learner.adapt(key, run.meta_params, support, **shared)
    outputs = run.learner.predict(adapted, jax.tree.map(jax.numpy.asarray, given.inputs))

    if given.names:
        probabilities = np.asarray(recipe.probabilities(outputs))
        predicted = [given.names[index] for index in probabilities.argmax(axis=1)]
        sure = probabilities.max(axis=1)
        header = ["image", "class", "probability"]
        rows = [[row, *cells] for row, *cells in zip(given.rows, predicted, sure.tolist())]
    else:
        predicted, sure = [], np.zeros(0)
        header, rows = _numbers(outputs, given)
    table = Table(*header)
    for row, *cells in rows:
        table.add_row(row, *(_shown(name, cell) for name, cell in zip(header[1:], cells)))
    Console().print(table)
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerows([header, *([row, *map(_rounded, cells)] for row, *cells in rows)])
    path = options.out.with_suffix(".csv")
    files.write_bytes(path, text.getvalue().encode())
    if given.draw is None:
        print(f"table: {path}")
        return
    counts = ", ".join(f"{count} {name}" for name, count in Counter(predicted).items())
    given.draw(options.out, predicted, sure, f"{recipe.name}: {counts}")
    print(f"picture: {options.out}, table: {path}")


def _check_shapes(path: Path, given: Any, trained: Any) -> None:
    """Refuse inputs of another shape than those of training."""
    one, other = ([leaf.shape[1:] for leaf in jax.tree.leaves(tree)] for tree in (given, trained))
    if one != other:
        raise ValueError(
            f"{path} holds inputs of the shape {one[0]}; the run was trained on {other[0]}."
        )


def _numbers(outputs: Any, given: UserTask) -> tuple[list[str], list[list[Any]]]:
    """The table of outputs that are numbers: one array, or several with names (mean, std)."""
    named = outputs._asdict() if hasattr(outputs, "_asdict") else {"output": outputs}
    columns, header = [], ["input"]
    for name, values in named.items():
        values = np.asarray(values).reshape(len(given.rows), -1)
        several = values.shape[1] > 1
        header += [f"{name} {number}" if several else name for number in range(values.shape[1])]
        columns.append(values)
    cells = np.concatenate(columns, axis=1).tolist()
    return header, [[row, *own] for row, own in zip(given.rows, cells)]


def _shown(name: str, cell: Any) -> str:
    if name == "probability":
        return f"{cell:.1%}"
    return cell if isinstance(cell, str) else f"{cell:.4g}"


def _rounded(cell: Any) -> Any:
    return cell if isinstance(cell, str) else round(cell, 6)

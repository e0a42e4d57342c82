"""Use a run on a task of your own: learn from a few examples, and predict others.

    predict RUN --support FOLDER --query FOLDER

For images, `--support` is a folder `FOLDER/class/*.png` and `--query` an image or a folder of
images; for curves both are tables of numbers (CSV).
"""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from jaxmeta.commands.experiment import Modules
from jaxmeta.commands.guard import read_arguments, recipes_named
from jaxmeta.data.tables import write_table
from jaxmeta.files import shown
from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.base import Experiment, UserTask
from jaxmeta.recipes.folders import read_config
from jaxmeta.recipes.restoring import restore_as
from jaxmeta.training.state import shared_of


@dataclass(frozen=True)
class Predict:
    """Adapt a trained run to a few examples and predict others."""

    run_dir: tyro.conf.Positional[Path]
    """The run folder."""
    support: Path
    """Folder of examples, FOLDER/class/*.png (or jpg, webp, gif, bmp, tif).
    For curves, a CSV file of inputs and values."""
    query: Path
    """Examples to predict: an image or a folder of images; for curves, a CSV file of inputs."""
    out: Path | None = None
    """File for the picture or, with suffix .csv, for the table; the other is written next to it.
    Defaults to predictions.png in the working folder, with a number if that exists."""
    overwrite: bool = False
    """Replace existing files."""
    query_statistics: Literal["batch", "support"] | None = None
    """Normalise images by the statistics of all --query images, or by those of the support.
    Defaults to the setting of the run. With batch, predictions depend on the other images."""
    ink: bool | None = None
    """Whether images are dark ink on light paper; ink is then read as 1 and paper as 0.
    Defaults to the run's data set; omniglot and glyphs are ink."""
    recipes: Modules = ()
    """Modules of your own that declare recipes or domains, separated by commas."""


def command(arguments: list[str], prog: str) -> None:
    """Adapt, predict every query, print the table, draw the picture."""
    registry.load(recipes_named(arguments))
    predict_with(read_arguments(Predict, prog, arguments))


def predict_with(options: Predict) -> None:
    """As `command`, with parsed options.

    Raises:
      ValueError, OSError: a run that does not support such a task, or files that can't be read.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = _free("predictions.png") if options.out is None else options.out
    picture, path = _places(out)
    experiment, data = read_config(options.run_dir)
    experiment = _with_statistics(experiment, options.query_statistics)
    recipe, domain = experiment.learner, experiment.domain
    given = domain.read(data, options.support, options.query, options.ink)
    for place in (path,) if given.draw is None else (picture, path):
        _check_free(place, options)
    experiment = experiment.replaced(domain.for_user_task(given))
    run = restore_as(options.run_dir, experiment, data)
    _check_shapes(options.query, given.inputs, run.example.query.inputs)
    # Some learners read the support in order, and were not trained on examples sorted by class.
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
        statistics = settings.values(domain).get("query_statistics")
        counts = {"batch": len(rows), "support": len(support.targets)}
        if statistics in counts:
            header.append(f"{statistics} statistics of")
            number = counts[statistics]
            rows = [[*row, f"{number} image{'s' if number > 1 else ''}"] for row in rows]
    else:
        predicted, sure, statistics = [], np.zeros(0), None
        header, rows = _numbers(outputs, given)
    table = Table(*header)
    for row in rows:  # as text, so that brackets are not markup
        table.add_row(*(Text(_shown(name, cell)) for name, cell in zip(header, row)))
    Console().print(table)
    if statistics == "batch":
        print(
            f"Each prediction depends on all query images (here {len(rows)}), which are normalised "
            "together; with --query-statistics support, it depends on the support only."
        )
    write_table(path, header, [[*map(_rounded, row)] for row in rows])
    if given.draw is None:
        print(f"table: {shown(path)}")
        return
    counted = ", ".join(f"{count} {shown(name)}" for name, count in Counter(predicted).items())
    given.draw(picture, predicted, sure, f"{recipe.name}: {counted}")
    print(f"picture: {shown(picture)}, table: {shown(path)}")


def _free(name: str) -> Path:
    """A path for a picture of this name, with a number if it or its table exists."""
    first = Path(name)
    numbered = (first.with_stem(f"{first.stem}-{number}") for number in itertools.count(2))
    return next(
        path
        for path in itertools.chain([first], numbered)
        if not path.exists() and not path.with_suffix(".csv").exists()
    )


def _places(out: Path) -> tuple[Path, Path]:
    """The paths of the picture and of the table."""
    if out.is_dir():
        raise IsADirectoryError(f"--out {shown(out)} is a folder; name a file in it.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {shown(out)}: its folder does not exist; create it first.")
    if out.suffix.lower() == ".csv":
        return out.with_suffix(".png"), out
    return out, out.with_suffix(".csv")


def _check_free(path: Path, options: Predict) -> None:
    """Check that no other result and no input is overwritten."""
    read = [own for own in (options.support, options.query) if own.exists()]
    if path.exists() and any(map(path.samefile, read)):
        raise ValueError(f"{shown(path)} is an input and would be overwritten; give another --out.")
    if path.exists() and not options.overwrite:
        raise FileExistsError(
            f"{shown(path)} exists; give another --out, or --overwrite to replace it."
        )


def _with_statistics(
    experiment: Experiment, wanted: Literal["batch", "support"] | None
) -> Experiment:
    """The run with the given statistics; None keeps its own."""
    own = settings.values(experiment.domain).get("query_statistics")
    if wanted is None or wanted == own:
        return experiment
    if own not in ("batch", "support"):
        raise ValueError(
            f"--query-statistics {wanted}: this run does not normalise by other examples; leave "
            "the option out."
        )
    return experiment.changed(query_statistics=wanted)


def _check_shapes(path: Path, given: Any, trained: Any) -> None:
    """Check that inputs have the same shape as in training."""
    one, other = ([leaf.shape[1:] for leaf in jax.tree.leaves(tree)] for tree in (given, trained))
    if one != other:
        raise ValueError(
            f"{shown(path)} holds inputs of shape {one[0]}; the run was trained on {other[0]}."
        )


def _numbers(outputs: Any, given: UserTask) -> tuple[list[str], list[list[Any]]]:
    """The table of numeric outputs: one array, or several named ones (mean, std)."""
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
    return shown(cell) if isinstance(cell, str) else f"{cell:.4g}"


def _rounded(cell: Any) -> Any:
    return cell if isinstance(cell, str) else round(cell, 6)

"""Use a run on a task of your own: learn from a few examples, and predict others.

    predict RUN --support FOLDER --query FOLDER
    predict RUN --support FOLDER --query FOLDER --abstain-below 0.8
    predict RUN --tasks FOLDER

For images, `--support` is a folder `FOLDER/class/*.png` and `--query` an image or a folder of
images; for sentences `--support` is a table of labels and sentences and `--query` a file with one
sentence per line; for curves both are tables of numbers (CSV). `--tasks` is a folder of many such
tasks, see `predict_tasks.py`.
"""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxmeta.commands import abstaining
from jaxmeta.commands.experiment import Modules
from jaxmeta.commands.guard import RunPath, read_arguments, recipes_named
from jaxmeta.commands.predict_tasks import predict_tasks
from jaxmeta.data.tables import write_table
from jaxmeta.files import shown
from jaxmeta.models.layers import OF_SEVERAL_EXAMPLES
from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.base import UserTask
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.folders import Stored, read_config
from jaxmeta.recipes.outputs import check_free
from jaxmeta.recipes.predictor import predictor
from jaxmeta.recipes.settings import Fraction
from jaxmeta.recipes.shipped import find_run


@dataclass(frozen=True)
class Predict:
    """Adapt a trained run to a few examples and predict others."""

    run_dir: RunPath
    """The run folder, or the name of a trained learner that ships with the package.
    If a folder of that name exists, it is the run."""
    support: Path | None = None
    """Folder of examples, FOLDER/class/*.png (or jpg, webp, gif, bmp, tif).
    For sentences, a TSV or CSV file of labels and sentences; for curves and streams, a CSV file of
    inputs and values, without a header; for pools and tables, a table with a header and the column
    of targets."""
    query: Path | None = None
    """Examples to predict: an image or a folder of images; for sentences, a file with one per line;
    for curves and streams, a CSV file of inputs; for pools and tables, a table with a header."""
    tasks: Path | None = None
    """Folder of many tasks, instead of --support and --query: one folder per task, each with
    support/class/*.png and query/*.png, or one image query.png. With query/class/*.png, the error
    is measured."""
    out: Path | None = None
    """File for the picture or, with suffix .csv, for the table; the other is written next to it.
    With --tasks, a JSON file. Defaults to predictions.png, or predictions.json, in the working
    folder, with a number if that exists."""
    overwrite: bool = False
    """Replace existing files."""
    query_statistics: Literal["batch", "support"] | None = None
    """batch: normalise by all query images, so predictions depend on each other; support: by the
    support images. Defaults to the setting of the run. Only for runs trained with batch or
    support."""
    ink: bool | None = None
    """Whether images are dark ink on light paper; ink is then read as 1 and paper as 0.
    Defaults to the run's data set; omniglot and glyphs are ink."""
    abstain_below: Fraction | None = None
    """Abstain from predictions whose probability is less than this; only for classes."""
    recipes: Modules = ()
    """Python modules with your own learners or tasks, such as my_module, separated by commas."""


def command(arguments: list[str], prog: str) -> None:
    """Adapt, predict every query, print the table, draw the picture."""
    registry.load(recipes_named(arguments))
    predict_with(read_arguments(Predict, prog, arguments))


def predict_with(options: Predict) -> None:
    """As `command`, with parsed options.

    Raises:
      ValueError, OSError: a run that does not support such a task, or files that can't be read.
    """
    support, query = options.support, options.query
    if (options.tasks is None) == (support is None and query is None):
        raise ValueError("give --support and --query for one task, or --tasks for many.")
    run = find_run(options.run_dir)
    stored = read_config(run)
    stored = stored._replace(
        experiment=_with_statistics(stored.experiment, options.query_statistics)
    )
    if options.tasks is not None:
        out = options.out or _free("predictions.json")
        predict_tasks(
            run,
            stored,
            options.tasks,
            options.ink,
            out,
            overwrite=options.overwrite,
            abstain_below=options.abstain_below,
        )
    elif support is None or query is None:
        missing = "support" if support is None else "query"
        raise ValueError(f"give --{missing}, too: a task consists of --support and --query.")
    else:
        _predict_task(run, stored, support, query, options)


def _predict_task(run: Path, stored: Stored, support: Path, query: Path, options: Predict) -> None:
    """One task: a table, and a picture if the domain has one."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    picture, path = _places(options.out or _free("predictions.png"))
    experiment, data = stored
    recipe, domain = experiment.learner, experiment.domain
    given = domain.read(data, support, query, options.ink)
    if options.abstain_below is not None and not given.names:
        raise ValueError(f"--abstain-below requires classes; this is a run of {domain.name}.")
    for place in (path,) if given.draw is None else (picture, path):
        check_free(place, (support, query), overwrite=options.overwrite)
    outputs = predictor(run, experiment, data)(given, query)

    if given.names:
        # A learner of tables has more outputs than this table has classes.
        outputs = jax.tree.map(lambda leaf: leaf[:, : len(given.names)], outputs)
        probabilities = np.asarray(recipe.probabilities(outputs))
        predicted = [given.names[index] for index in probabilities.argmax(axis=1)]
        sure = probabilities.max(axis=1)
        header = [given.kind, "class", "probability"]
        rows = [[row, *cells] for row, *cells in zip(given.rows, predicted, sure.tolist())]
        if options.abstain_below is not None:
            header.append("abstains")
            rows = [[*row, "yes" if row[2] < options.abstain_below else "no"] for row in rows]
        statistics = settings.values(domain).get("query_statistics")
        counts = {"batch": len(rows), "support": len(given.support.targets)}
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
    if options.abstain_below is not None:
        found = abstaining.measured(options.abstain_below, sure, predicted, given.truth)
        print("\n".join(abstaining.lines(run, found, len(predicted))))
    if given.draw is None:
        print(f"table: {shown(path)}")
        return
    counted = ", ".join(f"{count} {shown(name)}" for name, count in Counter(predicted).items())
    given.draw(picture, predicted, sure, f"{recipe.name}: {counted}")
    print(f"picture: {shown(picture)}, table: {shown(path)}")


def _free(name: str) -> Path:
    """A path of this name for a result, with a number if it or a table of that name exists."""
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


def _with_statistics(
    experiment: Experiment, wanted: Literal["batch", "support"] | None
) -> Experiment:
    """The run with the given statistics; None keeps its own."""
    own = settings.values(experiment.domain).get("query_statistics")
    if wanted is None or wanted == own:
        return experiment
    if own not in OF_SEVERAL_EXAMPLES:
        raise ValueError(
            f"--query-statistics {wanted}: this run does not normalise by other examples; leave "
            "the option out."
        )
    return experiment.changed(query_statistics=wanted)


def _numbers(outputs: Any, given: UserTask) -> tuple[list[str], list[list[Any]]]:
    """The table of numeric outputs: one array, or several named ones (mean, std)."""
    outputs = outputs.moments() if hasattr(outputs, "moments") else outputs  # of a mixture
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

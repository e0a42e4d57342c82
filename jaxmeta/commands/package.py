"""Pack a finished run into a small folder, like those that ship with jaxmeta: `package RUN NAME`.

The weights are stored as float16 if that does not change the validation result: both versions are
evaluated on the same validation tasks, and never on test tasks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from jaxmeta import files
from jaxmeta.commands.experiment import Modules
from jaxmeta.commands.guard import RunPath, read_arguments, recipes_named
from jaxmeta.core import PyTree
from jaxmeta.files import shown
from jaxmeta.recipes import registry
from jaxmeta.recipes.evaluation import Evaluator
from jaxmeta.recipes.folders import CONFIG, FINISHED, IDENTITY, RESULTS, read_config, read_identity
from jaxmeta.recipes.loading import Loaded, load, run_keys
from jaxmeta.recipes.packing import PACKED, compress, expand, write_packed
from jaxmeta.recipes.restoring import restore_as
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.seen import is_same
from jaxmeta.recipes.settings import AtLeastTwo, NonNegative
from jaxmeta.recipes.shipped import NAME, SHIPPED
from jaxmeta.training.estimates import estimates
from jaxmeta.training.leaves import all_numbers
from jaxmeta.training.parallel import mesh_for
from jaxmeta.training.update import Trained

MOST = 500_000  # bytes of a packed folder


@dataclass(frozen=True)
class Package:
    """Pack a finished run into a small folder that `predict`, `evaluate` and `restore` read."""

    run_dir: RunPath
    """The run folder."""
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The name of the learner, in lower case with hyphens."""
    folder: Path | None = None
    """Folder of packed learners. Defaults to `jaxmeta/weights` in the package."""
    overwrite: bool = False
    """Replace the learner of that name."""
    tolerance: NonNegative = 0.0005
    """Store float16 if its validation result differs from that of float32 by at most this: absolute
    for accuracies (0.0005 is 0.05 points), relative for losses."""
    validation_tasks: AtLeastTwo | None = None
    """Number of validation tasks. Defaults to the run's own number."""
    recipes: Modules = ()
    """Python modules with your own learners or tasks, such as my_module, separated by commas."""


def command(arguments: list[str], prog: str) -> None:
    """Measure, write the folder, print what was stored."""
    registry.load(recipes_named(arguments))
    package(read_arguments(Package, prog, arguments))


def package(options: Package) -> Path:
    """As `command`, with parsed options; the folder.

    Raises:
      ValueError, OSError: a run that can't be packed, or a folder that exists.
      ArithmeticError: the run has diverged.
    """
    run, folder = options.run_dir, options.folder or SHIPPED
    target = folder / options.name
    if not NAME.fullmatch(options.name):
        raise ValueError(
            f"{shown(options.name)!r} can't be the name of a learner; use lower-case letters, "
            "digits and -, and begin with a letter."
        )
    if files.standing(target).exists() and not options.overwrite:
        raise FileExistsError(f"{shown(target)} exists; give another name, or --overwrite.")
    experiment, data = read_config(run)
    identity = read_identity(run)
    if not (run / RESULTS).is_file():
        raise FileNotFoundError(
            f"{shown(run)} is not a finished run: it has no {RESULTS}; continue it with --resume."
        )
    if (run / PACKED).exists():
        raise ValueError(f"{shown(run)} is packed already; copy the folder.")
    if files.read_json(run / RESULTS).get(IDENTITY) != identity:
        raise ValueError(
            f"{shown(run / RESULTS)} belongs to another run than {CONFIG} beside it; train it "
            "again."
        )
    if jax.tree.leaves(experiment.domain.constants(data)):
        raise ValueError(
            f"{shown(run)} uses frozen weights of {experiment.domain.name}, which are not part of "
            "a run and can't be packed."
        )
    restored = restore_as(run, experiment, data)
    weights = {dtype: compress(restored.trained, dtype) for dtype in ("float16", "float32")}
    copied = {name: (run / name).read_bytes() for name in (CONFIG, RESULTS)}
    beside = sum(map(len, copied.values()))
    _check_size(beside + len(weights["float16"]))

    loaded = load(experiment)
    if not is_same(loaded.data, data):
        raise ValueError(f"{shown(run)} was trained on other data; provide the same data.")
    packed = {dtype: expand(own, restored.trained) for dtype, own in weights.items()}
    count = options.validation_tasks or experiment.training.validation_tasks
    found = _validated(loaded, packed, count)
    figure = loaded.tasks.selection
    small, full = (found[own][figure.metric] for own in ("float16", "float32"))
    most = options.tolerance * (1.0 if figure.percent else abs(full))
    fits = all_numbers(np.isfinite, packed["float16"])
    dtype = "float16" if fits and abs(small - full) <= most else "float32"  # also if it is NaN
    _check_size(beside + len(weights[dtype]))
    about = {
        IDENTITY: identity,
        "step": restored.step,
        "finished": (run / FINISHED).exists(),
        "weights": dtype,
        "validation": {
            "metric": figure.metric,
            "float16": small,
            "float32": full,
            "largest_difference": most,
            "num_tasks": count,
        },
        **provenance(mesh_for(jax.device_count())),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder), files.replacing(target) as new:
        for name, content in copied.items():
            files.write_bytes(new / name, content)
        write_packed(new, weights[dtype], about)
        size = sum(path.stat().st_size for path in new.iterdir())
    for own, row in found.items():
        print(f"{own}: {figure.show(row[figure.metric], row['ci95'])} on {count} validation tasks")
    print(f"difference {abs(small - full):.2g}; float16 requires at most {most:.2g}")
    print(f"packed as {dtype}, {size / 1000:.0f} kB: {shown(target)}")
    return target


def _check_size(size: int) -> None:
    if size > MOST:
        raise ValueError(
            f"the packed run would be {size:,} bytes, at most {MOST:,} are supported; train a "
            "smaller network."
        )


def _validated(loaded: Loaded, packed: dict[str, PyTree], count: int) -> dict[str, Any]:
    """The selection metric of each version of the weights, on the same validation tasks."""
    judge = Evaluator(loaded, mesh_for(jax.device_count())).judged(loaded.tasks.validation(), count)
    key = run_keys(loaded.experiment.training.seed)[1]
    metric = loaded.tasks.selection.metric
    found = {}
    for dtype, trained in packed.items():
        estimate = estimates(judge(Trained(*trained), key))[metric]
        found[dtype] = {metric: float(estimate.mean), "ci95": float(estimate.ci95)}
    return found

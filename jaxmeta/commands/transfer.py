"""Every run on every image set: `transfer RUN [RUN …] --to SET,SET,…`.

All runs are tested on the same images of each set, in the same tasks, converted to the size and the
channels of each run. A run on its own set is the ceiling; pre-trained networks are the baselines.
"""

import dataclasses
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from jaxmeta import files
from jaxmeta.commands.experiment import Modules, words
from jaxmeta.commands.guard import RunPaths, read_arguments, recipes_named
from jaxmeta.commands.transfer_report import (
    Cell,
    cell_of,
    draw,
    gaps,
    rank_changes,
    row_of,
    table,
)
from jaxmeta.commands.transfer_runs import (
    Counts,
    Entrant,
    Own,
    Sizes,
    counts_of,
    entrants_of,
    fitted_temperature,
    fitting,
    found_by,
    read_own,
)
from jaxmeta.data import ClassImages, Dataset
from jaxmeta.data.classes import select
from jaxmeta.data.identity import names_seen
from jaxmeta.data.images.dataset import classes_of
from jaxmeta.data.images.pixels import RESIZE
from jaxmeta.data.images.registry import load_as
from jaxmeta.files import shown
from jaxmeta.recipes import registry
from jaxmeta.recipes.folders import IDENTITY, RESULTS, read_identity
from jaxmeta.recipes.loading import run_keys
from jaxmeta.recipes.outputs import MADE_FROM, digest_of, is_made_from, result_file
from jaxmeta.recipes.results import PerTask, provenance, tasks_digest, write_per_task
from jaxmeta.recipes.settings import AtLeastTwo, Count, Seed
from jaxmeta.recipes.shipped import find_run

SIZE_RULE = f"the side of the run's images: {RESIZE}; drawn glyphs are drawn at this size"
CHANNEL_RULE = (
    "the channels of the run's images: grey as luma 0.299 R + 0.587 G + 0.114 B, colour from grey "
    "as three equal channels; values are not inverted"
)
CLASS_RULE = (
    "the test classes of the set's split, without classes that a run has been trained or validated "
    "on under another split; the split of a run's own set is that of the run; no rotations"
)


def _sets(word: str) -> tuple[str, ...]:
    return tuple(name for name in word.split(",") if name)


@dataclass(frozen=True)
class Transfer:
    """Test every run on every image set."""

    runs: RunPaths
    """Run folders of few_shot or pretrain, or names of trained learners that ship with the package.
    A run of pretrain is tested as frozen features and by fine-tuning."""
    to: Annotated[tuple[str, ...], words("SET,SET,...", _sets)] = ()
    """Image sets besides the runs' own, such as glyphs,mednist,pathmnist.npz."""
    ways: AtLeastTwo = 5
    """Classes per task; all classes of a set that has fewer."""
    shots: Count = 1
    """Support examples per class."""
    queries: Count = 15
    """Query examples per class; fewer for a set with too few images."""
    eval_tasks: AtLeastTwo = 600
    """Number of test tasks per set."""
    calibration_tasks: AtLeastTwo = 100
    """Number of tasks of a run's own validation classes, to fit its temperature."""
    choosing_tasks: AtLeastTwo = 20
    """Number of tasks of a run's own validation classes, to choose the rate of fine-tuning."""
    seed: Seed = 0
    """Seed of the tasks, and of random splits and drawings of sets that no run was trained on."""
    out: Path = Path("transfer.json")
    """JSON file for the result. The values of every task and the pictures are written beside it."""
    recipes: Modules = ()
    """Python modules with your own learners or sets, such as my_module, separated by commas."""


class Target(NamedTuple):
    """A set that all runs are tested on.

    Attributes:
      name: for the table.
      sizes: of its tasks.
      classes: the test classes by the size and the channels of the images.
      digest: identifies its tasks.
      about: for the result.
    """

    name: str
    sizes: Sizes
    classes: Mapping[tuple[int, int], ClassImages]
    digest: str
    about: dict[str, Any]


def command(arguments: list[str], prog: str) -> None:
    """Test, write the result, print the matrix, draw the pictures."""
    registry.load(recipes_named(arguments))
    transfer(read_arguments(Transfer, prog, arguments))


def transfer(options: Transfer) -> dict[str, Any]:
    """As `command`, with parsed options; the result.

    Raises:
      ValueError, OSError: a run that can't be tested on other images, a set that can't be loaded,
        or a file that holds another result.
    """
    if not options.runs:
        raise ValueError("transfer: give one or more runs.")
    files.check_writable(options.out)
    owns = [read_own(find_run(run)) for run in options.runs]
    counts = Counts(options.eval_tasks, options.calibration_tasks, options.choosing_tasks)
    entrants = [entrant for own in owns for entrant in entrants_of(own, counts)]
    _check_names([entrant.name for entrant in entrants])
    names = dict.fromkeys([*(own.images.dataset for own in owns), *options.to])
    targets = [_target(name, owns, options) for name in names]
    _check_names([target.name for target in targets])

    asked = {
        name: value
        for name, value in dataclasses.asdict(options).items()
        if name not in ("runs", "to", "out", "recipes")
    }
    abouts = {target.name: target.about for target in targets}
    identities = [read_identity(own.folder) for own in owns]
    made_from = digest_of(asked, abouts, identities)
    results: dict[str, Any] = {
        MADE_FROM: made_from,
        **provenance(),
        "settings": asked,
        "rules": {"size": SIZE_RULE, "channels": CHANNEL_RULE, "classes": CLASS_RULE},
        "targets": abouts,
    }
    with result_file(options.out, is_made_from(made_from), ".npz"):
        cells, chosen = _cells(entrants, targets, counts, options.seed)
        results["entrants"] = [_about(own, chosen[own.name]) for own in entrants]
        cells = gaps(cells)
        results["cells"] = [row_of(cell) for cell in cells]
        results["ranks"] = rank_changes(cells, entrants)
        files.write_json(options.out, results)
        tests = {
            f"{cell.entrant}/{cell.target}": PerTask(digest, cell.values)
            for cell in cells
            for digest in [next(own.digest for own in targets if own.name == cell.target)]
        }
        write_per_task(options.out.with_suffix(".npz"), tests)
        draw(options.out, cells, f"{options.ways}-way {options.shots}-shot")
    print("\n".join(table(cells)))
    if not any(own.experiment.domain.kind == "supervised" for own in owns):
        print("no baselines: give a run of pretrain, too.")
    print(f"result: {options.out}")
    return results


def _cells(
    entrants: list[Entrant], targets: list[Target], counts: Counts, seed: int
) -> tuple[list[Cell], dict[str, str]]:
    """Every entrant on every target, and the settings that were chosen for each entrant."""
    cells, chosen, key = [], {}, run_keys(seed)[2]
    for entrant in entrants:
        temperatures: dict[Sizes, float] = {}
        for target in targets:
            sizes = target.sizes
            if sizes not in temperatures:
                temperatures[sizes] = fitted_temperature(entrant, sizes, counts)
            classes = target.classes[_format(entrant.own)]
            found = found_by(entrant, classes, sizes, counts.test, key, counts)
            chosen.setdefault(entrant.name, found.chosen)
            is_own = entrant.own.images.dataset == target.about["dataset"]
            given = (found.predictions, temperatures[sizes])
            cell = cell_of(entrant.name, target.name, is_own, *given)
            print(
                f"{shown(cell.entrant)} on {shown(cell.target)}: "
                f"{100 * cell.mean('accuracy'):.1f} ± {100 * cell.ci95('accuracy'):.1f} %",
                flush=True,
            )
            cells.append(cell)
    return cells, chosen


def _format(own: Own) -> tuple[int, int]:
    """The side and the channels of a run's images."""
    side, _, channels = own.data["image_shape"]
    return side, channels


def _target(name: str, owns: list[Own], options: Transfer) -> Target:
    """A set in the formats of all runs, with the classes that no run has seen."""
    trained = [own for own in owns if own.images.dataset == name]
    split = trained[0].images.split if trained else None
    seed = trained[0].experiment.training.seed if trained else options.seed
    datasets: dict[tuple[int, int], Dataset] = {}
    seen: set[str] = set()
    for own in owns:
        size, channels = _format(own)
        if (size, channels) not in datasets:
            datasets[size, channels] = load_as(
                name, image_size=size, channels=channels, split=split, seed=seed
            )
        dataset = datasets[size, channels]
        if dataset.protocol["images_sha256"] != own.seen.data:  # otherwise its split separates them
            seen.update(names_seen(classes_of(dataset, "test"), own.seen.classes))
    classes = {form: _without(dataset.test, seen) for form, dataset in datasets.items()}
    (form, first), *others = classes.items()
    if len(first.names) < 2:
        raise ValueError(
            f"{shown(name)}: the runs were trained or validated on all of its test classes but "
            f"{len(first.names)}; leave it out, or leave these runs out."
        )
    for other, own in others:
        if counts_of(own) != counts_of(first):
            raise ValueError(f"{shown(name)} has other images at {other} than at {form}.")
    sizes = fitting(Sizes(options.ways, options.shots, options.queries), first)
    dataset = datasets[form]
    about = {
        "dataset": name,
        "split": dataset.protocol.get("split"),
        "classes": len(first.names),
        "left_out": len(dataset.test.names) - len(first.names),
        "images": int(first.counts.sum()),
        **sizes._asdict(),
        "ink": dataset.ink,
        "medical": dataset.medical,
        "licence": dataset.licence,
    }
    identity = {"set": _label(name), "classes": counts_of(first), **sizes._asdict()}
    digest = tasks_digest(identity, run_keys(options.seed)[2], options.eval_tasks)
    return Target(_label(name), sizes, classes, digest, about)


def _label(name: str) -> str:
    """The name of a set in the table: of a path, its last part."""
    return Path(name).stem if name.lower().endswith(".npz") else Path(name).name


def _without(classes: ClassImages, names: set[str]) -> ClassImages:
    return select(classes, [row for row, name in enumerate(classes.names) if name not in names])


def _about(entrant: Entrant, chosen: str) -> dict[str, Any]:
    """What the result says of an entrant: how it was trained, and what was chosen for it."""
    own = entrant.own
    size, channels = _format(own)
    trained = own.folder / RESULTS
    found = files.read_json(trained) if trained.is_file() else {}
    return {
        "name": entrant.name,
        "learner": entrant.learner,
        "run": own.folder.name,
        IDENTITY: read_identity(own.folder),
        "dataset": own.images.dataset,
        "image_size": size,
        "channels": channels,
        "query_statistics": own.statistics,
        "training_command": _without_place(found.get("command", "")),
        "best_step": found.get("best_step"),
        "chosen": chosen,
    }


def _without_place(command: str) -> str:
    """A command without the options for its run folder, which may be a path of the machine."""
    given = shlex.split(command)
    kept = [
        word
        for before, word in zip(["", *given], given)
        if before != "--out" and not re.match(r"--(out(=.*)?|overwrite|resume)$", word)
    ]
    return shlex.join(kept)


def _check_names(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two runs or sets are named {shown(name)}; rename one of them.")

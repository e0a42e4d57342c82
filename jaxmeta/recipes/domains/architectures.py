"""Architecture search: `python -m experiments.architectures [LEARNER]`.

A search finds an architecture in a space of which every network was trained once and for all, so
that the accuracy of what it finds is looked up after every epoch, or after every network.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmeta.architecture import SearchSpace
from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Task, cross_entropy
from jaxmeta.data import ClassImages, image_batches
from jaxmeta.data.architectures import Tabulated, nasbench_201, nasbench_macro, row_of
from jaxmeta.data.batches import paired_batches
from jaxmeta.data.cache import digest
from jaxmeta.data.classes import class_images
from jaxmeta.data.images.cifar10 import cifar10
from jaxmeta.data.images.digits import digits
from jaxmeta.data.samplers import sampler
from jaxmeta.models import supernet
from jaxmeta.recipes import (
    ACCURACY,
    Domain,
    HeldOut,
    Needs,
    Preset,
    Problem,
    Report,
    Tasks,
    Training,
    domain,
)
from jaxmeta.recipes.settings import AtLeastTwo, Count, option
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.update import Trained


class _Images(NamedTuple):
    """Labelled images for supernets: `load()`, and how they may be changed at random."""

    load: Callable[[], ClassImages]
    shift: int
    flip: bool


_ONE = {"task_batch": 1, "eval_tasks": 2, "validation_tasks": 2}
_IMAGES = {"cifar10": _Images(cifar10, 4, True), "digits": _Images(digits, 1, False)}


@domain("architectures", kind="architecture")
@dataclass(frozen=True)
class Architectures(Domain):
    """Search for an architecture whose accuracy is tabulated."""

    space: Literal["nasbench-201", "nasbench-macro"] = "nasbench-201"
    """The cells of NAS-Bench-201, or the eight layers of NAS-Bench-Macro."""
    target: Literal["cifar10", "cifar100", "imagenet16"] = "cifar10"
    """Images of the accuracies, with --space nasbench-201."""
    images: Literal["cifar10", "digits"] = "cifar10"
    """Images that the supernet of darts is trained on. One half trains the weights, the other one
    the architecture."""
    image_count: AtLeastTwo = 10_000
    """Number of these images."""
    batch_size: Count = 64
    """Images per batch, of each half."""
    width: Count = 8
    """Channels of the first stage of the supernet; 16 as published."""
    cells: Count = 1
    """Cells per stage of the supernet; 5 as published."""

    default_learner: ClassVar[str] = "random"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("default", {"steps": 500, "checkpoint_every": 10, "chunk": 10, **_ONE}),
        # Dong & Yang 2020, for a GPU: 50 passes over 25,000 images.
        Preset(
            "full",
            {
                "steps": 19_550,
                "checkpoint_every": 391,
                "chunk": 17,
                "width": 16,
                "cells": 5,
                "image_count": 50_000,
                **_ONE,
            },
        ),
    )

    def check(self) -> None:
        if self.space != "nasbench-201" and self.target != "cifar10":
            raise ValueError(
                f"{option('target', self.target)} applies only to --space nasbench-201."
            )

    def label(self) -> str:
        return self.space if self.target == "cifar10" else f"{self.space}-{self.target}"

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        if needs.supernet and self.space != "nasbench-201":
            raise ValueError(
                f"{option('space', self.space)} has no supernet; choose --space nasbench-201, or "
                "metaqnn, evolution or random."
            )

        def network(constants: Any, outputs: int | None) -> Model:
            sizes = {"width": self.width, "cells": self.cells}
            return supernet(outputs, **sizes, sampled=needs.sampled)

        example, classes = Task(jnp.zeros(()), jnp.zeros(())), 0
        if needs.supernet:
            images = jnp.zeros((self.batch_size, *data["image_shape"]))
            batch = Batch(images, jnp.zeros((self.batch_size,), jnp.int32))
            example, classes = Task(batch, batch), data["classes"]
        return Problem(
            kind=self.kind,
            train=train,
            example=example,
            objective=cross_entropy,
            network=network,
            outputs=classes,
            steps=training.steps,
            data=data,
            space=_space(self.space, self.target),
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        table = _table(self.space, self.target)
        source: Any = sampler(_no_task)
        data: dict[str, Any] = {"accuracies_sha256": digest({"searched": table.searched})}
        if needs.supernet:
            chosen = _IMAGES[self.images]
            halves = _halves(chosen.load(), self.image_count, training.seed)
            changes = {"shift": chosen.shift, "flip": chosen.flip}
            source = paired_batches(
                *(image_batches(half, self.batch_size, **changes) for half in halves)
            )
            data |= {
                "image_shape": list(halves[0].images.shape[1:]),
                "classes": len(halves[0].names),
                "images_sha256": digest({str(n): half.images for n, half in enumerate(halves)}),
            }
        best = {name: float(own.max()) for name, own in table.tests.items()}

        def held_out(part: str) -> HeldOut:
            identity = {"space": self.space, "target": self.target, "part": part}
            return HeldOut(source, identity, judge=_judge_of(table, self.target), at_once=1)

        def report(made: Report) -> dict[str, Any]:
            found = _architecture_of(made)
            order = np.sort(table.tests[self.target])[::-1]
            accuracy = float(table.tests[self.target][row_of(found, len(table.options))])
            return {
                "architecture": table.text(found),
                "rank": int(np.searchsorted(-order, -accuracy)) + 1,
                "architectures": len(order),
                "largest_accuracy": best,
            }

        return Tasks(
            train=lambda: source,
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=(ACCURACY,),
            selection=ACCURACY,
            keeps_last=True,
            title=self.label(),
            summary={"space": self.space, "target": self.target},
            protocol={
                "space": self.space,
                "target": self.target,
                "accuracy": "tabulated, of the network trained separately",
                "searched": "tabulated validation accuracy" if not needs.supernet else self.images,
            },
            data=data,
            report=report,
            draw=lambda made: _draw(made, table, best[self.target]),
            extra_lines=_lines,
        )


def _no_task(key: Key) -> Task:
    """Searches of a table have no examples."""
    return Task(jnp.zeros(()), jnp.zeros(()))


def _halves(images: ClassImages, count: int, seed: int) -> list[ClassImages]:
    """Two halves of `count` images drawn at random, each with all classes in equal numbers.

    Raises:
      ValueError: there are fewer images, or too few for both halves.
    """
    classes = len(images.names)
    each = count // (2 * classes)
    if not 1 <= each <= int(images.counts.min()) // 2:
        raise ValueError(
            f"--image-count {count}: give from {2 * classes} to "
            f"{int(images.counts.min()) // 2 * 2 * classes} images for {classes} classes."
        )
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(images.counts)[:-1]])
    rows = np.stack(
        [start + rng.permutation(own)[: 2 * each] for start, own in zip(starts, images.counts)]
    )
    labels = np.repeat(np.arange(classes), each)
    return [
        class_images(images.images[part.ravel()], labels, images.names)
        for part in (rows[:, :each], rows[:, each:])
    ]


@functools.cache
def _table(space: str, target: str) -> Tabulated:
    return nasbench_201(target) if space == "nasbench-201" else nasbench_macro()


@functools.cache  # the same functions for the same settings, which share compiled programs
def _space(space: str, target: str) -> SearchSpace:
    table = _table(space, target)
    options = len(table.options)

    def accuracy(key: Key, architecture: Array, task: Task) -> Array:
        return jnp.asarray(table.searched)[_row(architecture, options)]

    return SearchSpace(
        table.decisions, table.options, np.ones((options + 1, options), bool), accuracy
    )


def _row(architecture: Array, options: int) -> Array:
    """`row_of`, traced."""
    powers = options ** jnp.arange(len(architecture) - 1, -1, -1)
    return (architecture * powers).sum()


def _judge_of(table: Tabulated, target: str) -> Any:
    """The tabulated accuracies of the architecture found so far."""
    searched, tests = table.searched, table.tests

    def judge(
        key: Key, learner: MetaLearner, trained: Trained, task: Task
    ) -> tuple[Array, Mapping[str, Array]]:
        assert learner.derive is not None, "a search derives an architecture"
        found = learner.derive(trained.meta_params, trained.shared)
        row = _row(found, len(table.options))
        accuracies = {name: jnp.asarray(own)[row] for name, own in tests.items()}
        seen = jnp.asarray(searched)[row]
        others = {f"accuracy_{name}": own for name, own in accuracies.items() if name != target}
        return 1 - seen, {"accuracy": accuracies[target], "searched_accuracy": seen, **others}

    return judge


def _architecture_of(made: Report) -> np.ndarray:
    derive = made.learners["test"].derive
    assert derive is not None
    return np.asarray(derive(made.trained.meta_params, made.trained.shared))


def _draw(made: Report, table: Tabulated, best: float) -> None:
    """Draw the accuracy of what is found over the steps, and the cell."""
    from jaxmeta import plots

    rows = [row for row in read_metrics(made.folder) if "validation_accuracy" in row]
    steps, accuracies = (
        np.array([row[name] for row in rows]) for name in ("step", "validation_accuracy")
    )
    plots.run_curves(
        made.folder / "search.png",
        {made.recipe.name: plots.RunCurve(steps, accuracies[None])},
        ylabel="accuracy of the architecture found",
        title=made.title,
        best=best,
    )
    found = _architecture_of(made)
    if table.decisions == len(plots.CELL_EDGES):
        names = [table.options[index] for index in found]
        plots.cell(made.folder / "cell.png", names, title=made.title)


def _lines(results: Mapping[str, Any]) -> list[str]:
    largest = results["largest_accuracy"][results["target"]]
    return [
        f"found {results['architecture']}",
        f"rank {results['rank']:,} of {results['architectures']:,}; the best has "
        f"{100 * largest:.2f} %",
    ]

"""Architecture search: `python -m experiments.architectures [LEARNER]`.

A search finds an architecture in a space. In two of the spaces every network was trained once and
for all, so that the accuracy of what is found is looked up. In the third one, networks are trained
when they are proposed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.architecture import CELL_OPERATIONS
from jaxmeta.core import Batch, Model, Task, cross_entropy
from jaxmeta.data import ClassImages, image_batches
from jaxmeta.data.batches import paired_batches
from jaxmeta.data.cache import digest
from jaxmeta.data.classes import class_images
from jaxmeta.data.images.cifar10 import cifar10
from jaxmeta.data.images.digits import digits
from jaxmeta.data.samplers import Sampler
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
from jaxmeta.recipes.search_spaces import Searched, letters, tabulated
from jaxmeta.recipes.settings import AtLeastTwo, Count, check_owned, option
from jaxmeta.recipes.tasks import Judge
from jaxmeta.training.logs import read_metrics


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
    """Search for an architecture, in tables of trained networks or by training each one."""

    space: Literal["nasbench-201", "nasbench-macro", "letters"] = "nasbench-201"
    """The cells of NAS-Bench-201, the eight layers of NAS-Bench-Macro, or convolutional networks of
    up to five layers, which are trained on letters."""
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
    letters: AtLeastTwo = 30
    """Number of letters, with --space letters."""
    network_steps: Count = 300
    """Training steps of each network, with --space letters."""

    default_learner: ClassVar[str] = "random"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("default", {"steps": 500, "checkpoint_every": 10, "chunk": 10, **_ONE}),
        Preset("full", {"steps": 2700, "checkpoint_every": 100, "chunk": 100, **_ONE}),
    )

    def check(self) -> None:
        own: dict[str, tuple[str, ...]] = {
            "nasbench-201": ("target", "images", "image_count", "batch_size", "width", "cells"),
            "nasbench-macro": (),
            "letters": ("letters", "network_steps"),
        }
        check_owned(self, "space", own)

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

        space = self._space(training)
        example, classes = _zeros(space.sources["validation"]), 0
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
            space=space.space,
        )

    def _space(self, training: Training) -> Searched:
        if self.space == "letters":
            return letters(self.letters, self.network_steps, training.seed)
        return tabulated(self.space, self.target)

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        space = self._space(training)
        known = len(space.space.options) ** space.space.decisions
        if not needs.supernet and training.steps > known:
            raise ValueError(
                f"{option('steps', training.steps)}: --space {self.space} has at most {known:,} "
                "architectures; give fewer steps."
            )
        source, data = space.sources["validation"], dict(space.data)
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

        def held_out(part: str, judge: Judge | None) -> HeldOut:
            identity = {"space": self.space, "target": self.target, "part": part, **space.data}
            return HeldOut(space.sources[part], identity, judge=judge, at_once=1)

        def report(made: Report) -> dict[str, Any]:
            found = _architecture_of(made)
            return {"architecture": space.text(found), **space.extra_results(found)}

        return Tasks(
            train=lambda: source,
            validation=lambda: held_out("validation", space.validate),
            tests={"test": held_out("test", space.judge)},
            figures=(ACCURACY,),
            selection=ACCURACY,
            keeps_last=True,
            title=self.label(),
            summary={"space": self.space, "target": self.target},
            protocol={
                "space": self.space,
                "target": self.target,
                "accuracy": space.accuracy_text,
                "searched": self.images if needs.supernet else "validation accuracy",
            },
            data=data,
            report=report,
            draw=lambda made: _draw(made, space),
            extra_lines=_lines,
        )


def _zeros(source: Sampler) -> Task:
    shapes = jax.eval_shape(source, jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


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


def _architecture_of(made: Report) -> np.ndarray:
    derive = made.learners["test"].derive
    assert derive is not None
    return np.asarray(derive(made.trained.meta_params, made.trained.shared))


def _draw(made: Report, space: Searched) -> None:
    """Draw the accuracy of what is found over the steps, and the cell."""
    from jaxmeta import plots

    rows = [row for row in read_metrics(made.folder) if "validation_accuracy" in row]
    metric = "test_accuracy" if "validation_test_accuracy" in rows[-1] else "accuracy"
    steps, accuracies = (
        np.array([row[name] for row in rows]) for name in ("step", f"validation_{metric}")
    )
    plots.run_curves(
        made.folder / "search.png",
        {made.recipe.name: plots.RunCurve(steps, accuracies[None])},
        ylabel=f"{metric.replace('_', ' ')} of the architecture found",
        title=made.title,
        best=space.largest,
    )
    found = _architecture_of(made)
    if space.space.options == CELL_OPERATIONS:
        names = [CELL_OPERATIONS[index] for index in found]
        plots.cell(made.folder / "cell.png", names, title=made.title)


def _lines(results: Mapping[str, Any]) -> list[str]:
    lines = [f"found {results['architecture']}"]
    if "rank" in results:
        largest = results["largest_accuracy"][results["target"]]
        lines.append(
            f"rank {results['rank']:,} of {results['num_architectures']:,}; the best has "
            f"{100 * largest:.2f} %"
        )
    return lines

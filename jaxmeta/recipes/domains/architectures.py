"""Architecture search: `python -m experiments.architectures [LEARNER]`.

A search finds an architecture in a space. In two of the spaces every network was trained once and
for all, so that the accuracy of what is found is looked up. In the third one, networks are trained
when they are proposed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

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
from jaxmeta.models import cell_network, supernet
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
from jaxmeta.recipes.cells import Alone, architecture_of, cell_lines, draw_cell, trained_alone
from jaxmeta.recipes.search_spaces import Searched, letters, tabulated
from jaxmeta.recipes.settings import AT_TEST, AtLeastTwo, Count, Natural, check_owned, option
from jaxmeta.recipes.tasks import Judge
from jaxmeta.training.logs import read_metrics


class _Images(NamedTuple):
    """Labelled images for supernets.

    Attributes:
      load: `load()`, the images of a search.
      changes: how they may be changed at random.
      load_test: `load_test()`, other images; None for those of `load` that a search leaves out.
    """

    load: Callable[[], ClassImages]
    changes: Mapping[str, Any]
    load_test: Callable[[], ClassImages] | None = None


_RECENT = 10  # networks that are averaged in the picture
_ONE = {"task_batch": 1, "eval_tasks": 2, "validation_tasks": 2}
_IMAGES = {
    "cifar10": _Images(cifar10, {"shift": 4, "flip": True}, partial(cifar10, "test")),
    "digits": _Images(digits, {"shift": 1}),
}


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
    alone_steps: Annotated[Natural, AT_TEST] = 0
    """Training steps of the network that was found, alone, from new weights on all images of the
    search; its accuracy on other images is in the results. Defaults to no training."""
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
            "nasbench-201": (
                *("target", "images", "image_count", "batch_size", "width", "cells"),
                "alone_steps",
            ),
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

    def _parts(self, seed: int) -> "_Parts":
        return _parts(_IMAGES[self.images].load(), self.image_count, seed)

    def _alone(self, seed: int) -> Alone:
        """The training of the network found, on all images of the search."""
        parts, chosen = self._parts(seed), _IMAGES[self.images]
        test = parts.rest if chosen.load_test is None else chosen.load_test()
        if test is None:
            raise ValueError(
                f"{option('image_count', self.image_count)} leaves no {self.images} to test the "
                "network found on; give fewer, or leave --alone-steps out."
            )
        batches = image_batches(parts.all, self.batch_size, **chosen.changes)
        return Alone(batches, test, self.alone_steps, self.batch_size, seed)

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        space = self._space(training)
        known = len(space.space.options) ** space.space.decisions
        if not needs.supernet and training.steps > known:
            raise ValueError(
                f"{option('steps', training.steps)}: --space {self.space} has at most {known:,} "
                "architectures; give fewer steps."
            )
        alone = self._alone(training.seed) if self.alone_steps else None
        source, data = space.sources["validation"], dict(space.data)
        if needs.supernet:
            halves = self._parts(training.seed)[:2]
            changes = _IMAGES[self.images].changes
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
            found = architecture_of(made)
            entries = {"architecture": space.text(found), **space.extra_results(found)}
            if len(seen := _accuracies_seen(made)):
                entries["accuracies_seen"] = seen.round(4).tolist()
            if alone is not None:
                made.say(f"training the network found for {alone.steps:,} steps.")
                sizes = {"width": self.width, "cells": self.cells}
                network = cell_network(found.tolist(), len(alone.test.names), **sizes)
                trained = trained_alone(network, alone)
                entries["alone"] = {**trained, **sizes, "images": self.images}
            return entries

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


class _Parts(NamedTuple):
    """The images of a search.

    Attributes:
      weights: those that train the weights of a supernet.
      architecture: those that train the architecture.
      all: both.
      rest: the others; None if a class has no others.
    """

    weights: ClassImages
    architecture: ClassImages
    all: ClassImages
    rest: ClassImages | None


def _parts(images: ClassImages, count: int, seed: int) -> _Parts:
    """Two halves of `count` images drawn at random, each with all classes in equal numbers.

    Raises:
      ValueError: there are fewer images, or too few for both halves.
    """
    classes, fewest = len(images.names), int(images.counts.min())
    each = count // (2 * classes)
    if not 1 <= each <= fewest // 2:
        raise ValueError(
            f"--image-count {count}: give from {2 * classes} to {fewest // 2 * 2 * classes} images "
            f"for {classes} classes."
        )
    rng = np.random.default_rng(seed)
    rows = [start + rng.permutation(own) for start, own in zip(images.starts, images.counts)]

    def part(first: int, last: int | None) -> ClassImages:
        chosen = [own[first:last] for own in rows]
        labels = np.repeat(np.arange(classes), [len(own) for own in chosen])
        return class_images(images.images[np.concatenate(chosen)], labels, images.names)

    rest = part(2 * each, None) if fewest > 2 * each else None
    return _Parts(part(0, each), part(each, 2 * each), part(0, 2 * each), rest)


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
    if space.space.options == CELL_OPERATIONS:
        draw_cell(made)
    if len(seen := _accuracies_seen(made)):
        count = np.arange(1, len(seen) + 1)
        recent = [seen[max(0, last - _RECENT) : last].mean() for last in count]
        curves = {f"mean of the last {_RECENT}": recent, "best so far": np.maximum.accumulate(seen)}
        rows = [row for row in read_metrics(made.folder) if "train_epsilon" in row]
        drawn = {name: plots.RunCurve(count, np.array(own)[None]) for name, own in curves.items()}
        if rows:
            epsilons = np.array([[row["train_epsilon"] for row in rows]])
            drawn["ε"] = plots.RunCurve(np.array([row["step"] for row in rows]), epsilons)
        plots.run_curves(
            made.folder / "networks.png",
            drawn,
            ylabel="accuracy that the search sees",
            title=made.title,
            xlabel="networks seen",
        )


def _accuracies_seen(made: Report) -> np.ndarray:
    """The accuracies of the networks that a search has proposed, in order; DARTS proposes none."""
    history = getattr(made.trained.shared, "history", None)
    return np.zeros(0) if history is None else np.asarray(history.accuracies[: history.seen])


def _lines(results: Mapping[str, Any]) -> list[str]:
    lines = cell_lines(results)
    if "rank" in results:
        largest = results["largest_accuracy"][results["target"]]
        lines.append(
            f"rank {results['rank']:,} of {results['num_architectures']:,}; the best has "
            f"{100 * largest:.2f} %"
        )
    if "alone" in results:
        alone = results["alone"]
        shown = ACCURACY.show(alone["accuracy"], alone["accuracy_ci95"])
        lines.append(
            f"trained alone for {alone['steps']:,} steps: {shown} on {alone['test_images']:,} "
            f"images of {alone['images']}"
        )
    return lines

"""Learned optimizers: `python -m experiments.optimizers [lstm-optimizer|mlp-optimizer]`.

A learned optimizer is compared with Adam, momentum and RMSprop, each tuned on the same problems:
unseen problems of its family, runs five times as long, and, where they apply to the family,
problems twice as large, another activation, and another data set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta import files
from jaxmeta.core import Array, Key, MetaLearner, Task
from jaxmeta.data import ClassImages, Family, class_images, classifiers, load, quadratics
from jaxmeta.data.cache import digest
from jaxmeta.data.images.digits import digits
from jaxmeta.data.synthetic.optimization import ACTIVATIONS
from jaxmeta.inner import first_order, query_loss, support_loss, unroll
from jaxmeta.models import pack
from jaxmeta.objectives import check_metrics
from jaxmeta.recipes import (
    Domain,
    Figure,
    HeldOut,
    Needs,
    Preset,
    Problem,
    Report,
    Tasks,
    Training,
    domain,
)
from jaxmeta.recipes.folders import IDENTITY
from jaxmeta.recipes.settings import Count, check_owned
from jaxmeta.training.estimates import after_steps, estimate
from jaxmeta.training.parallel import mapped_over_devices, mesh_for, replicate, size_of
from jaxmeta.training.state import draw_keys
from jaxmeta.training.update import Trained

RULE = "rule.npz"  # the weights of the rule, for use in other code
_EXAMPLES = {"digits": (100, 20), "glyphs": (7, 3), "omniglot": (15, 5)}  # shots, queries
_OTHER_SET: dict[str, Any] = {"digits": "glyphs", "glyphs": "digits", "omniglot": "digits"}


class Course(NamedTuple):
    """Problems for a comparison, and the number of steps."""

    family: Family
    horizon: int


@domain("optimizers", kind="optimization")
@dataclass(frozen=True)
class Optimizers(Domain):
    """Meta-train an optimizer on a family of problems and compare it with tuned optimizers."""

    family: Literal["quadratics", "digits", "glyphs", "omniglot"] = "quadratics"
    """Random quadratics, or perceptrons of random width, activation and scale on images."""
    horizon: Count = 100
    """Steps per optimization run in training."""
    dimensions: Count = 10
    """Dimensions of the quadratics."""
    widths: tuple[int, int] = (8, 32)
    """Smallest and largest width of the perceptrons."""
    activations: tuple[str, ...] = ("relu", "tanh", "sigmoid")
    """Activations of the perceptrons, from relu, tanh, sigmoid and elu."""
    scales: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor to the standard deviation of the perceptrons' initial weights."""
    problem_batch: Count = 64
    """Images per step of the perceptrons."""
    tuning_tasks: Count = 200
    """Number of test problems on which the rates of Adam, momentum and RMSprop are tuned."""

    default_learner: ClassVar[str] = "lstm-optimizer"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {"steps": 2000, "task_batch": 16, "outer_schedule": "cosine", "clip_norm": 1.0},
        ),
    )

    def check(self) -> None:
        """Check that settings of quadratics or of perceptrons are given to these alone."""
        perceptrons = ("widths", "activations", "scales", "problem_batch")
        own = dict.fromkeys(("digits", "glyphs", "omniglot"), perceptrons)
        check_owned(self, "family", {"quadratics": ("dimensions",), **own})

    def label(self) -> str:
        return self.family

    def _problems(self, classes: ClassImages | None, **changes: Any) -> Family:
        """Problems on these classes, or quadratics if None; `changes` replace settings."""
        own = replace(self, **changes)
        if classes is None:
            return quadratics(own.dimensions)
        shots, queries = _EXAMPLES[own.family]
        return classifiers(
            classes,
            ways=10,
            shots=shots,
            queries=queries,
            widths=own.widths,
            activations=own.activations,
            scales=own.scales,
            problem_batch=own.problem_batch,
        )

    def courses(self, seed: int) -> dict[str, Course]:
        """The problems on which the optimizers are compared, by name."""

        def unseen(**changes: Any) -> Family:
            family = changes.get("family", self.family)
            return self._problems(_classes(family, "test", seed), **changes)

        found = {
            "unseen problems": Course(unseen(), self.horizon),
            f"{5 * self.horizon} steps": Course(unseen(), 5 * self.horizon),
        }
        if self.family == "quadratics":
            changes: dict[str, dict[str, Any]] = {
                "twice the dimensions": {"dimensions": 2 * self.dimensions}
            }
        else:
            low, high = self.widths
            other = [name for name in ACTIVATIONS if name not in self.activations]
            changes = {
                "twice the width": {"widths": (2 * low, 2 * high)},
                **{f"activation {name}": {"activations": (name,)} for name in other[:1]},
                f"on {_OTHER_SET[self.family]}": {"family": _OTHER_SET[self.family]},
            }
        return found | {
            name: Course(unseen(**change), self.horizon) for name, change in changes.items()
        }

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        # The network depends on the shape of the images only, so blank images suffice.
        classes = None if self.family == "quadratics" else _blank(data["image_shape"], self.family)
        return _problem(Course(self._problems(classes), self.horizon), training, train)

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        seed = training.seed
        train, validation = (_classes(self.family, part, seed) for part in ("train", "validation"))
        courses = self.courses(seed)
        curves: dict[str, dict[str, Curve]] = {}  # from the report to the picture
        data: dict[str, Any] = {}
        if train is not None and validation is not None:
            images = {"train": train.images, "validation": validation.images}
            data = {
                "image_shape": list(train.images.shape[1:]),
                "images_sha256": digest(images),
            }
        names = ("family", "dimensions", "widths", "activations", "scales", "problem_batch")
        own = {**data, **{name: getattr(self, name) for name in names}}

        def held_out(name: str, course: Course, judge: Any = None) -> HeldOut:
            problem = _problem(course, training, train=False)
            identity = {**own, "course": name, "horizon": course.horizon}
            return HeldOut(course.family.sample, identity, problem, judge=judge, at_once=32)

        return Tasks(
            train=lambda: self._problems(train).sample,
            # Checkpoints are chosen by the loss, even if there is an accuracy.
            validation=lambda: held_out(
                "validation", Course(self._problems(validation), self.horizon)
            ),
            tests={
                name: held_out(name, course, partial(_judge, course))
                for name, course in courses.items()
            },
            figures=(Figure("final_loss", "final loss"),),
            title=self.family,
            summary={"family": self.family},
            protocol={
                "horizon": self.horizon,
                "tuned": f"each on the first {self.tuning_tasks} of these problems, by the mean "
                "loss after the last step",
            },
            data=data,
            report=partial(_report, courses, self.tuning_tasks, curves),
            draw=partial(_draw, curves),
            extra_lines=_lines,
        )


def _classes(name: str, part: str, seed: int) -> ClassImages | None:
    """The classes of a part. Digits has the same ten in all parts; only its networks are unseen."""
    if name == "quadratics":
        return None
    return digits() if name == "digits" else getattr(load(name, seed=seed), part)


def _blank(shape: list[int], family: str) -> ClassImages:
    """Ten classes of black images, with as many examples as a problem takes."""
    each = sum(_EXAMPLES[family])
    labels = np.repeat(np.arange(10), each)
    return class_images(np.zeros((10 * each, *shape), np.uint8), labels, "0123456789")


def _problem(course: Course, training: Training, train: bool) -> Problem:
    family = course.family
    shapes = jax.eval_shape(family.sample, jax.random.key(0))
    return Problem(
        kind="optimization",
        train=train,
        example=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
        objective=family.objective,
        network=lambda constants, outputs: family.model,
        horizon=course.horizon,
        batch=family.problem_batch,
        steps=training.steps,
    )


def _judge(
    course: Course, key: Key, learner: MetaLearner, trained: Trained, task: Task
) -> tuple[Array, Mapping[str, Array]]:
    """The mean query loss over a run, with the last (`final_loss`) and all of them (`losses`)."""
    given = (key, trained.meta_params, task)
    losses, metrics = after_steps(learner, course.family.objective, *given)
    check_metrics(metrics, "final_loss", "losses")
    last = {name: values[-1] for name, values in metrics.items()}
    return losses[1:].mean(), {**last, "final_loss": losses[-1], "losses": losses}


# --- the comparison -----------------------------------------------------------------------

TUNED: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "momentum": partial(optax.sgd, momentum=0.9),
    "rmsprop": optax.rmsprop,
}
_GRID = tuple(10.0 ** (power / 2) for power in range(-7, 1))  # 3e-4 … 1
_WIDENINGS = 8
_DIVERGED = 1e6


class Curve(NamedTuple):
    """The losses of an optimizer.

    Attributes:
      losses: query losses, float `[tasks, steps + 1]`.
      rate: the tuned learning rate; None for a learned optimizer.
      inside: whether the rate is inside the grid, not at an end, after widening.
    """

    losses: np.ndarray
    rate: float | None
    inside: bool = True


def compare(course: Course, key: Key, tasks: int, tuning_tasks: int) -> dict[str, Curve]:
    """The losses of each tuned optimizer at its best rate on these tasks.

    The best rate has the lowest mean loss after the last step, over the first `tuning_tasks` of
    the tasks. If it is at an end of the grid, the grid is widened.
    """
    keys = jax.random.split(key, tasks)
    curves = {}
    for name, make in TUNED.items():
        of_rate = losses_of(course, make)
        found = {rate: of_rate(jnp.asarray(rate), keys[:tuning_tasks]) for rate in _GRID}
        while not (inside := min(found) < (best := _best(found)) < max(found)):
            if len(found) >= len(_GRID) + _WIDENINGS:
                break
            end = best / np.sqrt(10) if best == min(found) else best * np.sqrt(10)
            found[end] = of_rate(jnp.asarray(end), keys[:tuning_tasks])
        curves[name] = Curve(of_rate(jnp.asarray(best), keys), best, inside)
    return curves


def _best(found: dict[float, np.ndarray]) -> float:
    return min(found, key=lambda rate: found[rate][:, -1].mean())


def losses_of(
    course: Course, make: Callable[[Any], optax.GradientTransformation]
) -> Callable[[Array, Key], np.ndarray]:
    """`losses(rate, keys)`: the query losses of the tasks with these keys, `[tasks, steps + 1]`.

    Tasks, initial parameters and minibatches are the same as for a learner with these keys.
    """
    model, objective = course.family.model, course.family.objective
    run = unroll(
        support_loss(model, objective),
        None,
        course.horizon,
        differentiation=first_order,
        batch_size=course.family.problem_batch,
    )

    def on_one_device(given: tuple[Any, Array], keys: Key) -> Array:
        sample, rate = given

        def of_task(key: Key) -> Array:
            task_key, learn_key = draw_keys(key)
            init_key, run_key = jax.random.split(learn_key)
            task = sample(task_key)
            params = model.init(init_key, task.support.inputs)
            observe = query_loss(model, objective, task)
            end = run(run_key, params, task.support, optimizer=make(rate), observe=observe)
            return end.observations[0]

        return jax.lax.map(of_task, keys, batch_size=32)

    mesh = mesh_for(jax.device_count())
    losses = jax.jit(on_one_device) if mesh is None else mapped_over_devices(on_one_device, mesh)

    def finite(rate: Array, keys: Key) -> np.ndarray:
        # Padded to a multiple of the devices; the padding is removed from the result.
        count = -(-len(keys) // size_of(mesh)) * size_of(mesh)
        padded = keys[jnp.arange(count) % len(keys)]
        given, padded = replicate(((course.family.sample, rate), padded), mesh)
        return _clipped(np.asarray(losses(given, padded), np.float64)[: len(keys)])

    return finite


def _clipped(values: np.ndarray) -> np.ndarray:
    """Losses with diverged values set to a large finite one."""
    return np.clip(np.nan_to_num(values, nan=_DIVERGED, posinf=_DIVERGED), None, _DIVERGED)


def summary(curves: dict[str, Curve]) -> dict[str, Any]:
    """The mean loss after the last step and over all steps, with 95 % intervals over tasks."""

    def of_values(values: np.ndarray) -> tuple[float, float]:
        found = estimate(values)
        return float(found.mean), float(found.ci95)

    rows = {}
    for name, curve in curves.items():
        last, last_ci95 = of_values(curve.losses[:, -1])
        mean, mean_ci95 = of_values(curve.losses[:, 1:].mean(axis=1))
        # On the same tasks, the paired difference has a smaller interval than either mean.
        lead = of_values(curves["learned"].losses[:, -1] - curve.losses[:, -1])
        rows[name] = {
            "final_loss": last,
            "final_loss_ci95": last_ci95,
            "mean_loss": mean,
            "mean_loss_ci95": mean_ci95,
            "learned_minus_this": lead[0],
            "learned_minus_this_ci95": lead[1],
            "diverged": float((curve.losses[:, -1] >= _DIVERGED).mean()),
            "rate": curve.rate,
            "rate_inside_grid": curve.inside,
        }
    return rows


def _report(
    courses: dict[str, Course],
    tuning_tasks: int,
    curves: dict[str, dict[str, Curve]],
    made: Report,
) -> dict[str, Any]:
    """Compare the learned optimizer with the tuned ones on every course."""
    for name, course in courses.items():
        made.say(f"tuning Adam, momentum and RMSprop: {name}.")
        learned = _clipped(np.asarray(made.values[name]["losses"], np.float64))
        tuned = compare(course, made.key, len(learned), tuning_tasks)
        curves[name] = {"learned": Curve(learned, None), **tuned}
    return {"comparison": {name: summary(found) for name, found in curves.items()}}


def _draw(curves: dict[str, dict[str, Curve]], made: Report) -> None:
    from jaxmeta import plots

    panels = {
        name: {optimizer: curve.losses for optimizer, curve in found.items()}
        for name, found in curves.items()
    }
    plots.optimization_curves(made.folder / "comparison.png", panels, title=made.title)
    rule = pack(jax.device_get(made.trained.meta_params), made.results[IDENTITY])
    files.write_bytes(made.folder / RULE, rule)


def _lines(results: Mapping[str, Any]) -> list[str]:
    """The comparison as lines of text."""
    lines = []
    for name, rows in results["comparison"].items():
        cells = [
            f"{optimizer} {row['final_loss']:.4g} ± {row['final_loss_ci95']:.2g}"
            for optimizer, row in rows.items()
        ]
        lines.append(f"{name}: {', '.join(cells)}")
    return lines

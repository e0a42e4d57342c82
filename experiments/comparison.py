"""Optimizers side by side: a learned one on problems it has not seen, others tuned on them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta.core import Array, Key
from jaxmeta.data.synthetic.optimization import Family
from jaxmeta.inner import first_order, query_loss, support_loss, unroll
from jaxmeta.training.estimates import estimate
from jaxmeta.training.parallel import mapped_over_devices, mesh_for, replicate, size_of

TUNED: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "momentum": partial(optax.sgd, momentum=0.9),
    "rmsprop": optax.rmsprop,
}
_GRID = tuple(10.0 ** (power / 2) for power in range(-7, 1))  # 3e-4 … 1
_WIDENINGS = 8
_DIVERGED = 1e6


class Curve(NamedTuple):
    """How an optimizer did.

    Attributes:
      losses: query losses, float `[tasks, steps + 1]`.
      rate: the tuned one; None for a learned optimizer.
      inside: whether that rate lies inside the grid, which was widened for it.
    """

    losses: np.ndarray
    rate: float | None
    inside: bool = True


class Course(NamedTuple):
    """Problems to compare on, and for how many steps."""

    family: Family
    steps: int


def compare(
    course: Course,
    learned: optax.GradientTransformation,
    key: Key,
    tasks: int,
    tuning_tasks: int,
) -> dict[str, Curve]:
    """Each tuned optimizer at its best rate on these very tasks, and the learned one.

    A rate is best by the mean loss after the last step, over the first `tuning_tasks` of the
    tasks. Where the best one lies at an end of the grid, the grid is widened.
    """
    keys = jax.random.split(key, tasks)
    some = keys[:tuning_tasks]
    curves = {"learned": Curve(_losses(course, lambda _: learned)(jnp.zeros(()), keys), None)}
    for name, make in TUNED.items():
        of_rate = _losses(course, make)
        found = {rate: of_rate(jnp.asarray(rate), some) for rate in _GRID}
        while not (inside := min(found) < (best := _best(found)) < max(found)):
            if len(found) >= len(_GRID) + _WIDENINGS:
                break
            end = best / np.sqrt(10) if best == min(found) else best * np.sqrt(10)
            found[end] = of_rate(jnp.asarray(end), some)
        curves[name] = Curve(of_rate(jnp.asarray(best), keys), best, inside)
    return curves


def _best(found: dict[float, np.ndarray]) -> float:
    return min(found, key=lambda rate: found[rate][:, -1].mean())


def _losses(
    course: Course, make: Callable[[Any], optax.GradientTransformation]
) -> Callable[[Array, Key], np.ndarray]:
    """`losses(rate, keys)`: the query losses of the tasks of these keys, `[tasks, steps + 1]`."""
    model, objective = course.family.model, course.family.objective
    run = unroll(
        support_loss(model, objective),
        None,
        course.steps,
        differentiation=first_order,
        batch_size=course.family.problem_batch,
    )

    def on_one_device(given: tuple[Any, Array], keys: Key) -> Array:
        sample, rate = given

        def of_task(key: Key) -> Array:
            task_key, init_key, run_key = jax.random.split(key, 3)
            task = sample(task_key)
            params = model.init(init_key, task.support.inputs)
            judge = query_loss(model, objective, task)
            end = run(run_key, params, task.support, optimizer=make(rate), observe=judge)
            return end.observations[0]

        return jax.lax.map(of_task, keys, batch_size=32)

    mesh = mesh_for(jax.device_count())
    losses = jax.jit(on_one_device) if mesh is None else mapped_over_devices(on_one_device, mesh)

    def finite(rate: Array, keys: Key) -> np.ndarray:
        # As many as divide among the devices; those that are too many are left out again.
        count = -(-len(keys) // size_of(mesh)) * size_of(mesh)
        padded = keys[jnp.arange(count) % len(keys)]
        given, padded = replicate(((course.family.sample, rate), padded), mesh)
        values = np.asarray(losses(given, padded), np.float64)[: len(keys)]
        # What has diverged counts as far worse than anything that has not.
        return np.clip(np.nan_to_num(values, nan=_DIVERGED, posinf=_DIVERGED), None, _DIVERGED)

    return finite


def summary(curves: dict[str, Curve]) -> dict[str, Any]:
    """The mean loss after the last step and over all steps, with 95 % intervals over tasks."""

    def of_values(values: np.ndarray) -> tuple[float, float]:
        found = estimate(values)
        return float(found.mean), float(found.ci95)

    rows = {}
    for name, curve in curves.items():
        last, last_ci95 = of_values(curve.losses[:, -1])
        mean, mean_ci95 = of_values(curve.losses[:, 1:].mean(axis=1))
        # The same tasks for all: their difference has a smaller interval than either.
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

"""The comparison of models of a dynamics on test tasks: errors ahead, and returns of control."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, PyTree, Task
from jaxmeta.data.control import Scales, process_of
from jaxmeta.recipes.dynamics_models import (
    DynamicsModel,
    ModelOf,
    linear_features,
    open_loop_errors,
    quadratic_features,
    regression_model,
)
from jaxmeta.recipes.results import plain
from jaxmeta.training.estimates import Estimate, estimate, estimates
from jaxmeta.training.state import Trained, draw_keys

UNADAPTED, ADAPTED, TRUE = "not adapted", "adapted", "true model"
FEATURES = {"linear": linear_features, "quadratic": quadratic_features}
# Of 16 steps with 15 features, a smaller one is lost in the rounding of float32.
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class Drawn(NamedTuple):
    """Tasks, with what is behind them, `[tasks, ...]`.

    Attributes:
      tasks: windows of trajectories.
      processes: the process of each, such as mass and length.
      learn_keys: the key to learn from each.
    """

    tasks: Task
    processes: PyTree
    learn_keys: Key


def draw_processes(source: Any, keys: Key) -> Drawn:
    """The tasks that an evaluation draws with these keys, with their processes."""

    @jax.jit
    def draw_all(sample: Any, keys: Key) -> Drawn:
        def of_key(key: Key) -> Drawn:
            sample_key, learn_key = draw_keys(key)
            return Drawn(sample(sample_key), process_of(sample, sample_key), learn_key)

        return jax.vmap(of_key)(keys)

    return draw_all(source, keys)


def first(drawn: Drawn, count: int) -> Drawn:
    """The first `count` tasks."""
    return jax.tree.map(lambda leaf: leaf[:count], drawn)


def _ahead(model: DynamicsModel, drawn: Drawn, scales: Scales, steps: int) -> Array:
    """The open-loop errors on one task."""
    adapted = model.adapt(drawn.learn_keys, drawn.tasks.support)
    return open_loop_errors(model, adapted, drawn.tasks.query, scales, steps)


def tuned_regression(drawn: Drawn, scales: Scales, steps: int) -> tuple[str, float]:
    """The features and the ridge of least squares with the least mean open-loop error."""

    @jax.jit
    def mean_errors(drawn: Drawn) -> dict[str, Array]:
        def of_penalty(features: Any, penalty: Array) -> Array:
            model = regression_model(features, penalty, scales)
            return jax.vmap(lambda row: _ahead(model, row, scales, steps))(drawn).mean()

        ridges = jnp.asarray(_RIDGES)
        return {
            name: jax.lax.map(functools.partial(of_penalty, features), ridges)
            for name, features in FEATURES.items()
        }

    found = {
        (name, ridge): mean
        for name, means in mean_errors(drawn).items()
        for ridge, mean in zip(_RIDGES, np.nan_to_num(means, nan=np.inf).tolist())
    }
    return min(found, key=lambda choice: found[choice])


def open_loop(
    trained: Trained, models: Mapping[str, ModelOf], drawn: Drawn, scales: Scales, steps: int
) -> dict[str, np.ndarray]:
    """The errors 1, 2, ... steps ahead, `[tasks, steps]`, by model."""

    @jax.jit
    def errors(trained: Trained, drawn: Drawn) -> dict[str, Array]:
        def of_task(drawn: Drawn) -> dict[str, Array]:
            return {
                name: _ahead(make(trained, drawn.processes), drawn, scales, steps)
                for name, make in models.items()
            }

        return jax.lax.map(of_task, drawn, batch_size=100)

    found = errors(trained, drawn)
    return {name: np.asarray(found[name]) for name in models}


def returns_of(
    trained: Trained,
    models: Mapping[str, ModelOf],
    drawn: Drawn,
    play: Callable[[DynamicsModel, Key, PyTree], Array],
    say: Callable[[str], object],
) -> dict[str, np.ndarray]:
    """The returns `[tasks]` of control with every model, on the same tasks, starts and keys."""
    found = {}
    for name, make in models.items():
        say(f"controlling {len(drawn.learn_keys)} test tasks: {name}.")

        @jax.jit
        def run(trained: Trained, drawn: Drawn, make: ModelOf = make) -> Array:
            def of_task(drawn: Drawn) -> Array:
                model = make(trained, drawn.processes)
                return play(model, drawn.learn_keys, drawn.processes)

            return jax.lax.map(of_task, drawn, batch_size=10)

        found[name] = np.asarray(run(trained, drawn))
    return found


def compared(returns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The returns, their paired lead over no adaptation, and the share of the gap, with intervals.

    gap_closed = (R − R_not_adapted) / (R_true − R_not_adapted), of the means
    """
    low, high = returns[UNADAPTED], returns[TRUE]
    rows = {}
    for name, values in returns.items():
        lead = {"return": values, "minus_not_adapted": values - low}
        gap = {"gap_closed": share_of_gap(values, low, high)}
        rows[name] = {**plain(estimates(lead)), **plain(gap)}
    return rows


def share_of_gap(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> Estimate:
    """The mean of `values − low` over the mean of `high − low`, paired over the tasks.

    The interval is that of a ratio of means (the delta method): of r_i = (v_i − s g_i) / ḡ, with
    v_i and g_i the two differences of task i, s their ratio, and ḡ the mean gap.

    >>> gap = share_of_gap(np.array([2.0, 3.0]), np.array([0.0, 1.0]), np.array([4.0, 5.0]))
    >>> gap.mean.item(), gap.ci95.item()
    (0.5, 0.0)
    """
    own, gap = (np.asarray(of, np.float64) - low for of in (values, high))
    with np.errstate(all="ignore"):  # no gap
        share = own.mean() / gap.mean()
        return Estimate(share, estimate((own - share * gap) / gap.mean()).ci95)

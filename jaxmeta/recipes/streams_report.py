"""The evaluation on streams: rules that know more or less of the switches, and detection."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array
from jaxmeta.learners.process.gaussian import component_densities
from jaxmeta.recipes.results import plain
from jaxmeta.recipes.tasks import Report
from jaxmeta.training.estimates import estimate
from jaxmeta.training.feed import Source
from jaxmeta.training.state import draw_keys

Truth = Callable[[Any, Array], Array]
"""`truth(sample, key)`: where the stream of that key switches, bool `[length]`."""

TOLERANCE = 2  # examples: how near to a switch a regime must begin to be the right one
RECOVERY = 20  # examples after a switch that are reported one by one
_VALIDATION = 200  # streams on which the window is chosen
KNOWN, NEVER, ALWAYS = "known switches", "no adaptation", "all examples"


class Streamed(NamedTuple):
    """The streams of an evaluation, by the learner that follows them.

    Attributes:
      learned: float `[streams, T]`, the log-density of each target by the learner.
      by_length: float `[streams, T, T + 1]`, its log-density given each number of last examples.
      posterior: float `[streams, T, T + 1]`, the belief about the run length after each target.
      switches: bool `[streams, T]`, the true switches; None if nobody knows them.
    """

    learned: np.ndarray
    by_length: np.ndarray
    posterior: np.ndarray
    switches: np.ndarray | None


def compared(made: Report, validation: Source, truth: Truth | None) -> dict[str, Any]:
    """Other rules on the learner's parameters, and how well it detects switches.

    A rule is a choice of how many of the last examples a prediction is made from: those since the
    last true switch, all of the stream, none, or the last n, with n chosen on validation streams.
    `learned_minus_this` is the mean over streams of the learner's loss minus the rule's, with the
    95 % interval of the paired differences. Only for a recipe with `follower`.
    """
    if not hasattr(made.recipe, "follower"):
        return {}
    test, values = made.tests["test"], made.values["test"]["loss"]
    chosen = _streamed(made, validation, None, jax.random.fold_in(made.key, 1), _VALIDATION)
    window = best_window(chosen.by_length)
    found = _streamed(made, test.source, truth, made.key, len(values))
    densities = rule_densities(found, window)
    learned = -found.learned.mean(axis=1)
    rows: dict[str, Any] = {"learned": plain({"loss": estimate(learned)})}
    for name, own in densities.items():
        rows[name] = {
            **plain({"loss": estimate(-own.mean(axis=1))}),
            **plain({"learned_minus_this": estimate(learned + own.mean(axis=1))}),
        }
    results: dict[str, Any] = {"rules": rows, "window": window}
    if jax.tree.leaves(made.trained.meta_params.log_odds):
        results["hazard"] = float(jax.nn.sigmoid(made.trained.meta_params.log_odds))
    if found.switches is not None:
        results["detection"] = detection(found.posterior, found.switches)
        results["since_switch"] = {
            name: since_switch(-own, found.switches)
            for name, own in {"learned": found.learned, **densities}.items()
        }
    return results


def _streamed(
    made: Report, source: Source, truth: Truth | None, key: Array, count: int
) -> Streamed:
    follow = made.recipe.follower(made.tests["test"].problem)

    def of_task(sample: Any, meta_params: Any, key: Array) -> tuple[Array, ...]:
        task_key, _ = draw_keys(key)
        stream = sample(task_key).query
        followed = follow(meta_params, stream)
        by_length = component_densities(followed.predictions, stream.targets)
        learned = jax.nn.logsumexp(followed.predictions.log_weights + by_length, axis=1)
        switches = jnp.zeros(1, bool) if truth is None else truth(sample, task_key)
        return learned, by_length, jnp.exp(followed.log_posterior_TR), switches

    @jax.jit
    def of_tasks(sample: Any, meta_params: Any, keys: Array) -> tuple[Array, ...]:
        return jax.lax.map(lambda key: of_task(sample, meta_params, key), keys, batch_size=10)

    # The keys of the evaluation: the i-th does not depend on the number of keys.
    given = (source, made.trained.meta_params, jax.random.split(key, count))
    learned, by_length, posterior, switches = jax.device_get(of_tasks(*given))
    return Streamed(learned, by_length, posterior, None if truth is None else switches)


def best_window(by_length: np.ndarray) -> int:
    """The number of last examples with the highest mean log-density, at least 1.

    Args:
      by_length: float `[streams, T, T + 1]`; at the example t, r > t counts as t.
    """
    length = by_length.shape[1]
    steps = np.arange(length)
    means = [
        by_length[:, steps, np.minimum(steps, window)].mean() for window in range(1, length + 1)
    ]
    return 1 + int(np.argmax(means))


def rule_densities(found: Streamed, window: int) -> dict[str, np.ndarray]:
    """The log-density of each target under each rule, `[streams, T]`."""
    streams, length = found.learned.shape
    steps = np.arange(length)

    def given(last: np.ndarray) -> np.ndarray:
        last = np.broadcast_to(last, (streams, length))
        return np.take_along_axis(found.by_length, last[..., None], axis=2)[..., 0]

    rules = {f"last {window}": np.minimum(steps, window), ALWAYS: steps, NEVER: 0 * steps}
    if found.switches is not None:
        rules = {KNOWN: steps - starts_of(found.switches), **rules}
    return {name: given(last) for name, last in rules.items()}


def starts_of(switches: np.ndarray) -> np.ndarray:
    """The first example of the regime of each example, `[streams, T]`.

    >>> starts_of(np.array([[False, False, True, False]])).tolist()
    [[0, 0, 2, 2]]
    """
    steps = np.where(switches, np.arange(switches.shape[1]), 0)
    return np.maximum.accumulate(steps, axis=1)


def detection(
    posterior: np.ndarray, switches: np.ndarray, tolerance: int = TOLERANCE
) -> dict[str, Any]:
    """When a belief notices the switches, and how often it believes in switches that are none.

    A switch at s is detected at the first t ≥ s before the next switch at which the regime is
    believed, with a probability above 1/2, to have begun at s − tolerance or later; its delay is
    t − s, so 0 at the first example of the new regime. A false alarm is the first of successive
    examples at which the present regime is believed, likewise, to have begun later than
    s + tolerance.

    Args:
      posterior: float `[streams, T, T + 1]`, the belief about the run length after each example.
      switches: bool `[streams, T]`.
      tolerance: see above.

    Returns:
      `delay` over detected switches, `detected` as a fraction of all switches, and `false_alarms`
      per 100 examples, each with a 95 % interval: over switches, and over streams; the number of
      `switches`, and the `tolerance`.
    """
    length = switches.shape[1]
    steps, starts = np.arange(length), starts_of(switches)
    # The probability that the regime began at `first` or later: of a run length ≤ t − first.
    below = np.cumsum(posterior, axis=2)

    def began_from(first: np.ndarray) -> np.ndarray:
        run_length = np.clip(steps - first, -1, length)
        found = np.take_along_axis(below, np.maximum(run_length, 0)[..., None], axis=2)[..., 0]
        return np.where(run_length < 0, 0.0, found)

    right = began_from(starts - tolerance) > 0.5
    wrong = began_from(starts + tolerance + 1) > 0.5
    delays, seen = [], []
    for stream, first in np.argwhere(switches):
        own = right[stream, first:][starts[stream, first:] == first]
        seen.append(bool(own.any()))
        if own.any():
            delays.append(int(np.argmax(own)))
    onsets = wrong & ~np.pad(wrong, ((0, 0), (1, 0)))[:, :-1]
    alarms = {"false_alarms": estimate(100 * onsets.mean(axis=1))}
    for name, own in {"delay": delays, "detected": seen}.items():
        if len(own) > 1:
            alarms[name] = estimate(np.array(own, np.float64))
    return {**plain(alarms), "switches": len(seen), "tolerance": tolerance}


def since_switch(losses: np.ndarray, switches: np.ndarray) -> list[float | None]:
    """The mean loss at the first, second, … example of a regime that begins with a switch."""
    starts = starts_of(switches)
    since = np.where(starts > 0, np.arange(losses.shape[1]) - starts, -1)
    rows = [losses[since == number] for number in range(RECOVERY)]
    return [float(own.mean()) if own.size else None for own in rows]


def comparison_lines(results: Mapping[str, Any]) -> list[str]:
    """A line for each rule, and one on the detection of switches."""
    lines = [
        f"{name}: {row['loss']:.3f}, learned minus this {row['learned_minus_this']:+.3f} ± "
        f"{row['learned_minus_this_ci95']:.2g}"
        for name, row in results.get("rules", {}).items()
        if name != "learned"
    ]
    own = results.get("detection", {})
    if "delay" in own:
        lines.append(
            f"switches detected: {100 * own['detected']:.1f} % of {own['switches']}, after "
            f"{own['delay']:.2f} ± {own['delay_ci95']:.2g} examples; false alarms in 100 examples: "
            f"{own['false_alarms']:.2f} ± {own['false_alarms_ci95']:.2g}"
        )
    if "hazard" in results:
        lines.append(f"learned hazard rate: {results['hazard']:.3g}")
    return lines


def draw_belief(made: Report, *, truth: Truth | None) -> None:
    """Draw the belief over the run length on one test stream, and the losses after a switch."""
    if not hasattr(made.recipe, "follower"):
        return
    from jaxmeta import plots

    test, _, (task, sample_key, _) = made.test("test")
    follow = jax.jit(made.recipe.follower(test.problem))
    followed = follow(made.trained.meta_params, task.query)
    plots.run_lengths(
        made.folder / "belief.png",
        np.asarray(task.query.targets)[:, 0],
        np.exp(np.asarray(followed.log_posterior_TR)),
        None if truth is None else np.asarray(truth(test.source, sample_key)),
        title=f"{made.title}: one test stream",
    )
    if "since_switch" in made.results:
        curves = made.results["since_switch"]
        plots.losses_since_switch(made.folder / "since-switch.png", curves, title=made.title)

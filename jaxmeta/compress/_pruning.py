"""Magnitude pruning: the smallest weights become zero, at once or during further training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.compress._weights import map_weights, weights_of
from jaxmeta.core import Array, Info, Key, PyTree
from jaxmeta.training.state import Sample, TrainState
from jaxmeta.training.update import MetaUpdate


def pruned(params: PyTree, sparsity: float) -> PyTree:
    """The parameters with the smallest weights of all layers set to zero.

        w_i ← 0  for the n = round(s N) smallest |w_i| of all N weights

    Exactly n weights become zero, also if several have the same magnitude: the first of them, in
    the order of the leaves. Biases, scales and shifts are unchanged; learned inner rates of a
    kernel are arrays of its shape, and so count as weights.

    Args:
      params: any tree, such as the meta-parameters of a learner.
      sparsity: s, the fraction of zeros.

    Raises:
      ValueError: a sparsity outside [0, 1); no leaf is a weight.

    Source: Han et al. 2015, "Learning both weights and connections for efficient neural networks",
    section 3, here with one threshold for all layers.

    >>> params = {"bias": jnp.array([0.1, 0.2]), "kernel": jnp.array([[3.0, -1.0], [0.5, -2.0]])}
    >>> pruned(params, 0.5)["kernel"].tolist()
    [[3.0, 0.0], [0.0, -2.0]]
    """
    (number,) = _numbers("pruned", params, (sparsity,))
    return _masked(params, _largest(params, number))


def sparsity_schedule(sparsity: float, prunings: int, *, initial: float = 0.0) -> tuple[float, ...]:
    """The sparsities of gradual pruning, before the first and after each of n prunings.

        s_k = s_f + (s_i − s_f) (1 − k/n)³,  k = 0, 1, …, n

    Args:
      sparsity: s_f, the final sparsity.
      prunings: n.
      initial: s_i.

    Raises:
      ValueError: fewer than one pruning; sparsities outside [0, 1), or a final one below the
        initial one.

    Source: Zhu, Gupta 2017, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", equation 1, with t = t_0 + k Δt.

    >>> [round(s, 3) for s in sparsity_schedule(0.8, 2)]
    [0.0, 0.7, 0.8]
    """
    if prunings < 1:
        raise ValueError(f"prunings is {prunings}; give at least 1.")
    for own in (initial, sparsity):
        _check_sparsity("sparsity_schedule", own)
    if sparsity < initial:
        raise ValueError(
            f"the final sparsity {sparsity} is below the initial one, {initial}; give a larger one."
        )
    return tuple(
        sparsity + (initial - sparsity) * (1 - k / prunings) ** 3 for k in range(prunings + 1)
    )


class Pruning(NamedTuple):
    """The optimizer state of `gradual_pruning`.

    Attributes:
      optimizer_state: the state of the optimizer within.
      kept: for each weight array a bool array of its shape, False where it is pruned.
    """

    optimizer_state: PyTree
    kept: list[Array]


def gradual_pruning(
    update: MetaUpdate,
    sparsity: float,
    *,
    prunings: int,
    every: int,
    initial: float = 0.0,
    start: int = 0,
) -> MetaUpdate:
    """A meta-update that also prunes the weights, in n steps of increasing sparsity.

        after meta-update t:  φ ← φ ∘ mask;  at t = t_0 + k Δt, k ≤ n, first
        mask ← the weights that remain when the s_k N smallest are removed

    The s_k are those of `sparsity_schedule`. Pruned weights stay zero. To prune a trained learner,
    replace `meta_params` in the result of `init`. The last pruning is after meta-update t_0 + n Δt;
    train further, so that the remaining weights recover.

    Args:
      update: the meta-update of any learner.
      sparsity: s_f, the final fraction of zeros, which is exact.
      prunings: n.
      every: Δt, the number of meta-updates between prunings.
      initial: s_i, the initial sparsity.
      start: t_0. With 0, the first pruning is to s_1, after Δt meta-updates.

    Raises:
      ValueError: `every` is less than 1, `start` is negative; as `sparsity_schedule`; as `pruned`.

    Source: Zhu, Gupta 2017, "To prune, or not to prune: exploring the efficacy of pruning for model
    compression", section 3.

    >>> import jaxmeta, optax
    >>> from jaxmeta.data import sinusoids
    >>> from jaxmeta.training import meta_update
    >>> learner = jaxmeta.maml(jaxmeta.mlp((8,), 1), jaxmeta.squared_error, optax.sgd(0.01), 1)
    >>> update = meta_update(learner, optax.adam(1e-3), task_batch=2)
    >>> init, step = gradual_pruning(update, 0.75, prunings=2, every=1)
    >>> sample = sinusoids(shots=5, queries=5)
    >>> state = init(jax.random.key(0), sample)
    >>> for _ in range(3):
    ...     state, info = step(state, sample)
    >>> int((state.meta_params["hidden_0"]["kernel"] == 0).sum()
    ...     + (state.meta_params["head"]["kernel"] == 0).sum())
    12
    """
    schedule = sparsity_schedule(sparsity, prunings, initial=initial)
    if every < 1:
        raise ValueError(f"gradual_pruning: every is {every}; give at least 1.")
    if start < 0:
        raise ValueError(f"gradual_pruning: start is {start}; give 0 or more.")

    def init(key: Key, sample: Sample) -> TrainState:
        state = update.init(key, sample)
        weights = weights_of("gradual_pruning", state.meta_params)
        kept = [jnp.ones(weight.shape, bool) for weight in weights]
        return state._replace(optimizer_state=Pruning(state.optimizer_state, kept))

    def step(state: TrainState, sample: Sample, given: PyTree = None) -> tuple[TrainState, Info]:
        before: Pruning = state.optimizer_state
        state, info = update.update(
            state._replace(optimizer_state=before.optimizer_state), sample, given
        )
        params = _masked(state.meta_params, before.kept)
        passed = state.step - start
        index = jnp.clip(passed // every, 0, prunings)
        due = (passed >= 0) & (passed % every == 0) & (passed // every <= prunings)
        numbers = jnp.asarray(_numbers("gradual_pruning", params, schedule))
        kept = jax.lax.cond(due, lambda: _largest(params, numbers[index]), lambda: before.kept)
        return (
            state._replace(
                meta_params=_masked(params, kept),
                optimizer_state=Pruning(state.optimizer_state, kept),
            ),
            info,
        )

    return MetaUpdate(init, step)


def _check_sparsity(name: str, sparsity: float) -> None:
    if not 0 <= sparsity < 1:
        raise ValueError(f"{name}: a sparsity of {sparsity}; give 0 or more and less than 1.")


def _numbers(name: str, params: PyTree, sparsities: tuple[float, ...]) -> list[int]:
    """The numbers of zeros, exact integers."""
    size = sum(weight.size for weight in weights_of(name, params))
    for sparsity in sparsities:
        _check_sparsity(name, sparsity)
    return [round(sparsity * size) for sparsity in sparsities]


def _largest(params: PyTree, number: int | Array) -> list[Array]:
    """For each weight array, where it is not among the `number` smallest magnitudes of all."""
    weights = weights_of("pruned", params)
    magnitudes = jnp.concatenate([jnp.abs(weight).ravel() for weight in weights])
    order = jnp.argsort(magnitudes, stable=True)
    ranks = jnp.arange(magnitudes.size)
    kept = jnp.zeros(magnitudes.shape, bool).at[order].set(ranks >= number)
    ends = [0]
    for weight in weights:
        ends.append(ends[-1] + weight.size)
    return [
        kept[first:last].reshape(weight.shape)
        for weight, first, last in zip(weights, ends, ends[1:])
    ]


def _masked(params: PyTree, kept: list[Array]) -> PyTree:
    return map_weights(lambda weight, own: jnp.where(own, weight, 0), params, kept)

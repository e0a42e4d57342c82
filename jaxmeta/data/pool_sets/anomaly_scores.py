"""Scores of anomaly, so that the rows of any table become inputs of one shape.

No score depends on the order of the columns, nor on their number, unit or offset.
"""

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Task, valid_mask

_FAR = 8.0  # standard deviations: no value counts as further off
_NEIGHBOURS = 5
_RIDGE = 0.3  # the noise of the kernel methods, a variance; the kernels have 1 on the diagonal


def anomaly_scores(task: Task) -> Task:
    """The task with scores as inputs, in place of the columns of its table.

    Each score is computed twice: from z, the columns standardised by the unlabelled rows, and from
    u, their ranks among the unlabelled rows. For both these are

        distances to the nearest and the fifth nearest unlabelled row; the mean distance to all; the
        fifth divided by the mean of those of its five neighbours (as LOF)
        the sum, the largest and the three largest of t_c = −log P(as far out in column c)
        the distance to the nearest known anomaly, minus that to the nearest unlabelled row
        the projection on the direction from the unlabelled rows to the known anomalies
        the prediction of kernel ridge regression on the labels, and the variance of a Gaussian
        process given the unlabelled rows, for a linear and for a Gaussian kernel

    A score s is given as arcsinh((s − median) / interquartile range) and as −log of the fraction of
    unlabelled rows with a score as large, both relative to the unlabelled rows. No row is compared
    with itself: the rows of the support have the scores that they would have as a query. So a score
    of distance to other known anomalies is 0 for a single one. The last inputs are log k, of the
    number of known anomalies, and log n, of unlabelled rows.

    Args:
      task: inputs `[examples, columns]`; in the support, class 1 is a known anomaly and class 0 an
        unlabelled row.

    Returns:
      the task with inputs float `[examples, scores]`.

    Source: the distances: Ramaswamy, Rastogi, Shim 2000; LOF: Breunig et al. 2000; t: Li et al.
    2022, "ECOD".

    >>> from jaxmeta.core import Batch
    >>> rows = jax.random.normal(jax.random.key(0), (30, 4))
    >>> support = Batch(rows, (jnp.arange(30) < 2).astype(jnp.int32))
    >>> scores = anomaly_scores(Task(support, Batch(rows[:3] + 9, jnp.ones(3, jnp.int32))))
    >>> scores.query.inputs.shape
    (3, 52)
    """
    support, query = task
    valid_S = valid_mask(support.mask, support.targets.shape[0])
    known_S, free_S = ((support.targets == label) & valid_S for label in (1, 0))
    rows_ND = jnp.concatenate([jnp.asarray(own.inputs, float) for own in (support, query)])
    size = valid_S.shape[0]
    # A row of the support is no example for itself.
    other_NS = jnp.arange(rows_ND.shape[0])[:, None] != jnp.arange(size)[None]
    ranks_ND = ranked(rows_ND, free_S[None] & other_NS)
    tails_ND = -jnp.log(2 * jnp.minimum(ranks_ND, 1 - ranks_ND))
    largest_N3, _ = jax.lax.top_k(tails_ND, min(3, tails_ND.shape[1]))
    tails_FN = jnp.stack([tails_ND.sum(axis=1), largest_N3[:, 0], largest_N3.sum(axis=1)])

    def of_view(view_ND: Array) -> Array:
        distances_NS = _distances(view_ND, view_ND[:size])
        near_FN = _neighbours(
            view_ND, distances_NS, known_S[None] & other_NS, free_S[None] & other_NS
        )
        return jnp.concatenate([near_FN, _processes(view_ND, distances_NS, known_S, free_S)])

    # One after the other: on CPUs, batched factorisations on several devices at once may wait for
    # each other forever (jaxlib 0.10).
    views = jnp.stack([standardised(rows_ND, free_S), ranks_ND])
    scores_FN = jnp.concatenate([tails_FN, *jax.lax.map(of_view, views)])
    relative_FN = jax.vmap(lambda score_N: _relative(score_N, free_S))(scores_FN)
    counts_2 = jnp.log1p(jnp.stack([known_S.sum(), free_S.sum()]).astype(float))
    counts_2N = jnp.broadcast_to(counts_2[:, None], (2, rows_ND.shape[0]))
    inputs_NF = jnp.concatenate([*jnp.moveaxis(relative_FN, 1, 0), counts_2N]).T
    return Task(support._replace(inputs=inputs_NF[:size]), query._replace(inputs=inputs_NF[size:]))


def standardised(rows_ND: Array, chosen_S: Array) -> Array:
    """z: columns minus the mean over the chosen first rows, over their standard deviation.

    At most 8 in size; a column that is constant over the chosen rows is 0 there, ±8 elsewhere.
    """
    weights_S = chosen_S / jnp.maximum(chosen_S.sum(), 1)
    first_SD = rows_ND[: chosen_S.shape[0]]
    mean_D = weights_S @ first_SD
    std_D = jnp.sqrt(weights_S @ jnp.square(first_SD - mean_D[None]))
    return jnp.clip((rows_ND - mean_D[None]) / (std_D[None] + 1e-4), -_FAR, _FAR)


def ranked(rows_ND: Array, chosen_NS: Array) -> Array:
    """u: the fraction of the chosen first rows with a smaller value, in (0, 1); ties count half."""
    first_SD = rows_ND[: chosen_NS.shape[1]]

    def of_column(given: tuple[Array, Array]) -> Array:
        values_N, first_S = given
        less_NS = first_S[None] < values_N[:, None]
        equal_NS = first_S[None] == values_N[:, None]
        return jnp.where(chosen_NS, less_NS + 0.5 * equal_NS, 0).sum(axis=1)

    below_ND = jax.lax.map(of_column, (rows_ND.T, first_SD.T)).T
    return (below_ND + 0.5) / (chosen_NS.sum(axis=1)[:, None] + 1)


def _distances(rows_ND: Array, others_SD: Array) -> Array:
    norms_N, norms_S = (jnp.square(own).sum(axis=1) for own in (rows_ND, others_SD))
    squares_NS = norms_N[:, None] + norms_S[None] - 2 * rows_ND @ others_SD.T
    return jnp.sqrt(jnp.maximum(squares_NS, 1e-6))


def _neighbours(rows_ND: Array, distances_NS: Array, known_NS: Array, free_NS: Array) -> Array:
    size = distances_NS.shape[1]
    negative_NK, nearest_NK = jax.lax.top_k(
        jnp.where(free_NS, -distances_NS, -jnp.inf), min(_NEIGHBOURS, size)
    )
    first_N, fifth_N = -negative_NK[:, 0], -negative_NK[:, -1]
    fifth_N = jnp.where(jnp.isfinite(fifth_N), fifth_N, first_N)  # with few rows
    around_N = fifth_N[:size][nearest_NK].mean(axis=1)
    mean_N = jnp.where(free_NS, distances_NS, 0).sum(axis=1) / jnp.maximum(free_NS.sum(axis=1), 1)
    to_known_N = jnp.where(known_NS, distances_NS, jnp.inf).min(axis=1)
    some_N = known_NS.any(axis=1)
    known_ND = known_NS @ rows_ND[:size] / jnp.maximum(known_NS.sum(axis=1), 1)[:, None]
    free_ND = free_NS @ rows_ND[:size] / jnp.maximum(free_NS.sum(axis=1), 1)[:, None]
    way_ND = known_ND - free_ND
    length_N = jnp.sqrt(jnp.square(way_ND).sum(axis=1) + 1e-6)
    along_N = (way_ND * (rows_ND - free_ND)).sum(axis=1) / length_N
    of_known = jnp.stack([-to_known_N, first_N - to_known_N, along_N])
    of_free = jnp.stack([first_N, fifth_N, mean_N, fifth_N / (around_N + 1e-3)])
    return jnp.concatenate([of_free, jnp.where(some_N[None], of_known, jnp.nan)])


def _processes(rows_ND: Array, distances_NS: Array, known_S: Array, free_S: Array) -> Array:
    """Predictions of the labels, and variances given the unlabelled rows, by two kernels."""
    size = known_S.shape[0]
    weights_S = free_S / jnp.maximum(free_S.sum(), 1)
    centred_ND = rows_ND - (weights_S @ rows_ND[:size])[None]
    norms_N = jnp.square(centred_ND).sum(axis=1)
    spread = jnp.maximum(weights_S @ norms_N[:size], 1e-6)
    linear_NS = centred_ND @ centred_ND[:size].T / spread
    gaussian_NS = jnp.exp(-jnp.square(distances_NS) / spread)
    labels_S = jnp.where(known_S, 1.0, jnp.where(free_S, -1.0, 0.0))
    # Classes of equal weight: the noise of an example is larger in the larger class.
    count_S = jnp.where(known_S, known_S.sum(), free_S.sum())
    noise_S = _RIDGE * count_S / jnp.maximum(known_S.sum(), 1)

    def of_kernel(given: tuple[Array, Array]) -> Array:
        kernel_NS, diagonal_N = given
        return jnp.stack(
            [
                _process(kernel_NS, diagonal_N, labels_S, noise_S, known_S | free_S)[0],
                _process(kernel_NS, diagonal_N, labels_S, jnp.full(size, _RIDGE), free_S)[1],
            ]
        )

    kernels = (
        jnp.stack([linear_NS, gaussian_NS]),
        jnp.stack([norms_N / spread, jnp.ones_like(norms_N)]),
    )
    return jnp.concatenate([*jax.lax.map(of_kernel, kernels)])


def _process(
    kernel_NS: Array, diagonal_N: Array, labels_S: Array, noise_S: Array, valid_S: Array
) -> tuple[Array, Array]:
    """Mean and variance of a Gaussian process; those of its own rows given all others."""
    size = valid_S.shape[0]
    kernel_NS = jnp.where(valid_S[None], kernel_NS, 0)
    gram_SS = jnp.where(valid_S[:, None], kernel_NS[:size], 0)
    noise_S = jnp.where(valid_S, noise_S, 1)
    inverse_SS = jnp.linalg.inv(gram_SS + jnp.diag(noise_S))
    labels_S = jnp.where(valid_S, labels_S, 0)
    duals_S = inverse_SS @ labels_S
    mean_N = kernel_NS @ duals_S
    variance_N = diagonal_N - ((kernel_NS @ inverse_SS) * kernel_NS).sum(axis=1)
    # Rasmussen, Williams 2006, "Gaussian processes for machine learning", equation 5.12.
    own_S = jnp.diag(inverse_SS)
    own_mean_S = jnp.where(valid_S, labels_S - duals_S / own_S, mean_N[:size])
    own_variance_S = jnp.where(valid_S, 1 / own_S - noise_S, variance_N[:size])
    return mean_N.at[:size].set(own_mean_S), variance_N.at[:size].set(own_variance_S)


def _relative(score_N: Array, free_S: Array) -> Array:
    """The score relative to those of the unlabelled rows in two ways, float `[2, N]`."""
    own_S = jnp.where(free_S, score_N[: free_S.shape[0]], jnp.nan)
    low, middle, high = jnp.nanquantile(own_S, jnp.array([0.25, 0.5, 0.75]))
    scaled_N = jnp.arcsinh((score_N - middle) / (high - low + 1e-3))
    as_large_N = (own_S[None] >= score_N[:, None]).sum(axis=1)
    rank_N = -jnp.log((as_large_N + 0.5) / (free_S.sum() + 0.5))
    missing = jnp.array([0.0, 1.0])[:, None]  # as the median, and the mean, of unlabelled rows
    return jnp.where(jnp.isfinite(scaled_N), jnp.stack([scaled_N, rank_N]), missing)

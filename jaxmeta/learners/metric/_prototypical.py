"""Prototypical networks: a class is represented by the mean of its embedded examples."""

from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import (
    Array,
    Batch,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    fill_padding,
    meta_learner,
)
from jaxmeta.learners.ways import among_known, check_ways
from jaxmeta.objectives import represented
from jaxmeta.ops import varying_with


class Prototypes(NamedTuple):
    """The adapted state of a prototypical network.

    Attributes:
      meta_params: `{"encoder": ..., "log_temperature": ...}`, the latter only for cosine.
      prototypes_WD: float `[ways, features]`, one mean per class.
      known_W: bool `[ways]`, which classes have an example.
      reference: the support inputs, for an encoder normalised by the support's statistics.
      factors_WDD: float `[ways, features, features]`, the Cholesky factor of Q_w; only for
        mahalanobis.
    """

    meta_params: PyTree
    prototypes_WD: Array
    known_W: Array
    reference: PyTree
    factors_WDD: Array | None = None


def prototypical(
    encoder: Model,
    objective: Objective,
    ways: int,
    *,
    distance: Literal["euclidean", "cosine", "mahalanobis"] = "euclidean",
) -> MetaLearner:
    """Prototypical networks: classify by the distance to each class' mean embedding.

        c_w = mean of f(x_s) over the support examples s of class w
        logit_w(x) = −‖f(x) − c_w‖²            (euclidean)
        logit_w(x) = τ cos(f(x), c_w)          (cosine; log τ is learned, initially τ = 10)
        logit_w(x) = −½ (f(x) − c_w)ᵀ Q_w⁻¹ (f(x) − c_w)    (mahalanobis)
        Q_w = λ_w Σ_w + (1 − λ_w) Σ + I,  λ_w = n_w / (n_w + 1)

    with Σ_w the covariance of the n_w embedded support examples of class w, and Σ that of all.

    Args:
      encoder: maps inputs to features `[examples, D]`.
      objective: an objective of logits `[examples, ways]`, such as cross-entropy.
      ways: classes of a task, so that labels are in `[0, ways)`. The meta-parameters do not
        depend on it: train 60-way, test 5-way.
      distance: see above; the paper uses the squared Euclidean distance.

    Raises:
      ValueError: an unknown distance; fewer than two ways.

    A class without a (valid) support example has the prototype 0 and is never predicted, see
    `among_known`.

    Source: Snell, Swersky, Zemel 2017, "Prototypical networks for few-shot learning",
    Algorithm 1; mahalanobis: Bateni et al. 2020, "Improved few-shot visual classification",
    equations 2 to 4.

    >>> import jaxmeta
    >>> identity = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
    >>> learner = prototypical(identity, jaxmeta.cross_entropy, ways=2)
    >>> support = Batch(jnp.array([[0.0], [2.0], [9.0]]), jnp.array([0, 0, 1]))
    >>> adapted = learner.adapt(jax.random.key(0), {"encoder": {}}, support)
    >>> learner.predict(adapted, jnp.array([[2.0]])).tolist()
    [[-1.0, -49.0]]
    """
    if distance not in ("euclidean", "cosine", "mahalanobis"):
        raise ValueError(
            f"prototypical: unknown distance {distance!r}; give euclidean, cosine or mahalanobis."
        )
    check_ways("prototypical", ways)

    def init(key: Key, task) -> PyTree:
        params = {"encoder": encoder.init(key, task.support.inputs)}
        if distance == "cosine":
            params["log_temperature"] = jnp.log(jnp.asarray(10.0))
        return params

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Prototypes:
        features_SD = encoder.apply(meta_params["encoder"], support.inputs, key=key)
        means_WD = class_means(features_SD, support, ways)
        known_W, factors_WDD = known_classes(support, ways), None
        if distance == "mahalanobis":
            # One class after the other: on CPUs, batched factorisations on several devices at once
            # may wait for each other forever (jaxlib 0.10).
            covariances_WDD = class_covariances(features_SD, support, ways)
            factors_WDD = jax.lax.map(jnp.linalg.cholesky, covariances_WDD)
        return Prototypes(meta_params, means_WD, known_W, support.inputs, factors_WDD)

    def predict(adapted: Prototypes, inputs: PyTree, *, key: Key | None = None) -> Array:
        features_QD = encoder.apply(
            adapted.meta_params["encoder"], inputs, reference=adapted.reference, key=key
        )
        if distance == "cosine":
            cosine_QW = unit(features_QD) @ unit(adapted.prototypes_WD).T
            logits_QW = jnp.exp(adapted.meta_params["log_temperature"]) * cosine_QW
        elif adapted.factors_WDD is not None:

            def of_class(given: tuple[Array, Array]) -> Array:
                factor_DD, centre_D = given
                offsets_DQ = varying_with(features_QD.T - centre_D[:, None], factor_DD)
                whitened_DQ = jax.scipy.linalg.solve_triangular(factor_DD, offsets_DQ, lower=True)
                return -jnp.square(whitened_DQ).sum(axis=0) / 2

            logits_QW = jax.lax.map(of_class, (adapted.factors_WDD, adapted.prototypes_WD)).T
        else:
            logits_QW = -squared_distances(features_QD, adapted.prototypes_WD, adapted.known_W)
        return among_known(logits_QW, adapted.known_W)

    return meta_learner(init, adapt, predict, objective)


def class_means(features_SD: Array, support: Batch, ways: int) -> Array:
    """The mean of each class' valid examples, float `[ways, D]`; 0 for a class without examples.

    >>> support = Batch(None, jnp.array([0, 0, 1]))
    >>> class_means(jnp.array([[0.0], [2.0], [9.0]]), support, 2).tolist()
    [[1.0], [9.0]]
    """
    chex.assert_rank(features_SD, 2)
    members_SW = class_members(support, ways, features_SD.dtype)
    features_SD = fill_padding(features_SD, support.mask)
    counts_W = jnp.maximum(members_SW.sum(axis=0), 1)
    return members_SW.T @ features_SD / counts_W[:, None]


def class_covariances(features_SD: Array, support: Batch, ways: int) -> Array:
    """Q_w of each class, float `[ways, D, D]`, see `prototypical`.

    Covariances are unbiased; that of fewer than two examples is 0.

    >>> support = Batch(None, jnp.array([0, 0, 1]))
    >>> found = class_covariances(jnp.array([[0.0], [2.0], [4.0]]), support, 2)
    >>> [f"{value:.3f}" for value in found.ravel().tolist()]
    ['3.667', '3.000']
    """
    chex.assert_rank(features_SD, 2)
    members_SW = class_members(support, ways, features_SD.dtype)
    features_SD = fill_padding(features_SD, support.mask)

    def covariance(weights_S: Array) -> Array:
        count = weights_S.sum()
        mean_D = weights_S @ features_SD / jnp.maximum(count, 1)
        centred_SD = features_SD - mean_D[None]
        return (weights_S[:, None] * centred_SD).T @ centred_SD / jnp.maximum(count - 1, 1)

    of_class_WDD = jax.vmap(covariance)(members_SW.T)
    of_all_DD = covariance(members_SW.sum(axis=1))
    counts_W = members_SW.sum(axis=0)
    share_W11 = (counts_W / (counts_W + 1))[:, None, None]
    unit_DD = jnp.eye(features_SD.shape[1], dtype=features_SD.dtype)
    return share_W11 * of_class_WDD + (1 - share_W11) * of_all_DD[None] + unit_DD[None]


def class_members(support: Batch, ways: int, dtype: Any = jnp.float32) -> Array:
    """Which class each example belongs to, one-hot `[S, ways]`.

    A row is 0 if the example is padding or has no label (target −1). It is NaN if the target is
    any other number outside `[0, ways)`.

    Raises:
      ValueError: the targets are not integers, or a concrete (not traced) one is out of range.

    >>> class_members(Batch(None, jnp.array([1, -1]), jnp.array([True, True])), 2).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    chex.assert_rank(support.targets, 1)
    if not jnp.issubdtype(support.targets.dtype, jnp.integer):
        raise ValueError(
            f"the support's targets are {support.targets.dtype}; give integer class indices."
        )

    def allowed(classes: Any) -> Any:
        wide = classes.astype(jnp.promote_types(classes.dtype, jnp.int32))
        return (wide >= -1) & (wide < ways)

    expected = f"a class index from 0 to {ways - 1}, or -1 for an example without a label"
    is_class = represented("support", support.targets, allowed, expected, support.mask)
    targets = fill_padding(support.targets, support.mask)
    members_SW = jax.nn.one_hot(targets, ways, dtype=dtype)
    members_SW = jnp.where(is_class[:, None], members_SW, jnp.nan)
    return members_SW if support.mask is None else jnp.where(support.mask[:, None], members_SW, 0)


def known_classes(support: Batch, ways: int) -> Array:
    """Which classes have an example, bool `[ways]`.

    >>> known_classes(Batch(None, jnp.array([2, 0, -1])), 3).tolist()
    [True, False, True]
    """
    return class_members(support, ways).sum(axis=0) > 0


def squared_distances(points_QD: Array, centres_WD: Array, known_W: Array | None = None) -> Array:
    """Squared Euclidean distances float `[Q, W]`, as ‖x‖² − 2 x·c + ‖c‖²: one matmul.

    The mean of the centres of known classes is subtracted first. Otherwise a common offset would be
    squared and cancel only up to rounding errors.

    >>> squared_distances(jnp.array([[0.0, 3.0]]), jnp.array([[4.0, 0.0]])).tolist()
    [[25.0]]
    """
    chex.assert_rank([points_QD, centres_WD], 2)
    chex.assert_equal_shape_suffix([points_QD, centres_WD], 1)
    # The distances do not depend on the origin, so that it needs no gradient.
    origin_D = jax.lax.stop_gradient(mean_of_known(centres_WD, known_W))
    points_QD, centres_WD = points_QD - origin_D[None], centres_WD - origin_D[None]
    norms_Q = jnp.square(points_QD).sum(axis=1)
    norms_W = jnp.square(centres_WD).sum(axis=1)
    return norms_Q[:, None] - 2 * points_QD @ centres_WD.T + norms_W[None, :]


def mean_of_known(centres_WD: Array, known_W: Array | None) -> Array:
    """The mean of the centres of known classes, `[D]`; of all classes without `known_W`."""
    if known_W is None:
        return centres_WD.mean(axis=0)
    count = jnp.maximum(known_W.sum(), 1).astype(centres_WD.dtype)
    return jnp.where(known_W[:, None], centres_WD, 0).sum(axis=0) / count


def unit(vectors: Array) -> Array:
    """The rows divided by their length; a zero row stays zero and has a finite gradient.

    >>> print(unit(jnp.array([[3.0, 4.0], [0.0, 0.0]])).round(3))
    [[0.6 0.8]
     [0.  0. ]]
    """
    chex.assert_rank(vectors, 2)
    # The constant is under the root, so that the gradient is finite at a zero vector.
    return vectors * jax.lax.rsqrt(jnp.square(vectors).sum(axis=1, keepdims=True) + 1e-12)

"""Semi-supervised prototypical networks: soft k-means, initialised by the class means."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.metric._prototypical import (
    Prototypes,
    class_means,
    class_members,
    known_classes,
    prototypical,
    squared_distances,
)
from jaxmeta.learners.ways import among_known


def semi_supervised_prototypical(
    encoder: Model,
    objective: Objective,
    ways: int,
    *,
    refinements: int = 1,
    distractor_cluster: bool = False,
) -> MetaLearner:
    """Prototypical networks whose prototypes are refined by the support's unlabelled examples.

        z_jw = softmax_w −‖f(x_j) − c_w‖²                      for each unlabelled x_j
        c_w ← (Σ_i [y_i = w] f(x_i) + Σ_j z_jw f(x_j)) / (Σ_i [y_i = w] + Σ_j z_jw)
        logit_w(x) = −‖f(x) − c_w‖²

    starting from the class means, `refinements` times. With `distractor_cluster`, another cluster,
    at 0, is for examples of no class:

        z_jw = softmax_w −‖f(x_j) − c_w‖² / r_w² − log r_w,   r_w = 1 for the classes;
        r of the cluster at 0 is learned

    Args:
      encoder: maps inputs to features `[examples, D]`.
      objective: an objective of logits `[examples, ways]`, such as cross-entropy.
      ways: classes of a task; the meta-parameters do not depend on it.
      refinements: number of refinements; 0 is `prototypical`.
      distractor_cluster: see above.

    Unlabelled support examples have the target −1, see `jaxmeta.data.with_unlabelled`.
    `prototypical` ignores them. A class without a labelled example is never predicted.

    Raises:
      ValueError: fewer than two ways, a negative number of refinements.

    The published code differs: it takes −d / (2 r²) for all clusters, begins with r = 100, and
    moves the cluster at 0 in later refinements.

    Source: Ren, Triantafillou, Ravi, Snell, Swersky, Tenenbaum, Larochelle, Zemel 2018,
    "Meta-learning for semi-supervised few-shot classification", sections 3.1.1 and 3.1.2.

    >>> import jaxmeta
    >>> identity = Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
    >>> learner = semi_supervised_prototypical(identity, jaxmeta.cross_entropy, ways=2)
    >>> support = Batch(jnp.array([[0.0], [90.0], [2.0]]), jnp.array([0, 1, -1]))
    >>> learner.adapt(jax.random.key(0), {"encoder": {}}, support).prototypes_WD.tolist()
    [[1.0], [90.0]]
    """
    if ways < 2 or refinements < 0:
        raise ValueError(
            f"semi_supervised_prototypical: {ways} ways, {refinements} refinements; give "
            "at least 2 ways and at least 0 refinements."
        )

    supervised = prototypical(encoder, objective, ways)

    def init(key: Key, task: Task) -> PyTree:
        params = supervised.init(key, task)
        if distractor_cluster:
            params["log_radius"] = jnp.log(jnp.asarray(10.0))
        return params

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Prototypes:
        features_SD = encoder.apply(meta_params["encoder"], support.inputs, key=key)
        labelled_SW = class_members(support, ways, features_SD.dtype)
        known_W = known_classes(support, ways)
        free_S = support.targets < 0
        if support.mask is not None:
            free_S &= support.mask

        def refine(centres_WD: Array) -> Array:
            scores_SW = -squared_distances(features_SD, centres_WD, known_W)
            scores_SW = among_known(scores_SW, known_W)
            if distractor_cluster:
                log_radius = meta_params["log_radius"]
                squares_S = jnp.square(features_SD).sum(axis=1)
                at_zero_S = -squares_S * jnp.exp(-2 * log_radius) - log_radius
                scores_SW = jnp.concatenate([scores_SW, at_zero_S[:, None]], axis=1)
            shares_SW = jax.nn.softmax(scores_SW)[:, :ways]
            members_SW = labelled_SW + jnp.where(free_S[:, None], shares_SW, 0)
            counts_W = jnp.maximum(members_SW.sum(axis=0), 1e-6)
            return members_SW.T @ features_SD / counts_W[:, None]

        centres_WD = class_means(features_SD, support, ways)
        for _ in range(refinements):
            centres_WD = refine(centres_WD)
        return Prototypes(meta_params, centres_WD, known_W, support.inputs)

    return plain_learner(init, adapt, supervised.predict, objective)

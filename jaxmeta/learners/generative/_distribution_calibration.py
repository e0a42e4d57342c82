"""Distribution calibration: features sampled from the statistics of the nearest base classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Key, MetaLearner, Objective, Task, meta_learner
from jaxmeta.inner import Differentiation, second_order
from jaxmeta.learners.generative._augmented import Generate
from jaxmeta.learners.generative.linear import head_on_samples, transformed


class BaseClasses(NamedTuple):
    """Statistics of the base classes (C), from N features of each.

    Attributes:
      means_CD: μ_c, float `[C, D]`.
      factors_CND: F_c, float `[C, N, D]`, so that the covariance is F_cᵀ F_c: the centred examples
        divided by √(n − 1), and 0 for a padded example.
    """

    means_CD: Array
    factors_CND: Array


def base_statistics(features_CND: Array, mask_CN: Array) -> BaseClasses:
    """The means and covariances (unbiased, as factors) of the features of base classes.

    Args:
      features_CND: float `[C, N, D]`, padded to the same number of examples.
      mask_CN: bool `[C, N]`, True where an example is valid.

    >>> mask_CN = jnp.array([[True, True, False]])
    >>> found = base_statistics(jnp.array([[[1.0], [3.0], [9.0]]]), mask_CN)
    >>> found.means_CD.tolist(), jnp.square(found.factors_CND).sum(axis=1).tolist()
    ([[2.0]], [[2.0]])
    """
    weights_CN1 = mask_CN[..., None].astype(features_CND.dtype)
    counts_C1 = weights_CN1.sum(axis=1)
    features_CND = jnp.where(mask_CN[..., None], features_CND, 0)
    means_CD = features_CND.sum(axis=1) / jnp.maximum(counts_C1, 1)
    centred_CND = weights_CN1 * (features_CND - means_CD[:, None])
    return BaseClasses(means_CD, centred_CND / jnp.sqrt(jnp.maximum(counts_C1 - 1, 1))[:, None])


def calibrated_samples(base: BaseClasses, nearest: int, spread: float) -> Generate:
    """Samples around a feature, with statistics of the nearest base classes.

        N = the k base classes of the smallest ‖μ_c − x‖
        x' ~ N((x + Σ_{c∈N} μ_c) / (k + 1),  1/k Σ_{c∈N} Σ_c + α 11ᵀ)

    See `distribution_calibration`.

    >>> base = BaseClasses(jnp.array([[2.0], [50.0]]), jnp.zeros((2, 1, 1)))
    >>> calibrated_samples(base, 1, 0.0)(jax.random.key(0), jnp.array([4.0])).tolist()
    [3.0]
    """
    base = jax.tree.map(jnp.asarray, base)

    def generate(key: Key, features_D: Array) -> Array:
        noise_key, offset_key = jax.random.split(key)
        distances_C = jnp.square(base.means_CD - features_D[None]).sum(axis=1)
        nearest_K = jax.lax.top_k(-distances_C, nearest)[1]
        factors_KND, dtype = base.factors_CND[nearest_K], features_D.dtype
        mean_D = (features_D + base.means_CD[nearest_K].sum(axis=0)) / (nearest + 1)
        noise_KN = jax.random.normal(noise_key, factors_KND.shape[:2], dtype) / nearest**0.5
        offset = jax.random.normal(offset_key, (), dtype) * spread**0.5
        return mean_D + jnp.einsum("kn,knd->d", noise_KN, factors_KND) + offset

    return generate


def distribution_calibration(
    objective: Objective,
    ways: int,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    base_classes: int,
    base_examples: int,
    count: int = 100,
    nearest: int = 2,
    power: float = 0.5,
    spread: float = 0.21,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """Distribution calibration: a linear head on features and on samples of calibrated Gaussians.

        x̃ = x^λ,  x' ~ N(μ'(x̃), Σ'(x̃)), `count` of them for each x̃ in the support set,
        μ' = (x̃ + Σ_{c∈N(x̃)} μ_c) / (k + 1),  Σ' = 1/k Σ_{c∈N(x̃)} Σ_c + α 11ᵀ,
        head = argmin L(head; {x̃} ∪ {x'}), by `inner_steps` of gradient descent from 0

    The inputs are features of a frozen network, `[examples, ...]`. The meta-parameters are the
    statistics of the base classes, a `BaseClasses`: set them to `base_statistics` of the base
    classes' transformed features (`tukey`). Gradients refine them further, but the method has no
    training. The published code takes base statistics of features that are not transformed.

    Args:
      objective: an objective of logits, such as cross-entropy.
      ways: classes of a task.
      inner_optimizer, inner_steps, differentiation: as in `maml`, for the head.
      base_classes, base_examples: C and N, the shape of the statistics.
      count: samples for each support example; 750 divided by the shots as published.
      nearest: k.
      power: λ.
      spread: α, added to every entry of the covariance.

    Raises:
      ValueError: fewer base classes than `nearest`, or fewer than one; a negative spread; otherwise
        as `head_on_samples`.

    Source: Yang, Liu, Xu 2021, "Free lunch for few-shot learning: distribution calibration",
    section 3.

    >>> import jaxmeta
    >>> from jaxmeta import Batch
    >>> learner = distribution_calibration(
    ...     jaxmeta.cross_entropy, 2, optax.sgd(1.0), 10, base_classes=3, base_examples=4)
    >>> support = Batch(jnp.array([[9.0, 0.0], [0.0, 9.0]]), jnp.array([0, 1]))
    >>> params = learner.init(jax.random.key(0), Task(support, support))
    >>> adapted = learner.adapt(jax.random.key(1), params, support)
    >>> learner.predict(adapted, support.inputs).argmax(axis=1).tolist()
    [0, 1]
    """
    if not 1 <= nearest <= base_classes or spread < 0:
        raise ValueError(
            f"distribution_calibration: nearest {nearest} of {base_classes} base classes, spread "
            f"{spread}; give 1 to {base_classes} nearest classes, and a spread of 0 or more."
        )
    adapt, predict = head_on_samples(
        "distribution_calibration",
        objective,
        ways,
        inner_optimizer,
        inner_steps,
        power=power,
        generator=lambda base: calibrated_samples(base, nearest, spread),
        count=count,
        differentiation=differentiation,
    )

    def init(key: Key, task: Task) -> BaseClasses:
        means_key, factors_key = jax.random.split(key)
        size = jax.eval_shape(lambda inputs: transformed(inputs, 1), task.support.inputs).shape[1]
        shape = (base_classes, base_examples, size)
        factors_CND = jax.random.normal(factors_key, shape) / base_examples**0.5
        return BaseClasses(jax.random.normal(means_key, (base_classes, size)), factors_CND)

    return meta_learner(init, adapt, predict, objective)

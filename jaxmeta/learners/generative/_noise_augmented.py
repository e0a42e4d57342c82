"""A linear head on features and on copies of them with Gaussian noise: the simplest generator."""

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Key, MetaLearner, Objective, Task, meta_learner
from jaxmeta.inner import Differentiation, second_order
from jaxmeta.learners.generative._augmented import gaussian_noise
from jaxmeta.learners.generative._distribution_calibration import BaseClasses
from jaxmeta.learners.generative.linear import head_on_samples, transformed


def base_noise(base: BaseClasses) -> Array:
    """A factor `[D, D]` of the mean covariance of the base classes.

        F Fᵀ = 1/C Σ_c Σ_c

    >>> base = BaseClasses(jnp.zeros((2, 1)), jnp.array([[[1.0], [1.0]], [[2.0], [0.0]]]))
    >>> base_noise(base).round(3).tolist()
    [[1.7320001125335693]]
    """
    classes, _, size = base.factors_CND.shape
    rows = base.factors_CND.reshape(-1, size)
    values_D, vectors_DD = jnp.linalg.eigh(rows.T @ rows / classes)
    return vectors_DD * jnp.sqrt(jnp.maximum(values_D, 0))[None]


def noise_augmented(
    objective: Objective,
    ways: int,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    count: int = 100,
    power: float = 1.0,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """A linear head on features and on `count` noisy copies of each, the baseline of generators.

        x̃ = x^λ,  x' = x̃ + F ε,  ε ~ N(0, I),  head = argmin L(head; {x̃} ∪ {x'})

    The inputs are features of a frozen network, `[examples, ...]`. The meta-parameter is F, float
    `[D, D]`: set it to `base_noise` for noise of the covariance of the base classes, or train it.
    With `count=0`, it is a linear head on the support set alone.

    Args:
      objective, ways, inner_optimizer, inner_steps, differentiation, count, power: as in
        `distribution_calibration`.

    Raises:
      ValueError: as `distribution_calibration`.

    >>> import jaxmeta
    >>> from jaxmeta import Batch
    >>> learner = noise_augmented(jaxmeta.cross_entropy, 2, optax.sgd(1.0), 10)
    >>> support = Batch(jnp.array([[9.0, 0.0], [0.0, 9.0]]), jnp.array([0, 1]))
    >>> adapted = learner.adapt(jax.random.key(1), jnp.eye(2), support)
    >>> learner.predict(adapted, support.inputs).argmax(axis=1).tolist()
    [0, 1]
    """
    adapt, predict = head_on_samples(
        "noise_augmented",
        objective,
        ways,
        inner_optimizer,
        inner_steps,
        power=power,
        generator=gaussian_noise,
        count=count,
        differentiation=differentiation,
    )

    def init(key: Key, task: Task) -> Array:
        size = jax.eval_shape(lambda inputs: transformed(inputs, 1), task.support.inputs).shape[1]
        return jax.random.normal(key, (size, size)) / size**0.5

    return meta_learner(init, adapt, predict, objective)

"""A linear head on features, trained from zero on a support set and on generated examples."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Adapt, Array, Batch, Key, Objective, Predict, PyTree
from jaxmeta.inner import Differentiation, second_order, unroll
from jaxmeta.learners.generative._augmented import Generate, with_generated
from jaxmeta.learners.linear_head import head_logits, head_loss
from jaxmeta.learners.metric._prototypical import known_classes
from jaxmeta.learners.ways import among_known, check_ways


class LinearHead(NamedTuple):
    """The adapted state.

    Attributes:
      head: `{"kernel": [features, ways], "bias": [ways]}`.
      known_W: which classes have an example, bool `[ways]`.
    """

    head: PyTree
    known_W: Array


def tukey(features: Array, power: float) -> Array:
    """Tukey's ladder of powers, which makes skewed features more Gaussian.

        x̃ = sign(x) |x|^λ

    The sign extends it to features that may be negative; with λ = 1 it is the identity.

    Source: Tukey 1977, "Exploratory data analysis".

    >>> tukey(jnp.array([4.0, 0.0, -9.0]), 0.5).tolist()
    [2.0, 0.0, -3.0]
    """
    return features if power == 1 else jnp.sign(features) * jnp.abs(features) ** power


def head_on_samples(
    name: str,
    objective: Objective,
    ways: int,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    power: float,
    generator: Callable[[PyTree], Generate] | None = None,
    count: int = 0,
    differentiation: Differentiation = second_order,
) -> tuple[Adapt, Predict]:
    """`adapt` and `predict` of a linear head on features and on samples of a generator.

        head_0 = 0,  head_{k+1} = head_k − α ∇_head L(head_k; S ∪ samples)

    Args:
      name: of the learner, for errors.
      objective, ways, inner_optimizer, inner_steps, differentiation: as in `meta_transfer`.
      power: λ of `tukey`, applied to all features first.
      generator: `generator(meta_params) -> generate`, on transformed features. Defaults to none.
      count: samples for each support example.

    Raises:
      ValueError: fewer than two ways; the power is not positive; the count is negative; otherwise
        as `unroll`.
    """
    check_ways(name, ways)
    if power <= 0 or count < 0:
        raise ValueError(
            f"{name}: power {power}, count {count}; give a positive power, and a count of 0 or "
            "more."
        )

    inner = unroll(
        head_loss(objective), inner_optimizer, inner_steps, differentiation=differentiation
    )

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> LinearHead:
        sample_key, key = jax.random.split(key)
        features = support._replace(inputs=transformed(support.inputs, power))
        if generator is not None:
            features = with_generated(sample_key, features, generator(meta_params), count)
        size, dtype = features.inputs.shape[1], features.inputs.dtype
        head = {"kernel": jnp.zeros((size, ways), dtype), "bias": jnp.zeros((ways,), dtype)}
        return LinearHead(inner(key, head, features).params, known_classes(support, ways))

    def predict(adapted: LinearHead, inputs: Array, *, key: Key | None = None) -> Array:
        return among_known(head_logits(adapted.head, transformed(inputs, power)), adapted.known_W)

    return adapt, predict


def transformed(inputs: Array, power: float) -> Array:
    """Inputs `[examples, ...]` as transformed features `[examples, D]`."""
    return tukey(jnp.asarray(inputs).reshape(inputs.shape[0], -1), power)

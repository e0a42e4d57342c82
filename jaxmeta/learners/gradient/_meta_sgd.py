"""Meta-SGD: learns the initialisation and an inner learning rate for every parameter."""

from typing import Any, NamedTuple

import jax

from jaxmeta.core import Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.inner import Differentiation, scaled, second_order, support_loss, unroll
from jaxmeta.learners.gradient._maml import gradient_learner


class MetaSGDParams(NamedTuple):
    """Meta-parameters of Meta-SGD.

    Attributes:
      initial: φ, the initialisation.
      rates: α, a tree like `initial`: one inner learning rate per parameter, of any sign.
    """

    initial: PyTree
    rates: PyTree


def meta_sgd(
    model: Model,
    objective: Objective,
    inner_steps: int = 1,
    *,
    initial_rate: float | tuple[float, float] = (0.005, 0.1),
    differentiation: Differentiation = second_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """Meta-SGD: MAML whose inner learning rates are meta-parameters, one per parameter.

        θ_0 = φ,  θ_{k+1} = θ_k − α ∘ ∇_θ L(θ_k; support)
        meta-gradient: with respect to φ and α

    Args:
      model, objective, differentiation, inner_batch: as in `maml`.
      inner_steps: K, 1 in the paper.
      initial_rate: initial value of all rates, or (low, high) to draw them uniformly per
        parameter; the paper draws them from (0.005, 0.1).

    Raises:
      ValueError: as `maml`; a range with low above high.

    Source: Li, Zhou, Chen, Li 2017, "Meta-SGD: learning to learn quickly for few-shot
    learning", Algorithm 1.

    >>> import jaxmeta, jax.numpy as jnp
    >>> from jaxmeta.models import mlp
    >>> learner = meta_sgd(mlp((40, 40), 1), jaxmeta.squared_error, initial_rate=1e-3)
    >>> batch = jaxmeta.Batch(jnp.ones((5, 1)), jnp.ones((5, 1)))
    >>> meta_params = learner.init(jax.random.key(0), Task(batch, batch))
    >>> float(meta_params.rates["head"]["bias"][0]) == float(jnp.float32(1e-3))
    True
    """
    bounds = range_of("initial_rate", initial_rate)
    inner = unroll(
        support_loss(model, objective),
        None,
        inner_steps,
        differentiation=differentiation,
        batch_size=inner_batch,
    )

    def init(key: Key, task: Task) -> MetaSGDParams:
        model_key, rates_key = jax.random.split(key)
        initial = model.init(model_key, task.support.inputs)
        return MetaSGDParams(initial, uniform_like(rates_key, initial, bounds))

    def unpack(meta_params: MetaSGDParams, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        return meta_params.initial, {"optimizer": scaled(meta_params.rates)}

    return gradient_learner(model, objective, inner, init=init, unpack=unpack)


def range_of(name: str, given: float | tuple[float, float]) -> tuple[float, float]:
    """A range (low, high), or a single number as a range.

    Raises:
      ValueError: low is above high; `name` is the argument's.

    >>> range_of("initial_rate", 0.1)
    (0.1, 0.1)
    """
    low, high = given if isinstance(given, tuple) else (given, given)
    if not low <= high:
        raise ValueError(f"{name}: ({low}, {high}) is not a range; give (low, high).")
    return low, high


def uniform_like(key: Key, tree: PyTree, bounds: tuple[float, float]) -> PyTree:
    """A tree like this one, with numbers drawn uniformly between the bounds.

    >>> import jax.numpy as jnp
    >>> uniform_like(jax.random.key(0), {"w": jnp.zeros(2)}, (0.5, 0.5))["w"].tolist()
    [0.5, 0.5]
    """
    leaves, treedef = jax.tree.flatten(tree)
    drawn = [
        jax.random.uniform(key, leaf.shape, leaf.dtype, *bounds)
        for key, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
    ]
    return treedef.unflatten(drawn)

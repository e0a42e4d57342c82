"""MAML (model-agnostic meta-learning): learns an initialisation for a few gradient steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

from jaxmeta.core import Batch, Key, MetaLearner, Model, Objective, PyTree, Task, meta_learner
from jaxmeta.inner import Differentiation, first_order, second_order, support_loss, unroll
from jaxmeta.inner._partition import Selection
from jaxmeta.inner._unroll import InnerLoop


class Adapted(NamedTuple):
    """The result of gradient-based adaptation.

    Attributes:
      params: the adapted parameters of the model.
      reference: the support inputs, for a model normalised by the support's statistics.
    """

    params: PyTree
    reference: PyTree


def maml(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    differentiation: Differentiation = second_order,
    adapts: Selection | None = None,
    inner_batch: int | None = None,
) -> MetaLearner:
    """MAML: the meta-parameters φ are the initialisation of a few steps of gradient descent.

        θ_0 = φ,  θ_{k+1} = θ_k − α ∇_θ L(θ_k; support)
        meta-gradient: ∇_φ L(θ_K(φ); query)

    Args:
      model: the network; its parameters are the meta-parameters.
      objective: cross-entropy for classification, squared error for regression.
      inner_optimizer: any optax transformation, `optax.sgd(α)` in the paper.
      inner_steps: K.
      differentiation, adapts: see `jaxmeta.inner.unroll`.
      inner_batch: examples per inner step, drawn in shuffled passes. Defaults to the whole support
        set.

    Shapes: a task of `Batch`es, without a task axis.

    Raises:
      ValueError: negative `inner_steps`; `adapts` selects no parameter; `inner_batch` above the
        support set.

    Source: Finn, Abbeel, Levine 2017, "Model-agnostic meta-learning for fast adaptation of
    deep networks", Algorithm 1.

    >>> import jax, jax.numpy as jnp, jaxmeta
    >>> from jaxmeta.models import mlp
    >>> learner = maml(mlp((40, 40), 1), jaxmeta.squared_error, optax.sgd(0.01), inner_steps=1)
    >>> batch = Batch(jnp.ones((10, 1)), jnp.ones((10, 1)))
    >>> meta_params = learner.init(jax.random.key(0), Task(batch, batch))
    >>> adapted = learner.adapt(jax.random.key(1), meta_params, batch)
    >>> learner.predict(adapted, jnp.ones((3, 1))).shape
    (3, 1)
    """
    inner = unroll(
        support_loss(model, objective),
        inner_optimizer,
        inner_steps,
        differentiation=differentiation,
        adapts=adapts,
        batch_size=inner_batch,
    )
    return gradient_learner(
        model,
        objective,
        inner,
        init=lambda key, task: model.init(key, task.support.inputs),
        unpack=lambda meta_params, support: (meta_params, {}),
    )


def first_order_maml(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    adapts: Selection | None = None,
    inner_batch: int | None = None,
) -> MetaLearner:
    """First-order MAML: `maml` with the inner gradients taken as constants.

        meta-gradient: ∇_θ L(θ_K; query) at the adapted parameters (for plain inner SGD)

    Arguments, shapes and errors as in `maml`. Source: Finn et al. 2017, section 5.2.

    >>> import jaxmeta
    >>> from jaxmeta.models import mlp
    >>> model = mlp((40,), 1)
    >>> learner = first_order_maml(model, jaxmeta.squared_error, optax.sgd(0.01), inner_steps=1)
    """
    return maml(
        model,
        objective,
        inner_optimizer,
        inner_steps,
        differentiation=first_order,
        adapts=adapts,
        inner_batch=inner_batch,
    )


def gradient_learner(
    model: Model,
    objective: Objective,
    inner: InnerLoop,
    *,
    init: Callable[[Key, Task], PyTree],
    unpack: Callable[[PyTree, Batch], tuple[PyTree, dict[str, Any]]],
) -> MetaLearner:
    """A learner with `adapt`, `predict` and `trajectory` from an inner loop.

    `unpack(meta_params, support) -> (initial, options)` returns the initial parameters of the inner
    loop and its keyword arguments, such as an optimizer with learned rates or the optimizer's
    state. See `meta_sgd`, which makes an optimizer from its meta-parameters.
    """

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Adapted:
        initial, options = unpack(meta_params, support)
        return Adapted(inner(key, initial, support, **options).params, support.inputs)

    def predict(adapted: Adapted, inputs: PyTree, *, key: Key | None = None) -> PyTree:
        return model.apply(adapted.params, inputs, reference=adapted.reference, key=key)

    def trajectory(key: Key, meta_params: PyTree, support: Batch, inputs: PyTree) -> PyTree:
        initial, options = unpack(meta_params, support)
        return inner(
            key,
            initial,
            support,
            observe=lambda params: predict(Adapted(params, support.inputs), inputs),
            **options,
        ).observations

    return meta_learner(init, adapt, predict, objective, trajectory=trajectory)

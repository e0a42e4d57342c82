"""Meta-Curvature: the initialisation and a Kronecker-factored preconditioner are learned."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.inner import Differentiation, second_order, support_loss, unroll
from jaxmeta.learners.gradient._maml import gradient_learner


class MetaCurvatureParams(NamedTuple):
    """Meta-parameters of Meta-Curvature.

    Attributes:
      initial: φ, the initialisation.
      curvature: like `initial`, with a tuple of square matrices, one per mode, for each parameter.
    """

    initial: PyTree
    curvature: PyTree


def meta_curvature(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    differentiation: Differentiation = second_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """Meta-Curvature: MAML whose inner gradients are multiplied by learned matrices, mode by mode.

        θ_{k+1} = θ_k − α MC(∇_θ L(θ_k; support)),  MC(G) = G ×₁ M_1 ×₂ M_2 ×₃ M_3

    A convolution kernel has three modes (window, input channels, output channels), a matrix
    two, a vector one. All M are initialised to the identity, which is MAML.

    Arguments and errors as in `maml`.

    Source: Park, Oliva 2019, "Meta-curvature", sections 3.2 and 3.3.

    >>> import jaxmeta
    >>> from jaxmeta.models import mlp
    >>> model = mlp((8,), 1)
    >>> learner = meta_curvature(model, jaxmeta.squared_error, optax.sgd(0.01), inner_steps=1)
    >>> batch = jaxmeta.Batch(jnp.ones((5, 1)), jnp.ones((5, 1)))
    >>> meta_params = learner.init(jax.random.key(0), Task(batch, batch))
    >>> [matrix.shape for matrix in meta_params.curvature["head"]["kernel"]]
    [(8, 8), (1, 1)]
    """
    inner = unroll(
        support_loss(model, objective),
        None,
        inner_steps,
        differentiation=differentiation,
        batch_size=inner_batch,
    )

    def init(key: Key, task: Task) -> MetaCurvatureParams:
        initial = model.init(key, task.support.inputs)
        curvature = jax.tree.map(
            lambda leaf: tuple(jnp.eye(size, dtype=leaf.dtype) for size in modes(leaf.shape)),
            initial,
        )
        return MetaCurvatureParams(initial, curvature)

    def unpack(meta_params: MetaCurvatureParams, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        precondition = optax.stateless(
            lambda grads, params: jax.tree.map(preconditioned, grads, meta_params.curvature)
        )
        return meta_params.initial, {"optimizer": optax.chain(precondition, inner_optimizer)}

    return gradient_learner(model, objective, inner, init=init, unpack=unpack)


def modes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of a parameter's modes: the axes of a window count as one.

    >>> modes((3, 3, 16, 64)), modes((64,))
    ((9, 16, 64), (64,))
    """
    return (math.prod(shape[:-2]), *shape[-2:]) if len(shape) > 2 else shape


def preconditioned(gradient: Array, matrices: tuple[Array, ...]) -> Array:
    """`gradient ×₁ M_1 ×₂ M_2 …`, of the gradient's shape.

    >>> preconditioned(jnp.array([1.0, 2.0]), (jnp.array([[0.0, 1.0], [1.0, 0.0]]),)).tolist()
    [2.0, 1.0]
    """
    tensor = gradient.reshape(modes(gradient.shape))
    for size, matrix in zip(tensor.shape, matrices, strict=True):
        chex.assert_shape(matrix, (size, size))
    for axis, matrix in enumerate(matrices):
        tensor = jnp.moveaxis(jnp.tensordot(matrix, tensor, axes=(1, axis)), 0, axis)
    return tensor.reshape(gradient.shape)

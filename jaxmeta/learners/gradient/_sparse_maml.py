"""Sparse-MAML: the initialisation and the parameters that the inner loop changes are learned."""

from typing import Any, NamedTuple

import jax
import optax

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.inner import Differentiation, first_order, support_loss, unroll
from jaxmeta.learners.gradient._maml import gradient_learner
from jaxmeta.learners.gradient._meta_sgd import range_of, uniform_like


class SparseMAMLParams(NamedTuple):
    """Meta-parameters of sparse-MAML.

    Attributes:
      initial: φ, the initialisation.
      mask: m, a tree like `initial`: a parameter adapts where m ≥ 0.
    """

    initial: PyTree
    mask: PyTree


def sparse_maml(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    initial_mask: float | tuple[float, float] = (-0.05, 0.05),
    differentiation: Differentiation = first_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """Sparse-MAML: MAML that learns which parameters its inner steps change.

        θ_0 = φ,  θ_{k+1} = θ_k − α 1[m ≥ 0] ∘ ∇_θ L(θ_k; support)
        meta-gradient: with respect to φ and m, where the derivative of 1[m ≥ 0] is taken as 1

    With that straight-through derivative, the meta-gradient of m is nonzero where m < 0, so that
    masked parameters may adapt again. With first order it is −α Σ_k ∇L(θ_K; query) ∘ ∇L(θ_k).

    Args:
      model, objective, inner_steps, inner_batch: as in `maml`.
      inner_optimizer: any optax transformation of the masked gradient; `optax.sgd(α)` above.
      initial_mask: initial value of all m, or (low, high) to draw them uniformly. By default about
        half of the parameters adapt at first, as in the paper. Only the signs of m matter, so a
        narrower range lets them change sooner: under Adam it acts as a higher rate of m. The
        published code draws m like kernels (Kaiming) or from (−0.5, 0.5), and trains it at 7.5
        times the rate of φ.
      differentiation: see `jaxmeta.inner.unroll`. Defaults to first order, as published.

    Raises:
      ValueError: as `maml`; a range with low above high.

    Source: von Oswald et al. 2021, "Learning where to learn: gradient sparsity in meta and
    continual learning".

    >>> import jaxmeta, jax.numpy as jnp
    >>> from jaxmeta.models import mlp
    >>> learner = sparse_maml(mlp((8,), 1), jaxmeta.squared_error, optax.sgd(0.01), inner_steps=1)
    >>> batch = jaxmeta.Batch(jnp.ones((5, 1)), jnp.ones((5, 1)))
    >>> meta_params = learner.init(jax.random.key(0), Task(batch, batch))
    >>> below = jax.tree.map(lambda leaf: -jnp.ones_like(leaf), meta_params.mask)
    >>> frozen = meta_params._replace(mask=below)
    >>> adapted = learner.adapt(jax.random.key(1), frozen, batch)
    >>> bool((adapted.params["head"]["kernel"] == frozen.initial["head"]["kernel"]).all())
    True
    """
    bounds = range_of("initial_mask", initial_mask)
    inner = unroll(
        support_loss(model, objective),
        None,
        inner_steps,
        differentiation=differentiation,
        batch_size=inner_batch,
    )

    def init(key: Key, task: Task) -> SparseMAMLParams:
        model_key, mask_key = jax.random.split(key)
        initial = model.init(model_key, task.support.inputs)
        return SparseMAMLParams(initial, uniform_like(mask_key, initial, bounds))

    def unpack(meta_params: SparseMAMLParams, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        masked = optax.stateless(
            lambda grads, params: jax.tree.map(lambda g, m: binary(m) * g, grads, meta_params.mask)
        )
        return meta_params.initial, {"optimizer": optax.chain(masked, inner_optimizer)}

    return gradient_learner(model, objective, inner, init=init, unpack=unpack)


def binary(m: Array) -> Array:
    """1 where m ≥ 0, else 0; its derivative is taken as 1 (the straight-through estimator).

    Source: Bengio, Léonard, Courville 2013, "Estimating or propagating gradients through stochastic
    neurons for conditional computation".

    >>> import jax.numpy as jnp
    >>> binary(jnp.array([-0.1, 0.0, 2.0])).tolist(), float(jax.grad(binary)(-0.1))
    ([0.0, 1.0, 1.0], 1.0)
    """
    return (m >= 0).astype(m.dtype) + (m - jax.lax.stop_gradient(m))

"""The accuracy of an architecture by training its network."""

import jax
import optax

from jaxmeta.architecture import Accuracy
from jaxmeta.core import Array, Batch, Key, PyTree, cross_entropy
from jaxmeta.models import Chain


def trained_accuracy(
    chain: Chain, optimizer: optax.GradientTransformation, *, steps: int, batch_size: int
) -> Accuracy:
    """`accuracy(key, architecture, task)`: trains on the support, classifies the query.

        θ ← optimizer(θ, ∇ cross_entropy(θ; batch)),  batches drawn from the support

    Args:
      chain: the networks, see `jaxmeta.models.chain_network`.
      optimizer: any optax transformation.
      steps: number of training steps.
      batch_size: examples per step, drawn with replacement.

    Raises:
      ValueError: fewer than one step or example; when called, a task with a mask.

    >>> import jax.numpy as jnp
    >>> from jaxmeta import Task
    >>> from jaxmeta.models import ChainLayer, chain_network
    >>> layers = (ChainLayer("end", "identity"), ChainLayer("conv", "convolution", 3, 4))
    >>> chain = chain_network(layers, decisions=2, outputs=2)
    >>> accuracy = trained_accuracy(chain, optax.adam(1e-2), steps=2, batch_size=4)
    >>> batch = Batch(jnp.ones((4, 8, 8, 1)), jnp.array([0, 1, 0, 1]))
    >>> float(accuracy(jax.random.key(0), jnp.array([1, 0]), Task(batch, batch)))
    0.5
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(
            f"trained_accuracy: {steps} steps, batches of {batch_size}; give at least 1 of each."
        )

    def accuracy(key: Key, architecture: Array, task: PyTree) -> Array:
        init_key, run_key = jax.random.split(key)
        support: Batch = task.support
        if support.mask is not None or task.query.mask is not None:
            raise ValueError("trained_accuracy: a task with a mask; give one without padding.")
        params = chain.init(init_key)

        def loss(params: PyTree, rows: Array) -> Array:
            outputs = chain.apply(params, support.inputs[rows], architecture)
            return cross_entropy(outputs, support.targets[rows])[0]

        def step(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], None]:
            params, state = carry
            rows = jax.random.randint(key, (batch_size,), 0, len(support.targets))
            updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
            return (optax.apply_updates(params, updates), state), None

        start = (params, optimizer.init(params))
        (params, _), _ = jax.lax.scan(step, start, jax.random.split(run_key, steps))
        outputs = chain.apply(params, task.query.inputs, architecture)
        return cross_entropy(outputs, task.query.targets)[1]["accuracy"]

    return accuracy

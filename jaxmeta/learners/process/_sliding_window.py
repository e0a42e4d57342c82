"""A learner that adapts to the last examples of a stream."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Info, Key, MetaLearner, Objective, PyTree, Task, valid_mask
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.process.gaussian import gaussian_likelihood


def sliding_window(
    learner: MetaLearner, window: int, objective: Objective = gaussian_likelihood
) -> MetaLearner:
    """Predict each example of a stream by a learner that adapts to the examples just before it.

        prediction of y_t = predict(adapt(examples t − n, …, t − 1), x_t),  n the window

    The loss is sequential: each query example is predicted from the last n of the support and the
    query examples before it. With n = 0, nothing is adapted: the prediction is that of the learner
    without a support example. The first examples of a stream have fewer than n before them.

    Args:
      learner: adapts to a `Batch` with a mask; its output for an example does not depend on others.
        Before any example, adapt it to a `Batch` of length 0.
      window: n.
      objective: of the learner's outputs.

    Raises:
      ValueError: a negative window.

    >>> from jaxmeta.learners import alpaca
    >>> from jaxmeta.models import mlp
    >>> recent = sliding_window(alpaca(mlp((16,), 8)), 5)
    >>> stream = Batch(jnp.linspace(-1, 1, 20)[:, None], jnp.ones((20, 1)))
    >>> params = recent.init(jax.random.key(0), Task((), stream))
    >>> loss, _ = recent.loss(jax.random.key(1), params, Task((), stream))
    >>> loss.shape
    ()
    """
    if window < 0:
        raise ValueError(f"sliding_window: window {window}; give 0 or more examples.")
    rows = max(window, 1)  # one, masked, for a window of 0

    def latest(batch: Batch, end: Array | int) -> Batch:
        """The last `window` examples before `end`, in rows that are masked where there are none."""
        padded = jax.tree.map(
            lambda leaf: jnp.pad(leaf, ((rows, 0), *((0, 0),) * (leaf.ndim - 1))),
            (batch.inputs, batch.targets),
        )
        own = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, end, rows), padded
        )  # the row i of `batch` is the row i + rows of `padded`
        valid = jnp.concatenate([jnp.zeros(rows, bool), valid_mask(batch.mask, len(batch.targets))])
        valid = jax.lax.dynamic_slice_in_dim(valid, end, rows) & (window > 0)
        return Batch(own[0], own[1], valid)

    def init(key: Key, task: Task) -> PyTree:
        return learner.init(key, Task(latest(task.query, 0), task.query))

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> PyTree:
        compact = _valid_first(support)
        return learner.adapt(key, meta_params, latest(compact, _count(support)))

    def loss(key: Key, meta_params: PyTree, task: Task) -> tuple[Array, Info]:
        parts = [part for part in task if jax.tree.leaves(part)]
        masks = [valid_mask(part.mask, len(part.targets)) for part in parts]
        stream = jax.tree.map(
            lambda *leaves: jnp.concatenate(leaves),
            *(Batch(part.inputs, part.targets, mask) for part, mask in zip(parts, masks)),
        )
        before = [jnp.zeros_like(mask) for mask in masks[:-1]]
        judged = jnp.concatenate([*before, masks[-1]])
        order = jnp.argsort(~stream.mask, stable=True)
        stream, judged = jax.tree.map(lambda leaf: leaf[order], (stream, judged))

        def of_one(end: Array) -> PyTree:
            adapted = learner.adapt(key, meta_params, latest(stream, end))
            row = jax.tree.map(lambda leaf: leaf[end][None], stream.inputs)
            return jax.tree.map(lambda leaf: leaf[0], learner.predict(adapted, row))

        outputs = jax.vmap(of_one)(jnp.arange(len(judged)))
        value, metrics = objective(outputs, stream.targets, judged)
        return value, Info(value, metrics)

    return plain_learner(init, adapt, learner.predict, objective, loss=loss)


def _count(batch: Batch) -> Array:
    return valid_mask(batch.mask, len(batch.targets)).sum()


def _valid_first(batch: Batch) -> Batch:
    """The batch with its valid examples first, in their order."""
    valid = valid_mask(batch.mask, len(batch.targets))
    order = jnp.argsort(~valid, stable=True)
    given = Batch(batch.inputs, batch.targets, valid)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], given)

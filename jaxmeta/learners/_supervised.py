"""Supervised training, as a learner that does not adapt."""

from jaxmeta.core import Key, MetaLearner, Model, Objective, PyTree, Task, meta_learner


def supervised(model: Model, objective: Objective) -> MetaLearner:
    """Supervised training: the query set is the batch, and the support set is ignored.

        meta-gradient: ∇_θ L(θ; query)

    It serves for pre-training and as a baseline. `jaxmeta.data.image_batches` draws its tasks.

    >>> import jax, jax.numpy as jnp, jaxmeta
    >>> from jaxmeta.models import mlp
    >>> learner = supervised(mlp((8,), 3), jaxmeta.cross_entropy)
    >>> batch = jaxmeta.Batch(jnp.ones((4, 2)), jnp.array([0, 1, 2, 0]))
    >>> params = learner.init(jax.random.key(0), Task(batch, batch))
    >>> learner.predict(learner.adapt(jax.random.key(1), params, batch), batch.inputs).shape
    (4, 3)
    """

    def init(key: Key, task: Task) -> PyTree:
        return model.init(key, task.query.inputs)

    return meta_learner(
        init,
        lambda key, meta_params, support: meta_params,
        lambda adapted, inputs, key=None: model.apply(adapted, inputs, key=key),
        objective,
    )

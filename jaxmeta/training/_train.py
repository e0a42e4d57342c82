"""A whole training run as one pure function of a key."""

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Info, Key, MetaLearner
from jaxmeta.training.aggregation import Aggregate, mean
from jaxmeta.training.feed import sampler
from jaxmeta.training.state import Sample, Trained
from jaxmeta.training.update import meta_update


def train(
    learner: MetaLearner,
    sample: Sample,
    key: Key,
    steps: int,
    optimizer: optax.GradientTransformation,
    *,
    task_batch: int,
    tasks_at_once: int | None = None,
    aggregate: Aggregate = mean,
) -> tuple[Trained, Info]:
    """Train a learner for `steps` meta-updates.

        φ_0 = init(key),  φ_{t+1} = optimizer(φ_t, 1/T Σ_i grad(φ_t; task_i))

    A pure function of the key, with one scan over the updates: it can be compiled, and mapped over
    keys to train several seeds. For long runs, with validation and checkpoints, see
    `train_with_checkpoints`.

    Args:
      learner: the learner to train.
      sample: draws a task from a key; any function.
      key: the source of all randomness of the run, initialisation and tasks.
      steps: number of meta-updates.
      optimizer: the outer optimizer.
      task_batch, tasks_at_once, aggregate: as in `meta_update`.

    Returns:
      `Trained(meta_params, shared)`, and an `Info` whose leaves are `[steps, ...]`.

    Raises:
      ValueError, TypeError: the number of steps is negative; the key is a raw one, as of
        `jax.random.PRNGKey`; as `meta_update`.

    >>> import jaxmeta
    >>> from jaxmeta.data import sinusoids
    >>> from jaxmeta.learners import maml
    >>> from jaxmeta.models import mlp
    >>> learner = maml(mlp((40,), 1), jaxmeta.squared_error, optax.sgd(0.01), 1)
    >>> sample = sinusoids(shots=5, queries=5)
    >>> trained, info = train(
    ...     learner, sample, jax.random.key(0), 100, optax.adam(1e-2), task_batch=16)
    >>> info.loss.shape, bool(info.loss[-20:].mean() < info.loss[:20].mean())
    ((100,), True)
    >>> keys = jax.random.split(jax.random.key(1), 3)
    >>> seeds, infos = jax.vmap(
    ...     lambda key: train(learner, sample, key, 5, optax.adam(1e-2), task_batch=16))(keys)
    >>> infos.loss.shape
    (3, 5)
    """
    if steps < 0:
        raise ValueError(f"steps is {steps}: give 0 or more.")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"key is {key.dtype}; give a typed key, such as jax.random.key(0).")
    init, update = meta_update(
        learner,
        optimizer,
        task_batch=task_batch,
        tasks_at_once=tasks_at_once,
        aggregate=aggregate,
    )
    draw = sampler(sample)
    state, infos = jax.lax.scan(lambda state, _: update(state, draw), init(key, draw), length=steps)
    return state.trained, infos

"""The meta-update of learners that train shared values beside their meta-parameters."""

import jax
import optax

from jaxmeta.core import Carry, Info, MetaLearner, PyTree
from jaxmeta.training.state import Sample, TrainState, draw, task_keys
from jaxmeta.training.update import MetaUpdate, meta_update


def alternating_update(learner: MetaLearner, optimizer: optax.GradientTransformation) -> MetaUpdate:
    """A step of the meta-parameters, then one of the shared values, on the same task.

        φ ← optimizer(φ, grads),  grads = gradient(key, φ, task, carry)
        shared ← follow(key, φ, task, carry)

    Unlike with `meta_update`, shared values may have integer leaves, since there is one task and
    nothing is averaged.

    Args:
      learner: its `grad` is an `Alternating`, such as that of `darts` and of architecture searches.
      optimizer: of the meta-parameters, any optax transformation.

    Raises:
      TypeError: the learner has no shared values that follow.

    Source: Liu, Simonyan, Yang 2019, "DARTS: differentiable architecture search", Algorithm 1.

    >>> import jax.numpy as jnp
    >>> from jaxmeta import Task
    >>> from jaxmeta.architecture import SearchSpace
    >>> from jaxmeta.learners import random_search
    >>> accuracy = lambda key, architecture, task: architecture.mean() / 2
    >>> space = SearchSpace(3, ("a", "b", "c"), jnp.ones((4, 3), bool), accuracy)
    >>> learner = random_search(space, budget=10)
    >>> init, update = alternating_update(learner, optax.identity())
    >>> sample = lambda key: Task((), ())
    >>> state, info = update(init(jax.random.key(0), sample), sample)
    >>> int(state.shared.history.seen)
    1
    """
    follow = getattr(learner.grad, "follow", None)
    if learner.shared is None or follow is None:
        raise TypeError(
            "alternating_update: the learner has no shared values that follow its "
            "meta-parameters; give darts or a search, or use meta_update."
        )
    start = meta_update(learner, optimizer, task_batch=1)

    def update(state: TrainState, sample: Sample, given: PyTree = None) -> tuple[TrainState, Info]:
        own = jax.tree.map(lambda leaf: leaf[0], given)
        task, key = draw(sample, task_keys(state, 1)[0], own)
        carry = Carry(state.step, state.shared)
        # As a plain `grad` it also computes the shared values; they are not used, so not compiled.
        grads, info, _ = learner.grad(key, state.meta_params, task, carry)
        updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.meta_params)
        meta_params = optax.apply_updates(state.meta_params, updates)
        after = state._replace(
            step=state.step + 1,
            meta_params=meta_params,
            optimizer_state=optimizer_state,
            shared=follow(key, meta_params, task, carry),
        )
        return after, info

    return MetaUpdate(start.init, update)

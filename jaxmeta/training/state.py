"""The state of a training run, and how its tasks are drawn."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxmeta.core import Array, Key, MetaLearner, PyTree, Task

Sample = Callable[
    [Key], Task
]  # pure; a `jax.tree_util.Partial`, so that jit takes it as an argument


class Trained(NamedTuple):
    """The result of training, which is validated, evaluated and saved as the best checkpoint.

    Attributes:
      meta_params: the learner's meta-parameters.
      shared: values that change during training but are not meta-parameters; see `jaxmeta.Carry`.
    """

    meta_params: PyTree
    shared: PyTree = ()


class TrainState(NamedTuple):
    """The complete state of a training run, as saved in checkpoints.

    Attributes:
      step: int32 scalar, the number of meta-updates so far.
      key: typed PRNG key of the run, which is constant: step t uses `fold_in(key, t)`.
      meta_params: the learner's meta-parameters.
      optimizer_state: the state of the outer optimizer.
      shared: see `jaxmeta.Carry`.
      slots: one slot per task of the batch, stacked; see `jaxmeta.Carry`.

    `state.trained` is the part that is evaluated.
    """

    step: Array
    key: Key
    meta_params: PyTree
    optimizer_state: PyTree
    shared: PyTree = ()
    slots: PyTree = ()

    @property
    def trained(self) -> Trained:
        return Trained(self.meta_params, self.shared)


def untrained(learner: MetaLearner, key: Key, task: Task) -> Trained:
    """The initial values of a learner, for their shapes."""
    meta_params = learner.init(key, task)
    shared = () if learner.shared is None else learner.shared(key, meta_params, task)
    return Trained(meta_params, shared)


def shared_of(learner: MetaLearner, trained: Trained) -> dict[str, PyTree]:
    """The keyword argument `shared` for learners that have shared values; empty for others."""
    return {} if learner.shared is None else {"shared": trained.shared}


def task_keys(state: TrainState, task_batch: int) -> Key:
    """The keys of the tasks of the state's next meta-update."""
    return jax.random.split(jax.random.fold_in(state.key, state.step), task_batch)


def draw_keys(key: Key) -> Key:
    """Splits the key of a task into the key to draw it and the key to learn from it."""
    return jax.random.split(key)


def draw(sample: Sample, key: Key, given: PyTree = None) -> tuple[Task, Key]:
    """A task, drawn or `given` by the host, and the key to learn from it."""
    sample_key, learn_key = draw_keys(key)
    return sample(sample_key if given is None else given), learn_key

"""What a training run carries from step to step, and how its tasks are drawn."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxmeta.core import Array, Key, MetaLearner, PyTree, Task

Sample = Callable[
    [Key], Task
]  # pure; a `jax.tree_util.Partial`, so that jit takes it as an argument


class Trained(NamedTuple):
    """What training has made: it is validated, evaluated, and kept as the best checkpoint.

    Attributes:
      meta_params: the learner's meta-parameters.
      shared: what changes over training without being a meta-parameter; see `jaxmeta.Carry`.
    """

    meta_params: PyTree
    shared: PyTree = ()


class TrainState(NamedTuple):
    """All that a training run carries from step to step, and all that a checkpoint holds.

    Attributes:
      step: int32 scalar, meta-updates done.
      key: typed PRNG key of the run, never changed: step t uses `fold_in(key, t)`.
      meta_params: the learner's meta-parameters.
      optimizer_state: of the outer optimizer.
      shared: see `jaxmeta.Carry`.
      slots: one slot per task of the batch, stacked; see `jaxmeta.Carry`.

    `state.trained` is the part of it that is evaluated.
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
    """What a learner begins with, for its shapes."""
    meta_params = learner.init(key, task)
    shared = () if learner.shared is None else learner.shared(key, meta_params, task)
    return Trained(meta_params, shared)


def shared_of(learner: MetaLearner, trained: Trained) -> dict[str, PyTree]:
    """The keyword with which a learner that keeps `shared` values is called; else none."""
    return {} if learner.shared is None else {"shared": trained.shared}


def task_keys(state: TrainState, task_batch: int) -> Key:
    """The keys of the tasks of the state's next meta-update."""
    return jax.random.split(jax.random.fold_in(state.key, state.step), task_batch)


def draw_keys(key: Key) -> Key:
    """Of a task's key, the one that it is drawn with and the one to learn from it with."""
    return jax.random.split(key)


def draw(sample: Sample, key: Key, given: PyTree = None) -> tuple[Task, Key]:
    """A task, drawn or `given` by the host, and the key to learn from it with."""
    sample_key, learn_key = draw_keys(key)
    return sample(sample_key if given is None else given), learn_key

"""A machine as a few-shot classifier: the support set is written into its memory."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task, valid_mask
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.memory.machine import Machine, run
from jaxmeta.learners.metric._prototypical import class_members
from jaxmeta.learners.ways import among_known, check_ways


class Remembered(NamedTuple):
    """What the support set leaves behind.

    Attributes:
      meta_params: as they were.
      state: of the machine, after the support set.
      last_W: the label of the last support example, which the next step is told.
      known_W: bool `[ways]`, which classes have an example.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    meta_params: PyTree
    state: PyTree
    last_W: Array
    known_W: Array
    reference: PyTree


def memory_classifier(
    machine: Machine, encoder: Model, objective: Objective, ways: int
) -> MetaLearner:
    """A few-shot classifier that reads the support set one example after the other.

        step t of the support:  machine([f(x_t), y_{t−1}]),  y_0 = 0
        a query:                the next step, [f(x), y_S], of each query example by itself

    The label comes one step later than its example, so that the machine has to bind both in its
    memory: with `mann` this is the memory-augmented network of Santoro et al.

    Args:
      machine: with `ways` outputs.
      encoder: f, maps inputs to features `[examples, D]`.
      objective: of logits `[examples, ways]`, cross-entropy.
      ways: classes of a task.

    The order of the support matters. A support example that is not valid is passed over. A class
    without one that is valid is never predicted.

    Raises:
      ValueError: fewer than two ways.

    Source: Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, "Meta-learning with
    memory-augmented neural networks", section 2.

    >>> import jaxmeta
    >>> from jaxmeta.learners.memory import mann
    >>> from jaxmeta.models import mlp
    >>> learner = memory_classifier(mann(5), mlp((8,), 16), jaxmeta.cross_entropy, ways=5)
    """
    check_ways("memory_classifier", ways)

    def init(key: Key, task: Task) -> PyTree:
        encoder_key, key = jax.random.split(key)
        params = encoder.init(encoder_key, task.support.inputs)
        features = jax.eval_shape(encoder.apply, params, task.support.inputs)
        step = jnp.zeros((features.shape[-1] + ways,), features.dtype)
        return {"encoder": params, "machine": machine.init(key, step)}

    # An example that is not real leaves the state, and what is told next, as they are.
    def step(
        params: PyTree, state: tuple[PyTree, Array], example: tuple[Array, Array, Array]
    ) -> tuple[Any, Any, dict[str, Array]]:
        (own, told_W), (features_D, label_W, real) = state, example
        after, outputs, _ = machine.step(params, own, jnp.concatenate([features_D, told_W]))
        state = jax.tree.map(
            lambda new, old: jnp.where(real, new, old), (after, label_W), (own, told_W)
        )
        return state, outputs, {}

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> Remembered:
        features_SD = encoder.apply(meta_params["encoder"], support.inputs, key=key)
        labels_SW = class_members(support, ways, features_SD.dtype)
        real_S = valid_mask(support.mask, len(features_SD))
        reader = machine._replace(step=step)
        params = meta_params["machine"]
        start = (machine.start(params), jnp.zeros((ways,), features_SD.dtype))
        (state, last_W), _, _ = run(reader, params, (features_SD, labels_SW, real_S), start)
        known_W = labels_SW.sum(axis=0) > 0
        return Remembered(meta_params, state, last_W, known_W, support.inputs)

    def predict(adapted: Remembered, inputs: PyTree, *, key: Key | None = None) -> Array:
        meta_params, state, last_W, known_W, reference = adapted
        features_QD = encoder.apply(meta_params["encoder"], inputs, reference=reference, key=key)

        def judge(features_D: Array) -> Array:
            told = jnp.concatenate([features_D, last_W])
            return machine.step(meta_params["machine"], state, told)[1]

        outputs = jax.vmap(judge)(features_QD)
        # A machine made for looking at says more than a number for each class.
        return among_known(outputs, known_W) if outputs.shape[1:] == (ways,) else outputs

    return plain_learner(init, adapt, predict, objective)

"""A recurrent machine as a few-shot classifier: its state stores the support set."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task, valid_mask
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.memory.machine import Machine, run
from jaxmeta.learners.metric._prototypical import class_members
from jaxmeta.learners.ways import among_known, check_ways


class Remembered(NamedTuple):
    """The adapted state of a memory classifier.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      state: state of the machine after the support set.
      last_W: the label of the last support example, an input of the next step.
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
    """A few-shot classifier that reads the support set as a sequence.

        step t of the support:  machine([f(x_t), y_{t−1}]),  y_0 = 0
        each query:             the next step, machine([f(x), y_S])

    Each label is an input one step after its example, so that the machine must associate both in
    its memory. With `mann`, this is the memory-augmented network of Santoro et al.

    Args:
      machine: a machine with `ways` outputs.
      encoder: f, maps inputs to features `[examples, D]`.
      objective: an objective of logits `[examples, ways]`, such as cross-entropy.
      ways: classes of a task.

    The order of the support set matters. Padding is skipped. A class without a (valid) support
    example is never predicted.

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

    # Padding leaves the state and the next label input unchanged.
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
        # A machine made for plots may return other outputs than one number per class.
        return among_known(outputs, known_W) if outputs.shape[1:] == (ways,) else outputs

    return plain_learner(init, adapt, predict, objective)

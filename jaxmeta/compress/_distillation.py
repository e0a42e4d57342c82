"""Distillation: a learner is trained to predict what another one predicts after adaptation."""

import math
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import (
    Array,
    GradientOf,
    Info,
    Key,
    MetaLearner,
    PyTree,
    Task,
    masked_mean,
    unpadded,
)


def distilled(
    student: MetaLearner,
    teacher: MetaLearner,
    teacher_params: PyTree,
    *,
    temperature: float = 1.0,
    logits: Callable[[Array], Array] = lambda outputs: outputs,
) -> MetaLearner:
    """A learner whose loss is the difference of its adapted predictions to those of a teacher.

        L(φ; task) = T² mean_q KL(softmax(z_q / T) ‖ softmax(ẑ_q(φ) / T))

    z and ẑ are the outputs of the teacher and of the student for the query inputs, each adapted to
    the same support set. The labels of the query are not used. Any meta-update trains it, and the
    result are parameters of the student. The metric `agreement` is the fraction of queries for
    which both predict the same class.

    Args:
      student: any classifier; its own loss and meta-gradient are not used.
      teacher: any classifier of as many classes, of any kind.
      teacher_params: its meta-parameters, which are constants.
      temperature: T. Higher values weigh the less probable classes more.
      logits: maps the outputs of both to logits, for learners with other outputs, such as the
        scores of relation networks. Defaults to the outputs themselves.

    Shapes: outputs and logits are `[queries, ways]`.

    Raises:
      ValueError: a temperature that is not positive and finite; a learner with shared values or
        slots; when traced, outputs of different shapes.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2.

    >>> import jaxmeta, optax
    >>> from jaxmeta.training import meta_update
    >>> def classifier(width):
    ...     model = jaxmeta.mlp((width,), 2)
    ...     return jaxmeta.maml(model, jaxmeta.cross_entropy, optax.sgd(0.1), inner_steps=1)
    >>> teacher, student = classifier(32), classifier(4)
    >>> batch = jaxmeta.Batch(jnp.eye(2), jnp.arange(2))
    >>> teacher_params = teacher.init(jax.random.key(0), Task(batch, batch))
    >>> learner = distilled(student, teacher, teacher_params)
    >>> init, update = meta_update(learner, optax.adam(1e-2), task_batch=2)
    >>> state = init(jax.random.key(1), lambda key: Task(batch, batch))
    >>> state, info = update(state, lambda key: Task(batch, batch))
    >>> sorted(info.metrics)
    ['agreement']
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"distilled: a temperature of {temperature}; give a positive, finite one.")
    for role, learner in (("student", student), ("teacher", teacher)):
        if learner.shared is not None or learner.slot is not None:
            raise ValueError(
                f"distilled: the {role} has shared values or slots, which are not supported; give "
                "a learner that is described by its meta-parameters."
            )

    def loss(key: Key, meta_params: PyTree, task: Task, /) -> tuple[Array, Info]:
        adapted = student.adapt(key, meta_params, task.support)
        of_teacher = teacher.adapt(key, teacher_params, task.support)
        with unpadded(task.support, task.query) as (_, query):
            outputs_QW = logits(student.predict(adapted, query.inputs))
            targets_QW = jax.lax.stop_gradient(logits(teacher.predict(of_teacher, query.inputs)))
        if outputs_QW.shape != targets_QW.shape:
            raise ValueError(
                f"distilled: the student's outputs are {outputs_QW.shape}, the teacher's "
                f"{targets_QW.shape}; give learners with the same number of classes."
            )
        chex.assert_rank(outputs_QW, 2)
        logs_QW = jax.nn.log_softmax(outputs_QW / temperature)
        target_logs_QW = jax.nn.log_softmax(targets_QW / temperature)
        divergence_Q = (jnp.exp(target_logs_QW) * (target_logs_QW - logs_QW)).sum(axis=1)
        value = temperature**2 * masked_mean(divergence_Q, query.mask)
        same_Q = (outputs_QW.argmax(axis=1) == targets_QW.argmax(axis=1)).astype(value.dtype)
        return value, Info(value, {"agreement": masked_mean(same_Q, query.mask)})

    return student._replace(loss=loss, grad=GradientOf(loss))

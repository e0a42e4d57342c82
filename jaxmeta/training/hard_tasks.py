"""Hard tasks: every second batch is drawn from the worst classes of the batch before."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta.core import (
    Array,
    Carry,
    Info,
    Key,
    MetaLearner,
    Objective,
    PyTree,
    Task,
    cross_entropy,
    fill_padding,
)
from jaxmeta.data._episodes import count_classes, drawn_classes, weighted
from jaxmeta.training.aggregation import Aggregate, mean
from jaxmeta.training.state import TrainState, draw_keys, task_keys
from jaxmeta.training.update import MetaUpdate, meta_update

_WORST = "worst_class"
_OTHER_WEIGHT = 1e-6  # of the other classes, which are drawn if the failed ones are too few


def cross_entropy_and_worst_class(ways: int) -> Objective:
    """`cross_entropy` with the additional metric `worst_class`.

    This is the label with the lowest accuracy; ties are broken by the highest mean loss.

    >>> logits = jnp.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    >>> _, metrics = cross_entropy_and_worst_class(2)(logits, jnp.array([0, 1, 1]))
    >>> int(metrics["worst_class"])
    1
    """

    def objective(
        outputs: Array, targets: Array, mask: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        loss, metrics = cross_entropy(outputs, targets, mask)
        outputs, targets = fill_padding((outputs, targets), mask)
        members_QW = jax.nn.one_hot(targets, ways, dtype=outputs.dtype)
        if mask is not None:
            members_QW = jnp.where(mask[:, None], members_QW, 0)
        counts_W = members_QW.sum(axis=0)
        shares_QW = members_QW / jnp.maximum(counts_W, 1)[None]
        correct_Q = (outputs.argmax(axis=1) == targets).astype(outputs.dtype)
        losses_Q = -(jax.nn.log_softmax(outputs) * members_QW).sum(axis=1)
        accuracies_W = jnp.where(counts_W > 0, correct_Q @ shares_QW, jnp.inf)
        # Sorted, not compared with the minimum, which a compiler may round differently.
        worst = jnp.lexsort((-(losses_Q @ shares_QW), accuracies_W))[0]
        return loss, {**metrics, _WORST: worst.astype(jnp.int32)}

    return objective


def hard_task_update(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    task_batch: int,
    tasks_at_once: int | None = None,
    aggregate: Aggregate = mean,
    mesh: Mesh | None = None,
) -> MetaUpdate:
    """As `meta_update`, with every second batch drawn from the worst classes of the batch before.

        failed = {worst class of task_t},  weight_c = number of tasks that failed at c, else 1e-6

    The failed classes are stored in the `slots` of the state. The sampler must be one of
    `episodes`, on the device.

    Args:
      learner: built with the objective `cross_entropy_and_worst_class`.
      optimizer, task_batch, tasks_at_once, aggregate, mesh: as in `meta_update`.

    Raises:
      ValueError: as `meta_update`; the learner has slots of its own; its metrics have no
        `worst_class`; tasks come from the host.

    Source: Sun, Liu, Chua, Schiele 2019, "Meta-transfer learning for few-shot learning",
    section 4.3.
    """
    if learner.slot is not None:
        raise ValueError("hard tasks: learners with a slot of their own are not supported.")

    def grad(key: Key, meta_params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info, Carry]:
        grads, info, carry = learner.grad(key, meta_params, task, carry._replace(slot=()))
        metrics = dict(info.metrics)
        if _WORST not in metrics:
            raise ValueError("hard tasks require the objective `cross_entropy_and_worst_class`.")
        # Stored per task, since a mean of labels is meaningless.
        carry = carry._replace(slot=metrics.pop(_WORST))
        return grads, info._replace(metrics=metrics), carry

    # Initially no class has failed; the first batch ignores the slots.
    init, update_plain = meta_update(
        learner._replace(grad=grad, slot=lambda *_: jnp.zeros((), jnp.int32)),
        optimizer,
        task_batch=task_batch,
        tasks_at_once=tasks_at_once,
        aggregate=aggregate,
        mesh=mesh,
    )

    def update(state: TrainState, sample: Any, given: PyTree = None) -> tuple[TrainState, Info]:
        if given is not None:
            raise ValueError("hard tasks are drawn on the device: give a sampler, not a stream.")
        failed = jnp.zeros((count_classes(sample),)).at[state.slots].add(1.0)
        hard = state.step % 2 == 1
        weights = jnp.where(hard, jnp.maximum(failed, _OTHER_WEIGHT), 1.0)
        drawing = weighted(sample, weights)
        after, info = update_plain(state, drawing)
        keys = task_keys(state, task_batch)
        classes_TW = jax.vmap(lambda key: drawn_classes(drawing, draw_keys(key)[0]))(keys)
        worst = jnp.take_along_axis(classes_TW, after.slots[:, None], axis=1)[:, 0]
        return after._replace(slots=worst), info

    return MetaUpdate(init, update)

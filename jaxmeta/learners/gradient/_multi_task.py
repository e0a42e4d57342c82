"""Multi-task learning: a trunk shared by all training tasks, and a head for each of them."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import (
    Array,
    Batch,
    Info,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
    meta_learner,
    valid_mask,
)
from jaxmeta.inner import Differentiation, second_order, support_loss, unroll
from jaxmeta.learners.gradient._proto_maml import prototype_head
from jaxmeta.learners.ways import check_choice
from jaxmeta.numbered import Numbered

FineTune = Literal["head", "all"]
NewHead = Literal["zero", "prototypes"]


class MultiTaskParams(NamedTuple):
    """Meta-parameters of multi-task learning.

    Attributes:
      trunk: parameters of the encoder, shared by all tasks.
      heads: a linear layer for each training task, `kernel` `[tasks, D, outputs]` and `bias`
        `[tasks, outputs]`.
    """

    trunk: PyTree
    heads: dict[str, Array]


class MultiTaskAdapted(NamedTuple):
    """The trunk with the head of a new task.

    Attributes:
      params: `{"trunk": ..., "head": {"kernel": [D, outputs], "bias": [outputs]}}`.
      reference: the support inputs, for an encoder normalised by the support's statistics.
    """

    params: dict[str, PyTree]
    reference: PyTree


def multi_task(
    encoder: Model,
    objective: Objective,
    outputs: int,
    tasks: int,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    fine_tune: FineTune = "head",
    new_head: NewHead = "zero",
    trained_outputs: int | None = None,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """Multi-task learning with hard sharing: one trunk f, and a head for each training task.

        training: min over θ, W_1 … W_T of Σ_i L(W_i f_θ; all examples of task i)
        a new task: W ← 0 or prototypes, then steps of gradient descent on L(W f_θ; support)

    The baseline that meta-learning is to be compared with: no inner loop in training, and the heads
    of the training tasks are not used afterwards.

    Args:
      encoder: f, maps inputs to features `[examples, D]`.
      objective: of the outputs `[examples, outputs]`.
      outputs: outputs of a new task, such as its classes.
      tasks: T, the number of training tasks. Their support sets are `Numbered`, as
        `jaxmeta.data.numbered` draws them; any other support set is a new task.
      inner_optimizer, inner_steps: the training of a new head.
      fine_tune: what is trained for a new task: its `head` on the frozen trunk, or `all`.
      new_head: what its head starts from: `zero`, or for classes the `prototypes` of the trunk's
        features, see `proto_maml`. With no steps, these are the classifier.
      trained_outputs: outputs of a training task. Defaults to `outputs`.
      differentiation: of the loss of a new task, see `jaxmeta.inner.unroll`; training tasks have
        no steps.

    Raises:
      ValueError: fewer than one task or one output; when traced, features of another rank.

    Source: Caruana 1997, "Multitask learning", section 2; Wang, Zhao, Li 2021, "Bridging multi-task
    learning and meta-learning", section 3.

    >>> import jaxmeta
    >>> from jaxmeta.models import on_features
    >>> learner = multi_task(on_features(), jaxmeta.cross_entropy, 2, 10, optax.sgd(1.0), 50)
    >>> support = Batch(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1]))
    >>> params = learner.init(jax.random.key(0), Task(support, support))
    >>> adapted = learner.adapt(jax.random.key(1), params, support)
    >>> learner.predict(adapted, support.inputs).argmax(axis=1).tolist()
    [0, 1]
    """
    if tasks < 1 or outputs < 1:
        raise ValueError(f"multi_task: {tasks} tasks, {outputs} outputs; give at least 1 of each.")
    check_choice("multi_task", fine_tune, FineTune)
    check_choice("multi_task", new_head, NewHead)

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> Array:
        features = encoder.apply(params["trunk"], inputs, reference=reference, key=key)
        return features @ params["head"]["kernel"] + params["head"]["bias"][None]

    model = Model(lambda key, inputs: (), apply)
    loss_of = support_loss(model, objective)
    inner = unroll(
        loss_of,
        inner_optimizer,
        inner_steps,
        differentiation=differentiation,
        # Not `only("head")`: a layer of the trunk may have that name, too.
        adapts=(lambda path: path.startswith("head/")) if fine_tune == "head" else None,
    )

    def init(key: Key, task: Task) -> MultiTaskParams:
        inputs = _batch(task.support).inputs
        trunk_key, key = jax.random.split(key)
        trunk = encoder.init(trunk_key, inputs)
        features = jax.eval_shape(encoder.apply, trunk, inputs)
        if len(features.shape) != 2:
            raise ValueError(
                f"multi_task: the encoder's features have the shape {features.shape}; give one "
                "that returns [examples, D]."
            )
        width = outputs if trained_outputs is None else trained_outputs
        shape = (tasks, features.shape[1], width)
        kernel = jax.random.normal(key, shape, features.dtype) / jnp.sqrt(shape[1])
        bias = jnp.zeros((tasks, width), features.dtype)
        return MultiTaskParams(trunk, {"kernel": kernel, "bias": bias})

    def adapt(key: Key, meta_params: MultiTaskParams, support: PyTree) -> MultiTaskAdapted:
        if isinstance(support, Numbered):
            own = jax.tree.map(lambda leaf: leaf[support.number], meta_params.heads)
            params = {"trunk": meta_params.trunk, "head": own}
            return MultiTaskAdapted(params, support.examples.inputs)
        found = inner(key, start(meta_params, support), support)
        return MultiTaskAdapted(found.params, support.inputs)

    def start(meta_params: MultiTaskParams, support: Batch) -> dict[str, PyTree]:
        trunk, heads = meta_params
        if new_head == "prototypes":
            new = prototype_head(encoder.apply(trunk, support.inputs), support, outputs)
        else:
            kernel = heads["kernel"]
            shapes = {"kernel": (kernel.shape[1], outputs), "bias": (outputs,)}
            new = {name: jnp.zeros(shape, kernel.dtype) for name, shape in shapes.items()}
        return {"trunk": trunk, "head": new}

    def predict(adapted: MultiTaskAdapted, inputs: PyTree, *, key: Key | None = None) -> Array:
        return apply(adapted.params, inputs, reference=adapted.reference, key=key)

    def loss(key: Key, meta_params: MultiTaskParams, task: Task) -> tuple[Array, Info]:
        adapted = adapt(key, meta_params, task.support)
        query = task.query
        outputs = predict(adapted, query.inputs)
        of_query, metrics = objective(outputs, query.targets, query.mask)
        if not isinstance(task.support, Numbered):
            return of_query, Info(of_query, metrics)
        # In training, all examples of a task are for learning: support and query alike.
        examples = task.support.examples
        of_support = loss_of(key, adapted.params, examples)
        shares = [_count(own) for own in (examples, query)]
        total = jnp.maximum(shares[0] + shares[1], 1)
        value = (shares[0] * of_support + shares[1] * of_query) / total
        return value, Info(value, metrics)

    def trajectory(
        key: Key, meta_params: MultiTaskParams, support: PyTree, inputs: PyTree
    ) -> Array:
        if isinstance(support, Numbered):  # no steps
            same = predict(adapt(key, meta_params, support), inputs)
            return jnp.broadcast_to(same, (inner_steps + 1, *same.shape))
        return inner(
            key,
            start(meta_params, support),
            support,
            observe=lambda params: predict(MultiTaskAdapted(params, support.inputs), inputs),
        ).observations

    return meta_learner(init, adapt, predict, objective, loss=loss, trajectory=trajectory)


def _batch(support: PyTree) -> Batch:
    return support.examples if isinstance(support, Numbered) else support


def _count(batch: Batch) -> Array:
    """The number of valid examples."""
    return valid_mask(batch.mask, len(jax.tree.leaves(batch.targets)[0])).sum()

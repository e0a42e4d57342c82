"""Recurrent machines, run over sequences of any length."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxmeta.core import (
    Array,
    Batch,
    GradientOf,
    Info,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
    fill_padding,
)
from jaxmeta.ops import varying_with


class Step(Protocol):
    def __call__(
        self, params: PyTree, state: PyTree, inputs: PyTree, /
    ) -> tuple[PyTree, PyTree, dict[str, Array]]: ...


class Machine(NamedTuple):
    """A recurrent network as three pure functions of one sequence.

    Attributes:
      init: `init(key, inputs) -> params`, from the inputs of one step.
      start: `start(params) -> state`, before the first step.
      step: `step(params, state, inputs) -> (state, outputs, seen)`; `seen` holds arrays for
        inspection by name, such as the weightings of the heads.
    """

    init: Callable[[Key, PyTree], PyTree]
    start: Callable[[PyTree], PyTree]
    step: Step


def run(
    machine: Machine, params: PyTree, inputs: PyTree, state: PyTree = None
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """Run a machine over a sequence; returns the last state, outputs `[T, ...]`, seen `[T, ...]`.

    Args:
      machine, params: see `Machine`.
      inputs: a PyTree of arrays `[T, ...]`, of any length.
      state: the initial state. Defaults to `machine.start(params)`.

    >>> import jax.numpy as jnp
    >>> total = Machine(
    ...     init=lambda key, x: (),
    ...     start=lambda params: jnp.zeros(()),
    ...     step=lambda params, state, x: (state + x, state + x, {}))
    >>> run(total, (), jnp.arange(4.0))[1].tolist()
    [0.0, 1.0, 3.0, 6.0]
    """
    state = machine.start(params) if state is None else state
    state = varying_with(_widened(state, (inputs, params)), (inputs, params))

    def step(state: PyTree, inputs: PyTree) -> tuple[PyTree, tuple[PyTree, dict[str, Array]]]:
        state, outputs, seen = machine.step(params, state, inputs)
        return state, (outputs, seen)

    state, (outputs, seen) = jax.lax.scan(step, state, inputs)
    return state, outputs, seen


def _widened(state: PyTree, others: PyTree) -> PyTree:
    """The state with its floats in the widest float dtype of the arguments, as after a step."""
    real = lambda leaf: jnp.issubdtype(jnp.result_type(leaf), jnp.floating)  # noqa: E731
    widest = jnp.result_type(*filter(real, jax.tree.leaves((state, others))), jnp.bfloat16)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, widest) if real(leaf) else leaf, state)


def applied(layer: nn.Module, params: PyTree, *inputs: PyTree) -> Any:
    """Apply the layer with these parameters to the inputs."""
    return layer.apply({"params": params}, *inputs)


def as_model(machine: Machine) -> Model:
    """The machine as a `Model` of sequences, from inputs `[T, ...]` to outputs `[T, ...]`.

    >>> import jax.numpy as jnp
    >>> from jaxmeta.learners.memory import lstm_machine
    >>> model, inputs = as_model(lstm_machine(8, 2)), jnp.ones((5, 3))
    >>> model.apply(model.init(jax.random.key(0), inputs), inputs).shape
    (5, 2)
    """

    def init(key: Key, inputs: PyTree, /) -> PyTree:
        return machine.init(key, jax.tree.map(lambda leaf: leaf[0], inputs))

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree:
        return run(machine, params, inputs)[1]

    return Model(init, apply)


def sequence_learner(model: Model, objective: Objective) -> MetaLearner:
    """A learner of sequences: within a sequence, it learns by the state of the model.

        L(φ; task) = objective(model(φ, query.inputs), query.targets, query.mask)

    The query is one sequence, with steps in place of examples; its mask selects the outputs in the
    loss. Steps after the last selected one have no effect. The support is empty, `()`: there is no
    adaptation before the sequence begins.

    Args:
      model: a model of sequences, see `as_model`.
      objective: an objective of outputs `[T, ...]`.

    >>> import jax.numpy as jnp
    >>> import jaxmeta
    >>> from jaxmeta.learners.memory import lstm_machine
    >>> learner = sequence_learner(as_model(lstm_machine(8, 2)), jaxmeta.squared_error)
    >>> task = Task((), Batch(jnp.ones((5, 3)), jnp.zeros((5, 2))))
    >>> params = learner.init(jax.random.key(0), task)
    >>> learner.predict(params, task.query.inputs).shape
    (5, 2)
    """

    def init(key: Key, task: Task) -> PyTree:
        return model.init(key, task.query.inputs)

    def adapt(key: Key, meta_params: PyTree, support: Batch) -> PyTree:
        return meta_params

    def predict(adapted: PyTree, inputs: PyTree, *, key: Key | None = None) -> PyTree:
        return model.apply(adapted, inputs, key=key)

    # Masked steps are part of the sequence if an unmasked one follows.
    def loss(key: Key, meta_params: PyTree, task: Task) -> tuple[Array, Info]:
        inputs, targets, mask = task.query
        if mask is not None:
            inputs = fill_padding(inputs, jax.lax.cummax(mask.astype(jnp.int32), reverse=True) > 0)
        value, metrics = objective(predict(meta_params, inputs), targets, mask)
        return value, Info(value, metrics)

    return MetaLearner(init, adapt, predict, loss, GradientOf(loss))

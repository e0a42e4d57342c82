"""The inner loop: steps of any optax transformation on one task."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, Model, Objective, PyTree, Task, unpadded
from jaxmeta.inner._finite import with_finite_derivatives
from jaxmeta.inner._partition import Selection, combine, partition
from jaxmeta.inner.differentiation import (
    Differentiation,
    InnerLoss,
    gradient_of,
    second_order,
)
from jaxmeta.objectives import judged
from jaxmeta.ops import varying_with


class Unrolled(NamedTuple):
    """The result of an inner loop.

    Attributes:
      params: the adapted parameters.
      observations: the values of `observe` before the first and after every step, stacked; None
        without `observe`.
      optimizer_state: state of the inner optimizer after the last step.
    """

    params: PyTree
    observations: Any
    optimizer_state: PyTree


class InnerLoop(Protocol):
    """`inner(key, params, support) -> Unrolled`, from initial parameters and a support set.

    `optimizer` and `optimizer_state`, if given, replace the defaults of the loop; `observe(params)`
    is recorded at every step; `batches` int `[steps, size]` gives the examples of every step.
    """

    def __call__(
        self,
        key: Key,
        params: PyTree,
        support: PyTree,
        /,
        *,
        optimizer: optax.GradientTransformation | None = None,
        optimizer_state: PyTree = None,
        observe: Callable[[PyTree], Any] | None = None,
        batches: Array | None = None,
    ) -> Unrolled: ...


def support_loss(model: Model, objective: Objective) -> InnerLoss:
    """The loss that an inner loop minimises: the objective of the model on a support batch.

    >>> import jaxmeta
    >>> model = Model(init=lambda key, x: 0.0, apply=lambda w, x, reference=None, key=None: w * x)
    >>> loss = support_loss(model, jaxmeta.squared_error)
    >>> float(loss(jax.random.key(0), 2.0, Batch(jnp.ones((3, 1)), jnp.zeros((3, 1)))))
    4.0
    """

    def loss(key: Key, params: PyTree, batch: Batch) -> Array:
        with unpadded(batch) as (batch,):
            outputs = model.apply(params, batch.inputs, key=key)
            return judged(objective, outputs, batch.targets, batch.mask)[0]

    return loss


def query_loss(
    model: Model, objective: Objective, task: Task, *, key: Key | None = None
) -> Callable[[PyTree], tuple[Array, dict[str, Array]]]:
    """The loss of adapted parameters: the objective of the model on the query set.

    It is deterministic unless a key is given, for dropout and the like.

    >>> import jaxmeta
    >>> model = Model(init=lambda key, x: 0.0, apply=lambda w, x, reference=None, key=None: w * x)
    >>> batch = Batch(jnp.ones((3, 1)), jnp.zeros((3, 1)))
    >>> loss, _ = query_loss(model, jaxmeta.squared_error, Task(batch, batch))(2.0)
    >>> float(loss)
    4.0
    """

    def judge(params: PyTree) -> tuple[Array, dict[str, Array]]:
        with unpadded(task.support, task.query) as (support, query):
            outputs = model.apply(params, query.inputs, reference=support.inputs, key=key)
            return judged(objective, outputs, query.targets, query.mask)

    return judge


def unroll(
    loss: InnerLoss,
    optimizer: optax.GradientTransformation | None,
    steps: int,
    *,
    differentiation: Differentiation = second_order,
    adapts: Selection | None = None,
    batch_size: int | None = None,
    value: bool = False,
) -> InnerLoop:
    """An inner loop of `steps` steps of `optimizer` on `loss`, for one task.

        θ_0 = φ,  θ_{k+1} = θ_k + optimizer(∇_θ loss(θ_k; support))

    Args:
      loss: `loss(key, params, batch) -> scalar`; see `support_loss`.
      optimizer: any optax transformation, or None if every call passes one. If an inner gradient
        is exactly zero, the derivative of a root of it in the optimizer is zero instead of
        infinite; `jaxmeta.inner.adam` has a smaller slope there than `optax.adam`.
      steps: K, at least 0.
      differentiation: how the meta-gradient is propagated through the steps. Defaults to mixed
        mode.
      adapts: which parameters adapt, by path (`only("head")`). Defaults to all.
      batch_size: examples per step, drawn in shuffled passes over the support set. Defaults to
        the whole support set. From a `Batch` with a mask, only valid examples are drawn; if fewer
        than `batch_size` are valid, each step uses all of them.
      value: also pass the loss to the optimizer, as optax's extra argument `value`.

    Returns:
      `inner(key, params, support, *, optimizer=None, optimizer_state=None, observe=None,
      batches=None)`, which returns an `Unrolled`. `optimizer` replaces the one above. If it is made
      from meta-parameters, it is learned, because the meta-gradient is propagated through it
      (learned rates, `scaled(rates)`). `optimizer_state` is the initial state of the optimizer.
      Defaults to `optimizer.init`. `observe(params)` is evaluated before the first and after every
      step, and its values are stacked to `[steps + 1, ...]`, for example the losses of an
      adaptation curve. `batches` int `[steps, size]` are the indices of the examples of each step,
      for a stream of examples.

    Raises:
      ValueError: `steps` is negative; `batch_size` is not positive, or above the size of the
        support set.
      TypeError: `optimizer` is not an optax transformation.

    >>> inner = unroll(lambda key, w, batch: ((w - batch) ** 2).sum(), optax.sgd(0.25), 2)
    >>> end = inner(jax.random.key(0), 0.0, jnp.ones(()), observe=lambda w: w)
    >>> float(end.params), end.observations.tolist()
    (0.75, [0.0, 0.5, 0.75])
    """
    if optimizer is not None and not hasattr(optimizer, "update"):
        raise TypeError(f"inner optimizer: {optimizer}; give one of optax, such as optax.sgd(0.1).")
    if steps < 0:
        raise ValueError(f"inner steps: {steps}; give 0 or more.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"inner batch size: {batch_size}; give at least 1.")

    def loss_of_adapting(key: Key, theta: PyTree, rest: tuple[PyTree, PyTree]) -> Array:
        frozen, batch = rest
        return loss(key, combine(theta, frozen), batch)

    gradient = gradient_of(loss_of_adapting, differentiation, value=value)
    default = optimizer

    def inner(
        key: Key,
        params: PyTree,
        support: PyTree,
        /,
        *,
        optimizer: optax.GradientTransformation | None = None,
        optimizer_state: PyTree = None,
        observe: Callable[[PyTree], Any] | None = None,
        batches: Array | None = None,
    ) -> Unrolled:
        optimizer = default if optimizer is None else optimizer
        if optimizer is None:
            raise ValueError("inner loop: no optimizer; give one to `unroll` or to this call.")
        transform = optax.with_extra_args_support(optimizer)

        def update(grads: PyTree, state: PyTree, theta: PyTree, extra: dict) -> Any:
            return transform.update(grads, state, theta, **extra)

        if not getattr(optimizer.update, "__module__", "").startswith("jaxmeta."):
            update = with_finite_derivatives(update)  # those of jaxmeta already are finite
        theta, frozen = partition(params, adapts)
        theta = varying_with(theta, support)
        watch = (lambda params: None) if observe is None else observe

        start = theta

        def straight_through(moved: PyTree) -> PyTree:
            """The moved parameters, with the derivative of the initial ones."""
            return jax.tree.map(lambda a, b: a + jax.lax.stop_gradient(b - a), start, moved)

        def step(state, step_inputs, seen=lambda theta: theta):
            theta, optimizer_state = state
            step_key, indices = step_inputs
            batch = support
            if indices is not None:
                batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[indices], support)
            observed = watch(combine(seen(theta), frozen))
            grads = gradient(theta, step_key, (frozen, batch))
            extra = {}
            if value:
                extra["value"], grads = grads
            updates, optimizer_state = update(grads, optimizer_state, theta, extra)
            return (optax.apply_updates(theta, updates), optimizer_state), observed

        body = jax.checkpoint(step) if differentiation.rematerialise else step
        shuffle_key, steps_key = jax.random.split(key)
        indices = batches
        if batches is not None:
            chex.assert_shape(batches, (steps, None))
        elif batch_size is not None:
            count = jax.tree.leaves(support)[0].shape[0]
            mask = support.mask if isinstance(support, Batch) else None
            indices = minibatches(shuffle_key, count, batch_size, steps, mask)
        step_inputs = (jax.random.split(steps_key, steps), indices)

        if optimizer_state is None:
            optimizer_state = optimizer.init(theta)
        state = (theta, varying_with(optimizer_state, support))
        last = steps if differentiation.last is None else min(differentiation.last, steps)
        before, after = (
            jax.tree.map(lambda x: x[: steps - last], step_inputs),
            jax.tree.map(lambda x: x[steps - last :], step_inputs),
        )
        earlier = later = None
        if last < steps:
            (moved, state_before), earlier = jax.lax.scan(
                partial(step, seen=straight_through), jax.lax.stop_gradient(state), before
            )
            state = (straight_through(moved), jax.lax.stop_gradient(state_before))
        if last > 0:
            state, later = jax.lax.scan(body, state, after)
        theta, final_state = state
        adapted = combine(theta, frozen)
        return Unrolled(adapted, _stack(earlier, later, watch(adapted)), final_state)

    return inner


def _stack(earlier: PyTree, later: PyTree, final: PyTree) -> PyTree:
    parts = [part for part in (earlier, later) if part is not None]
    final = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], final)
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts, final)


def minibatches(key: Key, count: int, size: int, steps: int, mask: Array | None = None) -> Array:
    """Indices int `[steps, size]` of minibatches from shuffled passes over `count` examples.

    A batch that reaches the end of a pass continues with the next one (Nichol et al. 2018's code).
    With a mask, passes are over the valid examples. If there are fewer than `size`, a batch has all
    of them, followed by padding.

    Raises:
      ValueError: `size` above `count`.

    >>> sorted(minibatches(jax.random.key(0), 4, 2, 2).reshape(-1).tolist())
    [0, 1, 2, 3]
    """
    if size > count:
        raise ValueError(f"inner batch size {size} is above the {count} support examples.")
    if mask is not None:
        return _minibatches_of_valid(key, size, steps, mask)
    passes = max(1, -(-steps * size // count))
    order = jax.vmap(lambda key: jax.random.permutation(key, count))(jax.random.split(key, passes))
    return order.reshape(-1)[: steps * size].reshape(steps, size)


def _minibatches_of_valid(key: Key, size: int, steps: int, mask: Array) -> Array:
    count = mask.shape[0]
    valid = jnp.maximum(mask.sum(), 1)
    taken = jnp.minimum(size, valid)

    def shuffled(number: Array) -> Array:
        """The valid examples of a pass in random order, followed by the padding."""
        # Drawn so that the minibatches do not depend on the amount of padding at the end.
        own = jax.random.split(jax.random.fold_in(key, number))[1]
        bits = jax.random.bits(own, (count,), jnp.uint32)
        return jnp.lexsort((bits, ~mask))

    def batch(step: Array) -> Array:
        number, start = step * taken // valid, step * taken % valid
        both = jnp.stack([shuffled(number), shuffled(number + 1)])
        places = start + jnp.arange(size)
        # A batch is at most as long as a pass, so that it spans at most two.
        is_next = (places >= valid) & (jnp.arange(size) < taken)
        places = jnp.where(is_next, places - valid, places)
        return both[is_next.astype(jnp.int32), jnp.minimum(places, count - 1)]

    return jax.vmap(batch)(jnp.arange(steps))

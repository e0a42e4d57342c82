"""A linear head that learns a stream of features by gradient descent."""

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, Objective, PyTree
from jaxmeta.inner import Differentiation, unroll
from jaxmeta.learners.linear_head import head_logits, head_loss
from jaxmeta.learners.metric._prototypical import known_classes
from jaxmeta.ops import varying_with


def random_head(key: Key, size: int, classes: int) -> PyTree:
    """Weights with the variance 2 / `size` (He et al. 2015), and biases of 0."""
    return {"kernel": _random(key, (size, classes)), "bias": jnp.zeros((classes,))}


def _random(key: Key, shape: tuple[int, int]) -> Array:
    return jax.random.normal(key, shape) * jnp.sqrt(2 / shape[0])


def with_new_classes(
    key: Key, head: PyTree, stream: Batch, ways: int | None
) -> tuple[PyTree, Array]:
    """The head in which the classes of the stream are random, and which classes are known.

    With `ways`, all classes are new, and those without an example are unknown.
    """
    size, classes = head["kernel"].shape
    if ways is not None:
        return random_head(key, size, ways), known_classes(stream, ways)
    # A column for each example: a function of the class, so that equal classes have equal columns.
    column = lambda name: _random(jax.random.fold_in(key, name), (size, 1))[:, 0]  # noqa: E731
    columns = jax.vmap(column, out_axes=1)(stream.targets)
    kernel, bias = jnp.asarray(head["kernel"]), jnp.asarray(head["bias"])
    new = {
        "kernel": kernel.at[:, stream.targets].set(columns.astype(kernel.dtype)),
        "bias": bias.at[stream.targets].set(0),
    }
    return new, jnp.ones((classes,), bool)


def descended(
    objective: Objective,
    head: PyTree,
    features: Batch,
    rows_TB: Array,
    rate: Array,
    factors: PyTree,
    differentiation: Differentiation,
) -> PyTree:
    """The head after a step of gradient descent on each row of examples.

        W_{t+1} = W_t − α η ∘ ∇_W L(W_t f(x_t), y_t)

    Args:
      objective: an objective of logits.
      head: W_0.
      features: of the stream, float `[examples, D]`, with its targets.
      rows_TB: the examples of each step.
      rate: α.
      factors: η by the leaves of the head, or `()` for ones.
      differentiation: see `jaxmeta.inner.unroll`.
    """
    # Either form costs the product of its dimension, the classes and the steps.
    if len(rows_TB) >= features.inputs.shape[1] or differentiation.last is not None:
        return _of_weights(objective, head, features, rows_TB, rate, factors, differentiation)
    return _of_examples(objective, head, features, rows_TB, rate, factors, differentiation)


def _of_weights(
    objective: Objective,
    head: PyTree,
    features: Batch,
    rows_TB: Array,
    rate: Array,
    factors: PyTree,
    differentiation: Differentiation,
) -> PyTree:
    optimizer = optax.sgd(rate)
    if jax.tree.leaves(factors):
        scale = optax.stateless(lambda steps, _: jax.tree.map(jnp.multiply, steps, factors))
        optimizer = optax.chain(optimizer, scale)
    inner = unroll(head_loss(objective), optimizer, len(rows_TB), differentiation=differentiation)
    return inner(jax.random.key(0), head, features, batches=rows_TB).params


def _of_examples(
    objective: Objective,
    head: PyTree,
    features: Batch,
    rows_TB: Array,
    rate: Array,
    factors: PyTree,
    differentiation: Differentiation,
) -> PyTree:
    """The same by the coefficients of the examples, E `[examples, classes]`: a step is a row of E.

    W_t = W_0 − α η F Eᵀ with the features F, so that the outputs of an example are those of W_0
    minus α (Fᵀ η F) E: no step touches the weights.
    """
    inputs_ED, targets, mask = features
    one = jnp.ones((1, 1), inputs_ED.dtype)
    factors = factors or {"kernel": one, "bias": one[0]}
    products_EE = (inputs_ED * factors["kernel"].T) @ inputs_ED.T + factors["bias"][None]
    before_EW = head_logits(head, inputs_ED)

    def step(sums_EW: Array, rows_B: Array) -> tuple[Array, None]:
        outputs_BW = before_EW[rows_B] - rate * products_EE[rows_B] @ sums_EW
        judged = None if mask is None else mask[rows_B]
        slope_of = jax.grad(lambda outputs: objective(outputs, targets[rows_B], judged)[0])
        return sums_EW.at[rows_B].add(slope_of(outputs_BW)), None

    body = jax.checkpoint(step) if differentiation.rematerialise else step
    start = varying_with(jnp.zeros_like(before_EW), before_EW)
    sums_EW, _ = jax.lax.scan(body, start, rows_TB)
    gradients = {"kernel": inputs_ED.T @ sums_EW, "bias": sums_EW.sum(axis=0)}
    if differentiation.constant_gradients:
        gradients = jax.lax.stop_gradient(gradients)
    return jax.tree.map(lambda w, eta, g: w - rate * eta * g, head, factors, gradients)

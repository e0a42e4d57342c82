"""Objectives, which map outputs and targets to a scalar loss and named metrics."""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Array = jax.Array
PyTree = Any


def valid_mask(mask: Array | None, rows: int) -> Array:
    """The mask of valid examples, bool `[rows]`; all True without a mask.

    >>> valid_mask(None, 2).tolist()
    [True, True]
    """
    if mask is None:
        return jnp.ones((rows,), bool)
    chex.assert_shape(mask, (rows,))
    return mask


def fill_padding(tree: PyTree, mask: Array | None) -> PyTree:
    """Replace padded rows by copies of the first valid row. Leaves are `[examples, ...]`.

        x_i ← x_j where not m_i,  j the first with m_j;  0 if there is no valid row

    This must be done before the rows are used in a computation. Masking the result is not enough:
    the gradient at a NaN or infinite input is 0 · NaN. Rows are copied, not set to 0, because a
    network may have no derivative at 0.

    >>> fill_padding(jnp.array([jnp.nan, 2.0, 3.0]), jnp.array([False, True, True])).tolist()
    [2.0, 2.0, 3.0]
    """
    if mask is None:
        return tree

    def fill(leaf: Array) -> Array:
        chex.assert_shape(mask, leaf.shape[:1])
        kept = jnp.reshape(mask, (-1, *(1,) * (leaf.ndim - 1)))
        first = jnp.take(leaf, jnp.argmax(mask), axis=0)
        return jnp.where(kept, leaf, jnp.where(jnp.any(mask), first, jnp.zeros_like(first))[None])

    return jax.tree.map(fill, tree)


def represented(
    name: str,
    targets: Array,
    allowed: Callable[[Any], Any],
    expected: str,
    mask: Array | None = None,
) -> Array:
    """Which targets are allowed, bool of the shape of `targets`; True for padding. See `or_nan`.

    Args:
      name: name of the caller, for the error message.
      targets: `[examples, ...]`.
      allowed: `allowed(targets) -> bool` for NumPy and JAX arrays.
      expected: description of an allowed target, for the error message.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: a target is not allowed, if the targets are concrete (not traced).

    >>> represented("bits", jnp.array([0, 1]), lambda t: (t == 0) | (t == 1), "0 or 1").tolist()
    [True, True]
    """
    known = [targets] if mask is None else [targets, mask]
    if all(_is_known(array) for array in known):
        found = np.asarray(targets)
        found = found if mask is None else found[np.asarray(mask, bool)]
        wrong = found[~np.asarray(allowed(found), bool)]
        if wrong.size:
            raise ValueError(
                f"{name}: the target {wrong.flat[0].item()} is not {expected}. Correct the "
                "targets, or mask these examples out."
            )
    return allowed(fill_padding(targets, mask))


def judged(
    objective: Any, outputs: Any, targets: Any, mask: Array | None = None
) -> tuple[Array, Any]:
    """The loss and the metrics of an objective.

    Raises:
      TypeError: it returns something else than these two.

    >>> judged(lambda outputs, targets, mask: 0.5, 0, 0)
    Traceback (most recent call last):
    ...
    TypeError: the objective returns a float; return (loss, metrics), such as (loss, {}).
    """
    found = objective(outputs, targets, mask)
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"the objective returns a {type(found).__name__}; return (loss, metrics), such as "
            "(loss, {})."
        )
    return found


def or_nan(values: Array, valid: Array) -> Array:
    """The values, with NaN where they are not valid, in the value and in the gradient.

    >>> or_nan(jnp.array([1.0, 2.0]), jnp.array([True, False])).tolist()
    [1.0, nan]
    """
    # The product makes the gradient NaN, and `where` the value: XLA simplifies 0 · NaN to 0 if the
    # 0 is the result of a comparison.
    return jnp.where(valid, values * jnp.where(valid, 1, jnp.nan).astype(values.dtype), jnp.nan)


def _is_known(array: Any) -> bool:
    traced = isinstance(array, Tracer)
    return not traced and getattr(array, "is_fully_addressable", True)


def class_indices(name: str, targets: Array, ways: int, mask: Array | None = None) -> Array:
    """Which targets are in `[0, ways)`, bool `[examples, ...]`; True for padding. See `or_nan`.

    Raises:
      ValueError: the targets are not integers, or a concrete (not traced) one is out of range.

    >>> class_indices("cross_entropy", jnp.array([0, 4]), ways=5).tolist()
    [True, True]
    """
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(f"{name}: targets are {targets.dtype}; give integer class indices.")

    def allowed(classes: Any) -> Any:
        wide = classes.astype(jnp.promote_types(classes.dtype, jnp.int32))
        return (wide >= 0) & (wide < ways)

    expected = f"a class index from 0 to {ways - 1}"
    if _has_unlabelled(targets):
        expected += " (-1 marks an example without a label, which only the support may have)"
    return represented(name, targets, allowed, expected, mask)


def _has_unlabelled(targets: Array) -> bool:
    return _is_known(targets) and bool((np.asarray(targets) == -1).any())


def instance_numbers(targets: Array, valid: Array) -> Array:
    """Which instance of its class each step of a stream is, int32 `[T]`: 1 for the first.

    Args:
      targets: `[T]`, or `[T, ...]` if a label has several parts.
      valid: bool `[T]`, the steps that count as instances.

    >>> instance_numbers(jnp.array([1, 0, 1]), jnp.array([True, True, True])).tolist()
    [1, 1, 2]
    """
    parts = targets.reshape(len(targets), -1)
    same = (parts[:, None] == parts[None]).all(axis=2)
    return jnp.tril(same & valid[None]).sum(axis=1)


def check_metrics(metrics: Mapping[str, Any], *reserved: str) -> None:
    """Raise `ValueError` if a metric has a name that a result uses for something else.

    These are `loss`, the names in `reserved`, names with a slash, and names that end in `_ci95`,
    the suffix of confidence intervals.

    >>> check_metrics({"loss": 0.0})
    Traceback (most recent call last):
    ...
    ValueError: a metric is named 'loss', which means something else in a result; rename it.
    """
    for name in metrics:
        if name in ("loss", *reserved) or "/" in name or name.endswith("_ci95"):
            raise ValueError(
                f"a metric is named {name!r}, which means something else in a result; rename it."
            )


def masked_mean(values: Array, mask: Array | None = None) -> Array:
    """Mean over the valid examples, `[examples, ...]` to a scalar.

        mean = Σ_i m_i v̄_i / Σ_i m_i,  v̄_i the mean of row i

    An empty mask gives 0, not NaN.

    >>> float(masked_mean(jnp.array([1.0, 3.0, 100.0]), jnp.array([True, True, False])))
    2.0
    """
    rows = values.reshape(values.shape[0], -1).mean(axis=1)
    if mask is None:
        return rows.mean()
    chex.assert_equal_shape([rows, mask])
    count = jnp.maximum(mask.sum(), 1).astype(rows.dtype)
    return jnp.where(mask, rows, 0).sum() / count


def cross_entropy(
    outputs: Array, targets: Array, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """Softmax cross-entropy of class indices, in nats, with the accuracy as a metric.

        loss = mean_i −log softmax(outputs_i)[targets_i]

    Args:
      outputs: logits `[examples, ways]`.
      targets: int `[examples]`, each in `[0, ways)`.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: the targets are not integers `[examples]`; one is out of range. If targets are
        traced, loss and accuracy are NaN for one out of range.

    >>> loss, metrics = cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    >>> round(float(loss), 4), float(metrics["accuracy"])
    (0.6931, 0.0)
    """
    chex.assert_rank(outputs, 2)
    if targets.shape != outputs.shape[:1] or not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(
            f"cross_entropy requires integer targets of shape {outputs.shape[:1]}, one class index "
            f"per row of the logits {outputs.shape}; got {targets.dtype} of shape {targets.shape}."
        )
    is_class = class_indices("cross_entropy", targets, outputs.shape[1], mask)
    outputs, targets = fill_padding((outputs, targets), mask)
    log_probabilities = jax.nn.log_softmax(outputs)
    known = jnp.where(is_class, targets, 0)  # an index out of range would have no gradient
    losses = -jnp.take_along_axis(log_probabilities, known[:, None], axis=1)[:, 0]
    correct = (outputs.argmax(axis=1) == targets).astype(losses.dtype)
    accuracy = masked_mean(or_nan(correct, is_class), mask)
    return masked_mean(or_nan(losses, is_class), mask), {"accuracy": accuracy}


def binary_cross_entropy(
    outputs: Array, targets: Array, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """Cross-entropy of independent bits, in nats per bit, with the cost in bits as a metric.

        loss = mean_ij −log σ(±outputs_ij),  + where targets_ij = 1, − where it is 0
        metrics: `bit_error`, the fraction of wrong bits; `bits`, the total cost
        Σ_ij −log₂ σ(±outputs_ij); `wrong_bits`, the number of wrong bits

    Args:
      outputs: logits `[examples, bits]`; the examples may be the steps of a sequence.
      targets: `[examples, bits]`, 0 or 1.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: the shapes differ; a target is neither 0 nor 1. If targets are traced, loss and
        metrics are NaN for such a target.

    >>> loss, metrics = binary_cross_entropy(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    >>> round(float(loss), 4), float(metrics["bits"]), float(metrics["wrong_bits"])
    (0.6931, 6.0, 6.0)
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            "binary_cross_entropy requires outputs and targets of the same shape; "
            f"got {outputs.shape} and {targets.shape}."
        )
    chex.assert_rank(outputs, 2)
    is_bit = lambda bits: (bits == 0) | (bits == 1)  # noqa: E731
    are_bits = represented("binary_cross_entropy", targets, is_bit, "0 or 1", mask)
    outputs, targets = fill_padding((outputs, targets), mask)
    losses = -jax.nn.log_sigmoid(jnp.where(targets > 0.5, outputs, -outputs))
    losses = or_nan(losses, are_bits)
    wrong = or_nan(((outputs > 0) != (targets > 0.5)).astype(losses.dtype), are_bits)
    judged = valid_mask(mask, len(targets))
    total = lambda values: jnp.where(judged[:, None], values, 0).sum()  # noqa: E731
    return masked_mean(losses, mask), {
        "bit_error": masked_mean(wrong, mask),
        "bits": total(losses) / jnp.log(2.0).astype(losses.dtype),
        "wrong_bits": total(wrong),
    }


def squared_error(
    outputs: Array, targets: Array, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """Mean squared error, in the square of the targets' unit; no metrics.

        loss = mean_i (outputs_i − targets_i)²

    Args:
      outputs, targets: `[examples, ...]` of the same shape.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: the shapes differ (they are never broadcast).

    >>> loss, metrics = squared_error(jnp.array([[1.0], [3.0]]), jnp.array([[1.0], [1.0]]))
    >>> float(loss), metrics
    (2.0, {})
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"squared_error requires outputs and targets of the same shape; got {outputs.shape} "
            f"and {targets.shape}."
        )
    outputs, targets = fill_padding((outputs, targets), mask)
    return masked_mean(jnp.square(outputs - targets), mask), {}

"""Objectives: from outputs and targets to a scalar loss and named metrics."""

import chex
import jax
import jax.numpy as jnp

Array = jax.Array


def valid_mask(mask: Array | None, rows: int) -> Array:
    """Which examples are valid, bool `[rows]`: all of them where there is no mask.

    >>> valid_mask(None, 2).tolist()
    [True, True]
    """
    if mask is None:
        return jnp.ones((rows,), bool)
    chex.assert_shape(mask, (rows,))
    return mask


def masked_mean(values: Array, mask: Array | None = None) -> Array:
    """Mean over the examples, `[examples, ...]` to a scalar, of the rows that `mask` keeps.

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
      ValueError: the targets are not integers `[examples]`.

    >>> loss, metrics = cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    >>> round(float(loss), 4), float(metrics["accuracy"])
    (0.6931, 0.0)
    """
    chex.assert_rank(outputs, 2)
    if targets.shape != outputs.shape[:1] or not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(
            f"cross_entropy wants integer targets of shape {outputs.shape[:1]}, one class index "
            f"per row of the logits {outputs.shape}; got {targets.dtype} of shape {targets.shape}."
        )
    log_probabilities = jax.nn.log_softmax(outputs)
    losses = -jnp.take_along_axis(log_probabilities, targets[:, None], axis=1)[:, 0]
    correct = (outputs.argmax(axis=1) == targets).astype(losses.dtype)
    return masked_mean(losses, mask), {"accuracy": masked_mean(correct, mask)}


def binary_cross_entropy(
    outputs: Array, targets: Array, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """Cross-entropy of independent bits, in nats a bit, with the bits that a sequence costs.

        loss = mean_ij −log σ(±outputs_ij),  + where targets_ij = 1, − where it is 0
        metrics: `bit_error`, the part of the bits guessed wrong; `bits`, the cost of all that is
        judged, Σ_ij −log₂ σ(±outputs_ij); `wrong_bits`, how many of them are guessed wrong

    Args:
      outputs: logits `[examples, bits]`; the examples may be the steps of a sequence.
      targets: `[examples, bits]`, 0 or 1.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: the shapes differ.

    >>> loss, metrics = binary_cross_entropy(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    >>> round(float(loss), 4), float(metrics["bits"]), float(metrics["wrong_bits"])
    (0.6931, 6.0, 6.0)
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"binary_cross_entropy wants outputs and targets of one shape; got {outputs.shape} and "
            f"{targets.shape}."
        )
    chex.assert_rank(outputs, 2)
    losses = -jax.nn.log_sigmoid(jnp.where(targets > 0.5, outputs, -outputs))
    wrong = ((outputs > 0) != (targets > 0.5)).astype(losses.dtype)
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
    """Mean squared error, in the targets' unit squared; no further metrics.

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
            f"squared_error wants outputs and targets of one shape; got {outputs.shape} and "
            f"{targets.shape}."
        )
    return masked_mean(jnp.square(outputs - targets), mask), {}

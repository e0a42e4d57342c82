"""Predictions with uncertainty: a normal distribution for each target."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, fill_padding, masked_mean


class Gaussian(NamedTuple):
    """A normal distribution for each target, independent of the others.

    Attributes:
      mean: float `[examples, Y]`, in the targets' unit.
      std: float `[examples, Y]`, positive, in the same unit.
    """

    mean: Array
    std: Array


class Mixture(NamedTuple):
    """A mixture of R normal distributions for each target; the components of a target share one r.

        p(y_i) = Σ_r w_ir Π_Y N(y_iY; mean_irY, std_irY²)

    Attributes:
      log_weights: float `[examples, R]`, log w; −∞ for a component without weight.
      mean: float `[examples, R, Y]`, in the targets' unit.
      std: float `[examples, R, Y]`, positive, in the same unit.
    """

    log_weights: Array
    mean: Array
    std: Array

    def moments(self) -> Gaussian:
        """The mean and the standard deviation of each target, as a `Gaussian`."""
        weights = jnp.exp(self.log_weights)[..., None]
        mean = (weights * self.mean).sum(axis=-2)
        away = jnp.square(self.mean - mean[..., None, :])
        return Gaussian(mean, jnp.sqrt((weights * (jnp.square(self.std) + away)).sum(axis=-2)))


def mean_of(outputs: Gaussian | Mixture | Array) -> Array:
    """The predictions as numbers: the means of a distribution; arrays are returned unchanged.

    >>> mean_of(Gaussian(jnp.ones((1, 1)), jnp.zeros((1, 1)))).tolist()
    [[1.0]]
    """
    if isinstance(outputs, Mixture):
        return outputs.moments().mean
    return outputs.mean if isinstance(outputs, Gaussian) else outputs


LEAST_STD = 0.1  # lower bound of predicted standard deviations


def gaussian_of(outputs: Array, least: float = LEAST_STD) -> Gaussian:
    """The `Gaussian` of a network with `2 Y` outputs.

        mean = the first half,  std = least + (1 − least) softplus(the second half)

    Source: Garnelo et al. 2018, "Conditional neural processes", in the authors' code.

    >>> found = gaussian_of(jnp.array([[1.0, -100.0]]))
    >>> found.mean.tolist(), found.std.round(3).tolist()
    ([[1.0]], [[0.10000000149011612]])
    """
    chex.assert_rank(outputs, 2)
    mean, spread = jnp.split(outputs, 2, axis=-1)
    return Gaussian(mean, least + (1 - least) * jax.nn.softplus(spread))


def log_density(outputs: Gaussian, targets: Array) -> Array:
    """Log-density of each target, in nats, `[examples]`: the sum over its components.

        −½ ((y − μ) / σ)² − log σ − ½ log 2π

    >>> log_density(Gaussian(jnp.zeros((1, 1)), jnp.ones((1, 1))), jnp.ones((1, 1))).round(4)
    Array([-1.4189], dtype=float32)
    """
    chex.assert_equal_shape([outputs.mean, outputs.std, targets])
    return _log_normal(targets, outputs.mean, outputs.std)


def _log_normal(targets: Array, mean: Array, std: Array) -> Array:
    """Σ_Y log N(y; μ, σ²)."""
    scaled = (targets - mean) / std
    normalisers = jnp.log(std) + jnp.log(2 * jnp.pi) / 2
    return -(jnp.square(scaled) / 2 + normalisers).sum(axis=-1)


def gaussian_likelihood(
    outputs: Gaussian, targets: Array, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """The mean negative log-likelihood of the targets, in nats per target.

        loss = −mean_i log N(y_i; μ_i, σ_i²)
        metrics: `log_likelihood` = −loss, and `squared_error` of the means

    Args:
      outputs: see `Gaussian`.
      targets: float `[examples, Y]`.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: the shapes differ.

    >>> outputs = Gaussian(jnp.zeros((2, 1)), jnp.ones((2, 1)))
    >>> loss, metrics = gaussian_likelihood(outputs, jnp.ones((2, 1)))
    >>> round(float(loss), 4), float(metrics["squared_error"])
    (1.4189, 1.0)
    """
    if outputs.mean.shape != targets.shape:
        raise ValueError(
            "gaussian_likelihood requires a mean and a std for each target; got "
            f"{outputs.mean.shape} and targets of shape {targets.shape}."
        )
    outputs, targets = fill_padding((outputs, targets), mask)
    loss = -masked_mean(log_density(outputs, targets), mask)
    squares = masked_mean(jnp.square(targets - outputs.mean), mask)
    return loss, {"log_likelihood": -loss, "squared_error": squares}


def component_densities(outputs: Mixture, targets: Array) -> Array:
    """Log-density of each target under each component, in nats, `[examples, R]`.

    >>> outputs = Mixture(jnp.zeros((1, 1)), jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)))
    >>> component_densities(outputs, jnp.ones((1, 1))).round(4)
    Array([[-1.4189]], dtype=float32)
    """
    chex.assert_equal_shape([outputs.mean, outputs.std])
    return _log_normal(targets[..., None, :], outputs.mean, outputs.std)


def mixture_likelihood(
    outputs: Mixture, targets: Array, mask: Array | None = None
) -> tuple[Array, dict[str, Array]]:
    """The mean negative log-likelihood of the targets under a mixture, in nats per target.

        loss = −mean_i log Σ_r w_ir Π_Y N(y_iY; mean_irY, std_irY²)
        metrics: `log_likelihood` = −loss, and `squared_error` of the mixture's means

    Args:
      outputs: see `Mixture`.
      targets: float `[examples, Y]`.
      mask: None or bool `[examples]`.

    Raises:
      ValueError: the shapes differ.

    >>> outputs = Mixture(jnp.log(jnp.full((1, 2), 0.5)), jnp.zeros((1, 2, 1)), jnp.ones((1, 2, 1)))
    >>> loss, metrics = mixture_likelihood(outputs, jnp.ones((1, 1)))
    >>> round(float(loss), 4), float(metrics["squared_error"])
    (1.4189, 1.0)
    """
    if outputs.mean.ndim != 3 or outputs.mean[:, 0].shape != targets.shape:
        raise ValueError(
            "mixture_likelihood requires means [examples, R, Y] for targets [examples, Y]; got "
            f"{outputs.mean.shape} and targets of shape {targets.shape}."
        )
    outputs, targets = fill_padding((outputs, targets), mask)
    densities = outputs.log_weights + component_densities(outputs, targets)
    loss = -masked_mean(jax.nn.logsumexp(densities, axis=1), mask)
    squares = masked_mean(jnp.square(targets - mean_of(outputs)), mask)
    return loss, {"log_likelihood": -loss, "squared_error": squares}

"""Optax transformations and their parts for inner loops."""

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, PyTree


def adam(
    rate: float, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 1e-8
) -> optax.GradientTransformation:
    """`optax.adam` with a smaller slope where an inner gradient is exactly zero.

        θ ← θ − rate · m̂ / (√(v̂ + eps_root) + eps)

    With optax's default `eps_root=0` the derivative of √v̂ at v̂ = 0 (a dead ReLU, a masked
    example) is infinite. `unroll` takes it as zero, so that the slope of the step is −rate / eps;
    here it is about −rate / √eps_root.

    >>> import jax, jax.numpy as jnp
    >>> def step(gradient):
    ...     updates, _ = adam(0.1).update(gradient, adam(0.1).init(gradient))
    ...     return updates
    >>> round(float(jax.grad(step)(jnp.zeros(()))))  # −rate / √eps_root
    -1000
    """
    return optax.adam(rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root)


def check_params(name: str, params: PyTree) -> None:
    """Raise `ValueError` if a transformation that requires the parameters does not get them.

    >>> check_params("lstm_optimizer", None)
    Traceback (most recent call last):
    ...
    ValueError: lstm_optimizer: update requires the parameters; call update(grads, state, params).
    """
    if params is None:
        raise ValueError(
            f"{name}: update requires the parameters; call update(grads, state, params)."
        )


def scaled(rates: PyTree) -> optax.GradientTransformation:
    """Gradient descent with a separate, possibly learned rate for every parameter.

        θ ← θ − η ∘ ∇

    Args:
      rates: η, a tree like the parameters; each leaf broadcasts to its parameter.

    >>> updates, _ = scaled({"w": jnp.array([0.5, 2.0])}).update({"w": jnp.ones(2)}, ())
    >>> updates["w"].tolist()
    [-0.5, -2.0]
    """
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda rate, g: -rate * g, rates, updates)
    )


def log_and_sign(values: Array, p: float = 10.0) -> Array:
    """Size and sign of numbers of very different magnitudes: float `[..., 2]`, about in [−1, 1].

        (log|x| / p, sign x)  where |x| ≥ e⁻ᵖ,  (−1, eᵖ x)  elsewhere

    Source: Andrychowicz et al. 2016, "Learning to learn by gradient descent by gradient descent",
    appendix A.

    >>> log_and_sign(jnp.array([-1.0, 0.0])).tolist()
    [[0.0, -1.0], [-1.0, 0.0]]
    """
    smallest = jnp.exp(jnp.asarray(-p, values.dtype))
    large = jnp.abs(values) >= smallest
    # The logarithm must also be finite where it is not used, or the derivative would be NaN.
    sizes = jnp.where(large, jnp.log(jnp.where(large, jnp.abs(values), 1)) / p, -1)
    return jnp.stack([sizes, jnp.where(large, jnp.sign(values), values / smallest)], axis=-1)

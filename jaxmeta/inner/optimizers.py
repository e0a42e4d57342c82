"""Inner optimizers whose meta-gradient is finite."""

import optax


def adam(
    rate: float, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 1e-8
) -> optax.GradientTransformation:
    """`optax.adam` that can be differentiated through where an inner gradient is exactly zero.

        θ ← θ − rate · m̂ / (√(v̂ + eps_root) + eps)

    With optax's default `eps_root=0` the derivative of √v̂ at v̂ = 0 (a dead ReLU, a masked
    example) is infinite and the meta-gradient NaN.

    >>> import jax, jax.numpy as jnp
    >>> def step(gradient):
    ...     updates, _ = adam(0.1).update(gradient, adam(0.1).init(gradient))
    ...     return updates
    >>> round(float(jax.grad(step)(jnp.zeros(()))))  # −rate / √eps_root
    -1000
    """
    return optax.adam(rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root)

"""Learned optimizers that come with the package."""

import difflib
import importlib.resources

import optax

from jaxmeta.learners.optimizers.learner import LearnedOptimizer
from jaxmeta.learners.optimizers.mlp import mlp_optimizer
from jaxmeta.models import unpack

RULES: dict[str, LearnedOptimizer] = {"mlp-digits": mlp_optimizer()}


def pretrained(name: str = "mlp-digits") -> optax.GradientTransformation:
    """A learned optimizer, ready for an optax chain: it has no learning rate to set.

    Args:
      name: `mlp-digits`, the perceptron of `mlp_optimizer`, trained on small perceptrons
        that classify digits, over runs of 100 steps, by

            python -m experiments.optimizers mlp --family digits --steps 4000 \\
                --checkpoint-every 250 --chunk 25 --validation-tasks 200

        After 100 steps it beats a tuned Adam on networks it has not seen, on wider ones and on ones
        with another activation; it loses on runs of 500 steps, and badly on images of 28×28 pixels
        (`experiments/results/optimizer-mlp-digits`).

    Raises:
      ValueError: an unknown name.

    >>> import jax.numpy as jnp
    >>> optimizer = optax.chain(optax.clip_by_global_norm(1.0), pretrained("mlp-digits"))
    >>> params = {"w": jnp.ones((3, 2))}
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> updates["w"].shape
    (3, 2)
    """
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1) or list(RULES)
        raise ValueError(f"no learned optimizer {name!r} comes with jaxmeta; there is {near[0]}.")
    file = importlib.resources.files("jaxmeta.learners.optimizers") / f"{name}.npz"
    return RULES[name].transformation(unpack(file.read_bytes()))

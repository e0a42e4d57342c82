"""Pre-trained learned optimizers, included in the package."""

import difflib
import importlib.resources

import optax

from jaxmeta.learners.optimizers.learner import LearnedOptimizer
from jaxmeta.learners.optimizers.mlp import mlp_optimizer
from jaxmeta.models import unpack

RULES: dict[str, LearnedOptimizer] = {"mlp-digits": mlp_optimizer()}


def pretrained(name: str = "mlp-digits") -> optax.GradientTransformation:
    """A pre-trained optimizer as an optax transformation; it has no learning rate.

    Args:
      name: `mlp-digits`, an `mlp_optimizer` trained on small MLPs that classify digits, in runs of
        100 steps, by

            python -m experiments.optimizers mlp-optimizer --family digits --steps 4000 \\
                --checkpoint-every 250 --chunk 25 --validation-tasks 200

        After 100 steps its loss is lower than that of a tuned Adam on unseen networks, on wider
        ones and on ones with another activation. It is higher in runs of 500 steps, and much higher
        on images of 28×28 pixels (`experiments/results/optimizer-mlp-digits`).

    Raises:
      ValueError: the name is unknown.

    >>> import jax.numpy as jnp
    >>> optimizer = optax.chain(optax.clip_by_global_norm(1.0), pretrained("mlp-digits"))
    >>> params = {"w": jnp.ones((3, 2))}
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> updates["w"].shape
    (3, 2)
    """
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1) or list(RULES)
        raise ValueError(f"unknown learned optimizer {name!r}; give {near[0]}.")
    file = importlib.resources.files("jaxmeta.learners.optimizers") / f"{name}.npz"
    return RULES[name].transformation(unpack(file.read_bytes()))

"""Trained learned optimizers: included in the package, or published by others."""

import difflib
import hashlib
import importlib.resources
from pathlib import Path
from typing import Any

import optax
from flax.serialization import msgpack_restore

from jaxmeta.core import PyTree
from jaxmeta.files import shown
from jaxmeta.learners.optimizers.celo import celo_optimizer, from_published
from jaxmeta.learners.optimizers.learner import LearnedOptimizer
from jaxmeta.learners.optimizers.mlp import mlp_optimizer
from jaxmeta.models import unpack
from jaxmeta.places import data_folder

RULES: dict[str, LearnedOptimizer] = {"mlp-digits": mlp_optimizer()}

CELO_FILE = "celo_theta.msgpack"
CELO_SHA256 = "35683c6123069c101d62ec1f8b2e6d70d50a43e67ebe09953b27620a7dcb836b"
CELO_SOURCE = (
    "https://github.com/amoudgl/celo/raw/66d976116f39da286951f0c5e0a18eee8d1fd66b/"
    "algoperf/submissions/celo/theta.state"
)


def pretrained(
    name: str = "mlp-digits", *, steps: int | None = None
) -> optax.GradientTransformation:
    """A pre-trained optimizer as an optax transformation; it has no learning rate.

    Args:
      name: `mlp-digits`, an `mlp_optimizer` trained on small MLPs that classify digits, in runs of
        100 steps, by

            python -m experiments.optimizers mlp-optimizer --family digits --steps 4000 \\
                --checkpoint-every 250 --chunk 25 --validation-tasks 200

        After 100 steps its loss is lower than that of a tuned Adam on unseen networks, on wider
        ones and on ones with another activation. It is higher in runs of 500 steps, and much higher
        on images of 28×28 pixels (`experiments/results/optimizer-mlp-digits`).

        `celo`, the `celo_optimizer` with the weights that its authors trained (MIT), which are read
        from a file, see `celo_weights`. Its `update` requires the loss:
        `update(grads, state, params, value=loss)`.
      steps: the length of the run, which `celo` requires.

    Raises:
      ValueError: the name is unknown; `celo` without `steps`, or another one with them.
      FileNotFoundError: the weights of `celo` are missing; with their source.

    >>> import jax.numpy as jnp
    >>> optimizer = optax.chain(optax.clip_by_global_norm(1.0), pretrained("mlp-digits"))
    >>> params = {"w": jnp.ones((3, 2))}
    >>> updates, state = optimizer.update(params, optimizer.init(params), params)
    >>> updates["w"].shape
    (3, 2)
    """
    known = [*RULES, "celo"]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1) or known
        raise ValueError(f"unknown learned optimizer {name!r}; give {near[0]}.")
    if (steps is None) == (name == "celo"):
        remedy = "give the length of the run, steps=1000" if steps is None else "leave steps out"
        raise ValueError(f"pretrained({name!r}): steps {steps}; {remedy}.")
    if steps is not None:
        return celo_optimizer(steps).transformation(celo_weights())
    file = importlib.resources.files("jaxmeta.learners.optimizers") / f"{name}.npz"
    return RULES[name].transformation(unpack(file.read_bytes()))


def celo_weights(folder: str | Path | None = None) -> PyTree:
    """The parameters of `celo_optimizer` that its authors published: 37,089 numbers, MIT licence.

    Args:
      folder: has `celo_theta.msgpack`. Defaults to `celo` in `JAXMETA_DATA_DIR`, or in the cache
        folder without that variable.

    Raises:
      FileNotFoundError: the file is missing; with the address from which to get it.
      ValueError: the file has another SHA-256.

    Source: https://github.com/amoudgl/celo, `algoperf/submissions/celo/theta.state`.
    """
    path = data_folder("celo", folder) / CELO_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{shown(path)} is not a file; it holds the weights of Celo (149 kB, MIT): save "
            f"{CELO_SOURCE} under this name, or set JAXMETA_DATA_DIR to the folder above celo."
        )
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != CELO_SHA256:
        raise ValueError(
            f"{shown(path)} has the SHA-256 {found}, not {CELO_SHA256}; get it from {CELO_SOURCE}."
        )
    theta: Any = msgpack_restore(data)
    return from_published(theta)

"""Makes `celo_reference.npz`: steps of Celo as its authors' code makes them.

The sources of https://github.com/amoudgl/celo at 66d9761 and of
https://github.com/google/learned_optimization have to be on `PYTHONPATH`, beside dm-haiku and
gin-config; `JAXMETA_DATA_DIR` has the weights in `celo/celo_theta.msgpack`:

    python tests/learners/celo_reference.py

Neither is a dependency; the tests read the file.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = {"kernel": (5, 3), "bias": (3,), "scalar": (), "filters": (2, 3, 4, 4), "square": (3, 3)}
STEPS, RUN = 6, 8  # steps of a run of 8


def gradients() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    sizes = dict(zip(SHAPES, (1.0, 0.01, 3.0, 0.1, 2000.0)))  # the last ones are clipped
    return [
        {name: np.float32(sizes[name] * rng.normal(size=own)) for name, own in SHAPES.items()}
        for _ in range(STEPS)
    ]


def losses() -> np.ndarray:
    return np.float32([2.3, 2.0, 9.0, 1.7, 1.9, 1.2])


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: np.float32(rng.normal(size=own)) for name, own in SHAPES.items()}


def main() -> None:
    import haiku
    from celo.optimizers.celo import Celo
    from flax.serialization import msgpack_restore

    weights = Path(os.environ["JAXMETA_DATA_DIR"]) / "celo" / "celo_theta.msgpack"
    theta = jax.tree.map(jnp.asarray, msgpack_restore(weights.read_bytes()))
    theta["lstm_init_state"] = haiku.LSTMState(**theta["lstm_init_state"])
    rule = Celo(lstm_hidden_size=64, param_inits=1, train_phase=2).opt_fn(theta)
    state = rule.init(jax.tree.map(jnp.asarray, start()), num_steps=RUN)
    found: dict[str, list[np.ndarray]] = {name: [] for name in SHAPES}
    for grads, loss in zip(gradients(), losses()):
        state = rule.update(state, jax.tree.map(jnp.asarray, grads), loss=loss)
        for name, own in state.params.items():
            found[name].append(np.asarray(own))
    arrays = {name: np.stack(own) for name, own in found.items()}
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)


if __name__ == "__main__":
    main()

"""What someone who uses jaxmeta writes: the types must say all that a strict checker asks.

From the data to predictions, by public names alone; `test_reference.py` checks and runs it.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import optax

from jaxmeta import Info, MetaLearner, cross_entropy
from jaxmeta.data import Dataset, episodes, load
from jaxmeta.inner import first_order
from jaxmeta.learners import maml
from jaxmeta.models import mlp
from jaxmeta.training import TrainState, evaluation, meta_update


def trained(learner: MetaLearner, letters: Dataset, steps: int) -> tuple[Any, float]:
    """The meta-parameters after so many meta-updates, and the last loss."""
    sample = episodes(letters.train, ways=3, shots=1, queries=2)
    init, update = meta_update(learner, optax.adam(1e-3), task_batch=2)
    # The types of `jax.jit` leave open what a function gives.
    compiled = cast(
        Callable[..., tuple[TrainState, Info]],
        jax.jit(update),  # pyright: ignore[reportUnknownMemberType]
    )
    state, loss = init(jax.random.key(0), sample), float("nan")
    for _ in range(steps):
        state, info = compiled(state, sample)
        loss = float(info.loss)
    return state.meta_params, loss


def main() -> None:
    letters = load("glyphs")
    learner = maml(
        mlp((8,), 3), cross_entropy, optax.sgd(0.1), inner_steps=1, differentiation=first_order
    )
    meta_params, loss = trained(learner, letters, steps=2)

    sample = episodes(letters.test, ways=3, shots=1, queries=2)
    task = sample(jax.random.key(1))
    adapted = learner.adapt(jax.random.key(2), meta_params, task.support)
    logits = learner.predict(adapted, task.query.inputs)

    estimates = evaluation(learner, 2, tasks_at_once=2)(meta_params, sample, jax.random.key(3))
    accuracy, half_width = estimates["accuracy"]
    print(f"loss {loss:.2f}, logits {logits.shape}, accuracy {accuracy:.2f} ± {half_width:.2f}")


if __name__ == "__main__":
    main()

"""Meta-updates beside the training of a run, without checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmeta.core import Key
from jaxmeta.recipes.base import Training
from jaxmeta.recipes.progress import Progress
from jaxmeta.training.feed import Source, first_task, open_feed
from jaxmeta.training.leaves import all_numbers
from jaxmeta.training.parallel import replicate
from jaxmeta.training.update import MetaUpdate, Trained, chunk_of


def run_updates(
    update: MetaUpdate,
    source: Source,
    key: Key,
    training: Training,
    *,
    mesh: Mesh | None,
    progress: Progress,
    name: str,
    start: Trained | None = None,
) -> Trained:
    """The result of `training.steps` meta-updates on tasks of the source.

    Args:
      update: the meta-update.
      source: the tasks, with constants if the update has some.
      key: of the initialisation and the tasks.
      training: its steps, task batch and chunk; the rate is named in an error.
      mesh: the devices that share the tasks.
      progress: shows the progress, under this name.
      start: where to start. Defaults to the learner's initial parameters.

    Raises:
      ArithmeticError: a parameter became NaN or infinite.
    """
    state = jax.jit(update.init)(key, first_task(source))
    if start is not None:
        # Copied, since the state is donated.
        state = state._replace(
            meta_params=jax.tree.map(jnp.copy, start.meta_params),
            shared=jax.tree.map(jnp.copy, start.shared),
        )
    feed = open_feed(source, training.task_batch, mesh, {})
    state, sample = replicate((state, feed.sample), mesh)
    run_chunk = chunk_of(update.update)
    chunk = min(training.chunk, feed.longest or training.chunk)
    with progress.training(name, training.steps) as report:
        for step in range(0, training.steps, chunk):
            length = min(chunk, training.steps - step)
            state, infos = run_chunk(state, sample, feed.take(length), length=length)
            report(step + length, {"train_loss": float(np.mean(jax.device_get(infos.loss)))})
    if not all_numbers(np.isfinite, state.meta_params):
        raise ArithmeticError(
            f"{name}: a parameter became NaN or infinite in further training; give a smaller "
            f"--outer-rate than {training.outer_rate:g}."
        )
    return jax.tree.map(jnp.asarray, jax.device_get(state.trained))

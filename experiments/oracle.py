"""What can be known of curves from Gaussian processes: the posterior of the process itself."""

from typing import Any

import jax
import numpy as np

from jaxmeta.core import Array, Key
from jaxmeta.data.gaussian_processes import kernel_of, posterior
from jaxmeta.learners.process import Gaussian, gaussian_likelihood
from jaxmeta.training.evaluation import Estimate, estimate
from jaxmeta.training.update import draw_keys


def oracle(sample: Any, key: Key, num_tasks: int) -> dict[str, Estimate]:
    """The exact posterior on the very tasks that `evaluation` takes with this key.

    It knows the kernel of each task and its noise, which a learner has to infer.
    """

    def of_task(sample: Any, key: Key) -> dict[str, Array]:
        task_key, _ = draw_keys(key)
        task = sample(task_key)
        found = posterior(kernel_of(sample, task_key), task.support, task.query.inputs)
        return gaussian_likelihood(Gaussian(*found), task.query.targets)[1]

    # Evaluation's keys: the i-th is the same however many are split off.
    keys = jax.random.split(key, num_tasks)
    values = jax.jit(lambda sample, keys: jax.lax.map(lambda key: of_task(sample, key), keys))(
        sample, keys
    )
    return {name: estimate(np.asarray(leaf)) for name, leaf in values.items()}

"""What can be known of curves from Gaussian processes: the posterior of the process itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, MetaLearner, PyTree
from jaxmeta.data.synthetic.gaussian_processes import kernel_of, posterior
from jaxmeta.learners.process import Gaussian, gaussian_likelihood
from jaxmeta.learners.process.gaussian import LEAST_STD
from jaxmeta.training.estimates import Estimate, estimate
from jaxmeta.training.state import draw_keys


def oracle(
    learner: MetaLearner, meta_params: PyTree, sample: Any, key: Key, num_tasks: int
) -> dict[str, Estimate]:
    """The exact posterior on the very tasks that `evaluation` takes with this key.

    It knows the kernel of each task and its noise, which a learner has to infer. `lead` is its
    log-likelihood minus that of the learner, if this has one, and `floor` the part of it that no
    learner can make up, whose deviations are 0.1 at least: what the same floor costs the posterior.
    Intervals are of the differences.
    """

    def of_posterior(mean: Array, deviation: Array, targets: Array) -> dict[str, Array]:
        return gaussian_likelihood(Gaussian(mean, deviation), targets)[1]

    def of_task(meta_params: PyTree, sample: Any, key: Key) -> dict[str, Array]:
        task_key, learn_key = draw_keys(key)
        task = sample(task_key)
        mean, deviation = posterior(kernel_of(sample, task_key), task.support, task.query.inputs)
        metrics = of_posterior(mean, deviation, task.query.targets)
        floored = of_posterior(mean, jnp.maximum(deviation, LEAST_STD), task.query.targets)
        metrics["floor"] = metrics["log_likelihood"] - floored["log_likelihood"]
        learned = learner.loss(learn_key, meta_params, task)[1].metrics
        if "log_likelihood" in learned:
            metrics["lead"] = metrics["log_likelihood"] - learned["log_likelihood"]
        return metrics

    @jax.jit
    def of_tasks(meta_params: PyTree, sample: Any, keys: Key) -> dict[str, Array]:
        return jax.lax.map(lambda key: of_task(meta_params, sample, key), keys)

    # Evaluation's keys: the i-th is the same however many are split off.
    values = of_tasks(meta_params, sample, jax.random.split(key, num_tasks))
    return {name: estimate(np.asarray(leaf)) for name, leaf in values.items()}

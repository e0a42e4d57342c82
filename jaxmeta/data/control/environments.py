"""The sampler of an environment's tasks."""

from jaxmeta.core import Key, Task
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.environment import Environment


def environment_tasks(environment: Environment) -> Sampler:
    """Tasks of an environment, whose support and query are the same process.

        support = query = environment.sample_task(key)

    The learner gathers experience from the support, and is evaluated on new episodes of the query.

    >>> import jax
    >>> from jaxmeta.data.control import bandits
    >>> task = environment_tasks(bandits(5))(jax.random.key(0))
    >>> task.support.shape, task.query.shape
    ((5,), (5,))
    """
    return sampler(_draw, environment=environment)


def _draw(key: Key, *, environment: Environment) -> Task:
    task = environment.sample_task(key)
    return Task(task, task)

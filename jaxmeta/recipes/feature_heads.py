"""Settings of learners that train a linear head on frozen features and on generated ones."""

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, MetaLearner, PyTree, Task
from jaxmeta.inner import adam
from jaxmeta.learners import augmented
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.settings import AT_TEST, Natural, Positive
from jaxmeta.recipes.tasks import Needs, Problem


@dataclass(frozen=True)
class FeatureHead(Recipe):
    """Base class of the recipes; `head` gives arguments of the learner, by name."""

    count: Annotated[Natural, AT_TEST] = 100
    """Generated examples for each support example."""
    view_count: Annotated[Natural, AT_TEST] = 0
    """Random views of the image (see --views) for each support example, generated from in turn."""
    power: Positive = 0.5
    """Exponent of Tukey's transform of the features; 1 for none."""
    head_rate: Annotated[Positive, AT_TEST] = 0.01
    """Learning rate (Adam) of the linear head."""
    head_steps: Annotated[Natural, AT_TEST] = 100
    """Steps of the linear head."""

    @property
    def needs(self) -> Needs:
        return Needs(any_ways=True)

    def head(self, problem: Problem) -> dict[str, Any]:
        return {
            "objective": problem.objective,
            "ways": problem.ways,
            "inner_optimizer": adam(self.head_rate),
            "inner_steps": self.head_steps,
            "count": self.count,
            "power": self.power,
        }

    def on_views(self, learner: MetaLearner) -> MetaLearner:
        """The learner on examples `[examples, views, ...]`, of which it sees the first view."""
        learner = of_first_view(learner)
        return augmented(learner, random_view, self.view_count) if self.view_count else learner


def untrained(engine: Any, learner: MetaLearner) -> Any:
    """The update of a learner that is not trained: it changes nothing."""
    return engine.update(learner, optax.set_to_zero())


def of_first_view(learner: MetaLearner) -> MetaLearner:
    """A learner of features, on inputs `[examples, views, ...]`, of which the first is the image.

    >>> import jaxmeta
    >>> from jaxmeta.models import on_features
    >>> learner = of_first_view(jaxmeta.prototypical(on_features(), jaxmeta.cross_entropy, 2))
    >>> support = Batch(jnp.ones((2, 3, 4)), jnp.array([0, 1]))
    >>> learner.adapt(jax.random.key(0), {"encoder": ()}, support).prototypes_WD.shape
    (2, 4)
    """

    def first(batch: Batch) -> Batch:
        return batch._replace(inputs=batch.inputs[:, 0])

    def of_task(task: Task) -> Task:
        return Task(first(task.support), first(task.query))

    def predict(adapted: PyTree, inputs: Array, *, key: Key | None = None) -> PyTree:
        return learner.predict(adapted, inputs[:, 0], key=key)

    return learner._replace(
        init=lambda key, task: learner.init(key, of_task(task)),
        adapt=lambda key, params, support: learner.adapt(key, params, first(support)),
        predict=predict,
        loss=lambda key, params, task: learner.loss(key, params, of_task(task)),
        grad=lambda key, params, task, carry: learner.grad(key, params, of_task(task), carry),
    )


def random_view(key: Key, views: Array) -> Array:
    """One of the views of an image but the first, `[views, ...]`, in place of each.

    >>> random_view(jax.random.key(0), jnp.array([[1.0], [5.0]])).tolist()
    [[5.0], [5.0]]
    """
    row = jax.random.randint(key, (), 1, views.shape[0])
    return jnp.broadcast_to(views[row], views.shape)

"""Class-incremental evaluation: new classes arrive in sessions, and all so far are told apart."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Task, cross_entropy, valid_mask
from jaxmeta.learners.ways import among_known
from jaxmeta.recipes.tasks import Judge
from jaxmeta.training.state import shared_of
from jaxmeta.training.update import Trained


def judge_of_sessions(ways: int, sessions: int) -> Judge:
    """The accuracy on all classes so far after each session, which adds `ways / sessions` classes.

    After session s, the learner adapts to the support of the sessions 1, …, s, and classifies the
    queries of their classes among these. For a learner that keeps a mean, a code or a memory of
    each class, this is the adaptation to the support of session s that keeps the classes before it.
    Outputs of classes that have not come yet are left out.

    The metrics are `accuracy_session_1` and so on, their mean `session_mean`, and `accuracy`, that
    after the last session; the loss is that after the last session.

    >>> import jaxmeta
    >>> from jaxmeta.models import on_features
    >>> learner = jaxmeta.prototypical(on_features(), jaxmeta.cross_entropy, 4)
    >>> points = Batch(jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.arange(4))
    >>> given = (jax.random.key(0), learner, Trained({"encoder": ()}), Task(points, points))
    >>> loss, metrics = judge_of_sessions(4, 2)(*given)
    >>> sorted(metrics)
    ['accuracy', 'accuracy_session_1', 'accuracy_session_2', 'session_mean']
    """
    each = ways // sessions

    def judge(
        key: Key, learner: MetaLearner, trained: Trained, task: Task
    ) -> tuple[Array, Mapping[str, Array]]:
        def shown(batch: Batch, classes: Array) -> Batch:
            mask = valid_mask(batch.mask, len(batch.targets))
            return batch._replace(mask=mask & (batch.targets < classes))

        shared = shared_of(learner, trained)

        def after(session: Array) -> Array:
            classes = each * session
            support, query = shown(task.support, classes), shown(task.query, classes)
            adapted = learner.adapt(key, trained.meta_params, support, **shared)
            outputs = learner.predict(adapted, query.inputs)
            outputs = among_known(outputs, jnp.arange(outputs.shape[-1]) < classes)
            return cross_entropy(outputs, query.targets, query.mask)[1]["accuracy"]

        accuracies = jax.lax.map(after, 1 + jnp.arange(sessions))
        loss, _ = learner.loss(key, trained.meta_params, task, **shared)
        by_session = {f"accuracy_session_{n + 1}": accuracies[n] for n in range(sessions)}
        means = {"accuracy": accuracies[-1], "session_mean": accuracies.mean()}
        return loss, {**means, **by_session}

    return judge


def session_names(results: Mapping[str, Any], metric: str = "accuracy") -> list[str]:
    """The names of a metric after each session, in their order; none without sessions.

    >>> session_names({"accuracy_session_2": 0.5, "accuracy_session_1": 0.75, "accuracy": 0.5})
    ['accuracy_session_1', 'accuracy_session_2']
    """
    found: list[str] = []
    while (name := f"{metric}_session_{len(found) + 1}") in results:
        found.append(name)
    return found


def session_lines(results: Mapping[str, Any]) -> list[str]:
    """The accuracies by session, in one line; none without sessions."""
    found = [f"{100 * results[name]:.1f}" for name in session_names(results)]
    return [f"accuracy (%) after each session: {', '.join(found)}"] if found else []

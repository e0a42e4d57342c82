"""Class-incremental evaluation: what is judged after each session, by hand."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxmeta import Batch, Model, Task, cross_entropy
from jaxmeta.learners import maml, prototypical
from jaxmeta.models import on_features
from jaxmeta.recipes import find_domain, find_learner, settings, start
from jaxmeta.recipes.sessions import judge_of_sessions, session_lines
from jaxmeta.training.update import Trained

KEY = jax.random.key(0)


def test_classes_that_come_later_take_over_queries_of_earlier_ones():
    learner = prototypical(on_features(), cross_entropy, 4)
    support = Batch(jnp.array([[0.0], [10.0], [4.0], [20.0]]), jnp.arange(4))
    # The query of class 0 is nearer to class 2, which arrives in the second session.
    query = Batch(jnp.array([[3.0], [10.0], [4.0], [20.0]]), jnp.arange(4))
    judge = judge_of_sessions(4, 2)
    loss, metrics = judge(KEY, learner, Trained({"encoder": ()}), Task(support, query))
    assert {name: float(value) for name, value in metrics.items()} == {
        "accuracy_session_1": 1.0,
        "accuracy_session_2": 0.75,
        "accuracy": 0.75,
        "session_mean": 0.875,
    }
    whole = learner.loss(KEY, {"encoder": ()}, Task(support, query))[0]
    assert loss == pytest.approx(float(whole))
    assert session_lines(metrics) == ["accuracy (%) after each session: 100.0, 75.0"]
    assert session_lines({"accuracy": 1.0}) == []


def test_classes_that_have_not_come_are_never_predicted():
    """A learner with an output for each class: MAML without a step, outputs are the inputs."""
    model = Model(
        init=lambda key, inputs: jnp.zeros(()),
        apply=lambda params, inputs, *, reference=None, key=None: inputs + params,
    )
    learner = maml(model, cross_entropy, optax.sgd(0.0), 0)
    scores = jnp.array(
        [[3.0, 0.0, 5.0, 0.0], [0.0, 1.0, 0.0, 5.0], [0.0, 0.0, 5.0, 1.0], [1.0] * 4]
    )
    batch = Batch(scores, jnp.arange(4))
    _, metrics = judge_of_sessions(4, 2)(KEY, learner, Trained(jnp.zeros(())), Task(batch, batch))
    # Classes 2 and 3 have the largest scores of the first two queries, but come later.
    assert metrics["accuracy_session_1"] == 1.0
    assert metrics["accuracy_session_2"] == 0.25


def test_sessions_divide_the_ways():
    experiment = start(find_domain("few-shot"), find_learner("prototypical"))
    settings.check(experiment.changed(ways=10, sessions=5))
    with pytest.raises(ValueError, match="--sessions 3 of --ways 10: give a divisor"):
        settings.check(experiment.changed(ways=10, sessions=3))

"""The domains of policies: their returns, their rivals, and what they refuse."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Task, mlp, plots, promp
from jaxmeta.data.control import bandits, environment_tasks, tabular
from jaxmeta.recipes import Training, find_domain, find_learner, restore, settings, start
from jaxmeta.recipes.bandit_rivals import Rivals, comparison, rivals
from jaxmeta.recipes.base import Engine
from jaxmeta.recipes.domains.control import _draw_film
from jaxmeta.recipes.rollouts import judge_of
from jaxmeta.training.state import Trained


def of(domain, learner, **changes):
    return start(find_domain(domain), find_learner(learner)).changed(**changes)


@pytest.mark.parametrize(
    ("learner", "changes", "told"),
    [
        ("promp", {"reward": "dense"}, "--reward dense applies only to --environment corners"),
        ("promp", {"states": 3}, "--states 3 applies only to --environment tabular"),
        ("maml-rl", {"sampling_term": True}, "requires --surrogate log-likelihood"),
        (
            "maml-rl",
            {"sampling_term": True, "surrogate": "log-likelihood", "outer": "ppo"},
            "--sampling-term does not support --outer ppo",
        ),
        ("rl-squared", {"outer": "trpo"}, "--outer trpo does not support rl-squared"),
        ("maml-rl", {"trust_region": 0.0}, "--trust-region 0.0: give a number"),
        ("promp", {"episodes": 0}, "--episodes 0"),
        ("promp", {"environment": "sea"}, "--environment sea: choose from navigation"),
    ],
)
def test_nonsense_is_refused(learner, changes, told):
    with pytest.raises(ValueError, match=told):
        settings.check(of("control", learner, **changes))


def test_learners_of_other_tasks_are_refused():
    with pytest.raises(ValueError, match="decision-pretrained does not support tasks of control"):
        of("control", "decision-pretrained").check()
    with pytest.raises(ValueError, match="these learners do: decision-pretrained, rl-squared"):
        of("bandits", "maml").check()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "halving"])
def test_schedules_are_in_meta_updates(schedule):
    """Not in steps of the optimizer, of which proximal meta-updates take several."""
    training = Training(steps=10, outer_schedule=schedule, halve_every=4, outer_optimizer="sgd")

    def rates(per_update):
        optimizer, state, found = training.optimizer(per_update=per_update), (), []
        state = optimizer.init(jnp.zeros(()))
        for _ in range(10 * per_update):
            change, state = optimizer.update(jnp.ones(()), state)
            found.append(-float(change))
        return np.array(found)

    np.testing.assert_allclose(rates(6)[::6], rates(1), rtol=1e-5)
    assert rates(6)[-1] > 0


def test_proximal_meta_updates_take_several_steps_of_their_schedule():
    steps = []

    class Counting(Training):
        def optimizer(self, last=None, *, per_update=1):
            steps.append(per_update)
            return super().optimizer(last, per_update=per_update)

    environment = tabular(2, 2, horizon=2)
    learner = promp(environment, mlp((), 2), optax.sgd(0.1), 1, episodes=2)
    recipe = find_learner("promp")(epochs=3, minibatches=2)
    tasks: Any = SimpleNamespace(at_once=None)
    recipe.update(learner, Engine(Counting(task_batch=4), tasks, None))
    recipe.update(learner, Engine(Counting(task_batch=1), tasks, None))
    assert steps == [6, 3]
    with pytest.raises(ValueError, match="--minibatches 2 does not divide --task-batch 3"):
        recipe.update(learner, Engine(Counting(task_batch=3), tasks, None))


def test_policies_have_their_own_aggregation(tiny, status, tmp_path, capsys):
    line = [*tiny("control"), "--aggregate", "median", "--out", tmp_path / "run"]
    assert status("control", *line) == 1
    assert "--aggregate median requires --outer gradient" in capsys.readouterr().err


def test_the_judge_reports_every_adaptation():
    environment = bandits(3, horizon=4)
    task = jnp.array([0.0, 1.0, 0.5])
    rewards = jnp.array([[[0.0, 1, 0, 1], [0, 0, 0, 0]], [[1, 1, 1, 1], [1, 1, 0, 1]]])

    class Lived:
        def __init__(self):
            self.rewards, self.mask = rewards, jnp.ones_like(rewards)

    judge = judge_of(environment)
    fake = type("Fake", (), {"rollout": staticmethod(lambda key, params, task: Lived())})
    loss, metrics = judge(jax.random.key(0), fake, Trained(()), Task(task, task))  # pyright: ignore
    assert float(loss) == -3.5
    assert metrics["returns"].tolist() == [1.0, 3.5]
    assert (float(metrics["return_before"]), float(metrics["return"])) == (1.0, 3.5)
    assert metrics["rewards"].shape == (2, 4)
    assert float(metrics["share"]) == pytest.approx(2.25 / 4)


def test_later_steps_are_shorter_at_test():
    """In training all have the same rate, and without --later-rate at test, too."""
    assert of("control", "promp").learner.later_rate == 1.0  # pyright: ignore
    experiment = of("control", "promp", inner_rate=0.2, later_rate=0.5)
    for train, expected in ((True, (-0.2, -0.2, -0.2)), (False, (-0.2, -0.1, -0.1))):
        problem = experiment.domain.problem(experiment.training, None, {}, train=train)
        optimizer = experiment.learner.policy(problem)["inner_optimizer"]  # pyright: ignore
        state, found = optimizer.init(jnp.zeros(())), []
        for _ in expected:
            update, state = optimizer.update(jnp.ones(()), state)
            found.append(float(update))
        assert found == pytest.approx(expected)


def test_rivals_play_the_same_bandits():
    environment = bandits(3, horizon=10)
    source, key = environment_tasks(environment), jax.random.key(0)
    found = rivals(environment, source, key, 6, 4)
    again = rivals(environment, source, key, 6, 4)
    assert found.coefficient == again.coefficient
    for name, rewards in found.rewards.items():
        assert rewards.shape == (6, 10)
        np.testing.assert_array_equal(rewards, again.rewards[name])
    rows = comparison(np.ones((6, 10)), Rivals({"UCB1, tuned": np.zeros((6, 10))}, 0.3))
    assert rows["UCB1, tuned"]["learned_minus_this"] == 10
    assert rows["UCB1, tuned"]["coefficient"] == 0.3
    assert rows["learned"]["learned_minus_this"] == rows["learned"]["learned_minus_this_ci95"] == 0


@pytest.mark.full
def test_a_run_on_navigation(trained):
    folder: Path = trained("control", "maml-rl")
    results = json.loads((folder / "results.json").read_text())
    curve = results["after_inner_steps"]
    assert len(curve["return"]) == 3
    assert curve["return"][-1] == pytest.approx(results["return"], rel=1e-5)
    assert curve["return"][0] == pytest.approx(results["return_before"], rel=1e-5)
    assert results["figure"] == "return"
    for name in ("trajectories.png", "adaptation.png"):
        assert (folder / name).is_file()
    run = restore(folder)
    assert run.step == results["best_step"]


def test_a_film_has_the_first_episodes_before_and_after(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(plots, "frames", lambda path, *own, title: given.update({path: own}))
    observations = np.arange(2 * 3 * 2 * 12.0).reshape(2, 3, 2, 12, 1)  # tasks, adaptations, ...
    made: Any = SimpleNamespace(folder=tmp_path, title="robots")
    film = lambda lived: (lived[:, None, None], lived[:, 0])  # noqa: E731
    _draw_film(made, film, np.array([-1.0, 1.0]), observations)
    ((path, (outlines, moved)),) = given.items()
    assert path == tmp_path / "frames.png"
    assert [*outlines] == [
        f"task {d}1, {at} adaptation" for d in "-+" for at in ("before", "after")
    ]
    assert [len(own) for own in outlines.values()] == 4 * [9]
    assert [own[0] for own in moved.values()] == [0, 48, 72, 120]
    assert [own[-1] for own in moved.values()] == [11, 59, 83, 131]


@pytest.mark.full
@pytest.mark.parametrize("learner", ["rl-squared", "decision-pretrained"])
def test_a_run_on_bandits(learner, trained):
    folder: Path = trained("bandits", learner)
    results = json.loads((folder / "results.json").read_text())
    rows = results["comparison"]
    assert {*rows} == {"learned", "Thompson sampling", "UCB1", "UCB1, tuned"}
    assert rows["learned"]["return"] == pytest.approx(results["return"], rel=1e-5)
    assert (folder / "regret.png").is_file()

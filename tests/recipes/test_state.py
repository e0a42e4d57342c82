"""What changes over training without being learned, and what never changes: through the runner."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.core import Batch, Info, Task, meta_learner, squared_error
from jaxmeta.recipes import registry
from jaxmeta.recipes.base import Domain, Experiment, Recipe, Training
from jaxmeta.recipes.restoring import restore
from jaxmeta.recipes.runner import run
from jaxmeta.recipes.tasks import HeldOut, Problem, Tasks
from jaxmeta.training import checkpoints

WEIGHTS = jnp.arange(200_000.0) / 1e5  # 800 kB: large beside everything else here


def draw(key):
    inputs = jax.random.normal(key, (4, 1))
    return Task(Batch(inputs, 3 * inputs), Batch(inputs, 3 * inputs))


@dataclasses.dataclass(frozen=True)
class Scales(Domain):
    """y = 3 x, with frozen weights that a network may use."""

    def problem(self, training, needs, data, *, train):
        batch = Batch(jnp.zeros((4, 1)), jnp.zeros((4, 1)))
        return Problem("regression", train, Task(batch, batch), squared_error, lambda *_: None)  # pyright: ignore

    def tasks(self, training, needs):
        sample = jax.tree_util.Partial(draw)
        of_training, of_test = (
            self.problem(training, needs, {}, train=train) for train in (True, False)
        )

        def judge(key, learner, trained, task):
            loss, info = learner.loss(
                key, trained.meta_params, task, **_given(learner, trained.shared)
            )
            return loss, {**info.metrics, **_seen(trained.shared)}

        def test(part):
            return HeldOut(sample, of_test, {"part": part}, judge=judge)

        return Tasks(
            train=sample,
            problem=of_training,
            validation=test("validation"),
            tests={"test": test("test")},
            constants={"weights": WEIGHTS},
        )


def _given(learner, shared):
    return {} if learner.shared is None else {"shared": shared}


def _seen(shared):
    return {"mean": shared["mean"]} if shared else {}


@dataclasses.dataclass(frozen=True)
class RunningMean(Recipe):
    """Two lines: w is learned; the mean of the inputs' squares changes beside it."""

    def build(self, problem):
        def grad(key, w, task, carry):
            loss, slope = jax.value_and_grad(lambda w: jnp.square(w - 3.0))(w)
            seen = 0.5 * carry.shared["mean"] + 0.5 * jnp.square(task.support.inputs).mean()
            return slope, Info(loss, {}), carry._replace(shared={"mean": seen})

        base = meta_learner(
            lambda key, task: jnp.zeros(()),
            lambda key, w, support, shared=None: w,
            lambda w, inputs, key=None: w * inputs,
            squared_error,
        )

        def loss(key, w, task, shared=None):
            assert shared is not None
            value = jnp.square(w - 3.0)
            return value, Info(value, {})

        return base._replace(
            grad=grad, loss=loss, shared=lambda key, w, task: {"mean": jnp.zeros(())}
        )


@dataclasses.dataclass(frozen=True)
class OnFrozen(Recipe):
    """Two lines: the frozen weights' sum times a learned number."""

    def build(self, problem):
        weights = problem.constants["weights"] if problem.constants else WEIGHTS
        scale = weights.sum() / WEIGHTS.size  # 1.0 - tiny
        return meta_learner(
            lambda key, task: jnp.zeros(()),
            lambda key, w, support: w,
            lambda w, inputs, key=None: w * scale * inputs,
            squared_error,
        )


@pytest.fixture(scope="module", autouse=True)
def _registered():
    for name, kind in (("running-mean", RunningMean), ("on-frozen", OnFrozen)):
        registry.recipe(name, paper="none 2026", kinds=("regression",))(kind)
    registry.domain("scales", kind="regression")(Scales)
    yield
    for name in ("running-mean", "on-frozen"):
        del registry._LEARNERS[name]
    del registry._DOMAINS["scales"]


TRAINING = Training(
    steps=6,
    task_batch=4,
    outer_optimizer="sgd",
    outer_rate=0.1,
    eval_tasks=8,
    validation_tasks=4,
    checkpoint_every=2,
    chunk=2,
)


class Seen(NamedTuple):
    mean: float


@pytest.mark.parametrize("devices", [1, 2])
def test_shared_is_written_checkpointed_restored_and_judged(devices, tmp_path):
    experiment = Experiment(Scales(), RunningMean(), TRAINING)
    results, _ = run(experiment, tmp_path / "run", devices=devices)
    assert 0.5 < results["mean"] < 1.5  # a running mean of squares of normal numbers
    restored = restore(tmp_path / "run")
    assert float(restored.trained.shared["mean"]) == pytest.approx(results["mean"], rel=1e-6)
    # It is part of what resumes bit for bit.
    short = dataclasses.replace(TRAINING, steps=4)
    run(Experiment(Scales(), RunningMean(), short), tmp_path / "half", devices=devices)
    whole = checkpoints.restore(tmp_path / "run/checkpoints", restored.trained, step="best")
    assert whole is not None and whole.step == results["best_step"]


def test_constants_are_neither_optimised_nor_saved(tmp_path):
    experiment = Experiment(Scales(), OnFrozen(), TRAINING)
    results, _ = run(experiment, tmp_path / "run", devices=1)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 300_000  # pictures included; the weights alone are 800,000
    names = "".join(path.read_text() for path in tmp_path.rglob("manifest.json"))
    assert "weights" not in names
    assert results["loss"] < 5
    restored = restore(tmp_path / "run")
    assert jax.tree.map(np.shape, restored.meta_params) == ()

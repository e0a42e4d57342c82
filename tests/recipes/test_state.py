"""What changes over training without being learned, and what never changes: through the runner."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.commands.predict import Predict, predict_with
from jaxmeta.core import Batch, Info, Task, meta_learner, squared_error
from jaxmeta.data.tables import read_numbers
from jaxmeta.recipes import registry
from jaxmeta.recipes.base import Domain, Recipe, Training, UserTask
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.restoring import restore
from jaxmeta.recipes.runner import run
from jaxmeta.recipes.tasks import HeldOut, Problem, Tasks

WEIGHTS = jnp.arange(200_000.0) / 1e5  # 800 kB: large beside everything else here


def draw(key):
    inputs = jax.random.normal(key, (4, 1))
    return Task(Batch(inputs, 3 * inputs), Batch(inputs, 3 * inputs))


@dataclasses.dataclass(frozen=True)
class Scales(Domain):
    """y = 3 x, with frozen weights that a network may use."""

    factor: float = 1.0

    def problem(self, training, needs, data, *, train):
        batch = Batch(jnp.zeros((4, 1)), jnp.zeros((4, 1)))
        return Problem("regression", train, Task(batch, batch), squared_error, lambda *_: None)  # pyright: ignore

    def tasks(self, training, needs):
        sample = jax.tree_util.Partial(draw)
        return Tasks(
            train=lambda: sample,
            validation=lambda: HeldOut(sample, {"part": "validation"}),
            tests={"test": HeldOut(sample, {"part": "test"}, trajectory_tasks=4)},
        )

    def constants(self, data):
        return {"weights": WEIGHTS * self.factor}

    def read(self, data, support, query, ink):
        numbers = read_numbers(query)
        return UserTask(
            Batch(numbers, numbers), numbers, [str(row) for row in range(len(numbers))], []
        )


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

        def loss(key, w, task, *, shared):
            value = jnp.square(w - 3.0)
            return value, Info(value, {"mean": shared["mean"]})

        def trajectory(key, w, support, inputs, *, shared):
            return jnp.stack([w * inputs, shared["mean"] * inputs])

        return base._replace(
            adapt=lambda key, w, support, *, shared: w + 0 * shared["mean"],
            grad=grad,
            loss=loss,
            trajectory=trajectory,
            shared=lambda key, w, task: {"mean": jnp.zeros(())},
        )


@dataclasses.dataclass(frozen=True)
class OnFrozen(Recipe):
    """Two lines: the frozen weights' sum times a learned number."""

    def build(self, problem):
        weights = problem.constants["weights"]
        scale = weights.sum() / WEIGHTS.size  # 1.0 - tiny
        base = meta_learner(
            lambda key, task: jnp.zeros(()),
            lambda key, w, support: w,
            lambda w, inputs, key=None: w * scale * inputs,
            squared_error,
        )
        return base._replace(
            trajectory=lambda key, w, support, inputs: jnp.stack([0 * inputs, w * scale * inputs])
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


@pytest.mark.parametrize("devices", [1, 2])
def test_shared_is_written_checkpointed_restored_and_judged(devices, tmp_path):
    experiment = Experiment(Scales(), RunningMean(), TRAINING)
    results, _ = run(experiment, tmp_path / "run", devices=devices)
    assert 0.5 < results["mean"] < 1.5  # a running mean of squares of normal numbers
    restored = restore(tmp_path / "run")
    assert float(restored.trained.shared["mean"]) == pytest.approx(results["mean"], rel=1e-6)
    # So is what is judged step by step, and what a user predicts.
    assert len(results["after_inner_steps"]["loss"]) == 2
    asked, out = tmp_path / "asked.csv", tmp_path / "predicted.png"
    asked.write_text("1\n2\n")
    predict_with(Predict(tmp_path / "run", asked, asked, out=out))
    rows = out.with_suffix(".csv").read_text().splitlines()[1:]
    assert float(rows[1].split(",")[1]) == pytest.approx(2 * float(restored.meta_params), rel=1e-5)


def test_constants_are_neither_optimised_nor_saved(tmp_path):
    experiment = Experiment(Scales(), OnFrozen(), TRAINING)
    results, _ = run(experiment, tmp_path / "run", devices=1)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 300_000  # pictures included; the weights alone are 800,000
    names = "".join(path.read_text() for path in tmp_path.rglob("manifest.json"))
    assert "weights" not in names
    assert results["loss"] < 5
    assert len(results["after_inner_steps"]["loss"]) == 2
    restored = restore(tmp_path / "run")
    assert jax.tree.map(np.shape, restored.meta_params) == ()
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert len(config["data"]["constants_sha256"]) == 64
    # With other weights it is another run.
    config["tasks"]["factor"] = 2.0
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="was trained with other frozen weights"):
        restore(tmp_path / "run")

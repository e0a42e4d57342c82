"""A run folder gives back what it was evaluated with."""

import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from experiments import run as runs
from experiments.command_line import main
from jaxmeta.training import evaluation, restore
from jaxmeta.training.checkpoints import parameters_sha256
from jaxmeta.training.config import Regression


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--steps", "6", "--checkpoint-every", "2", "--chunk", "2", "--task-batch", "2"]
    tasks = ["--eval-tasks", "6", "--validation-tasks", "6", "--hidden", "8"]
    assert main(Regression, [*options, *tasks, "--out", str(folder)]) == 0
    return folder


def test_the_best_meta_parameters_reproduce_the_result(trained):
    results = json.loads((trained / "results.json").read_text())
    run = restore(trained)
    assert run.step == results["best_step"]
    assert run.image_shape is None
    assert parameters_sha256(run.meta_params) == results["evaluated_parameters_sha256"]

    sample, key = runs.test_tasks(run.config, None, run.config.seed)
    evaluate = evaluation(run.learner, 6, tasks_at_once=6)
    estimates = evaluate(run.meta_params, sample, key)
    assert float(estimates["loss"].mean) == pytest.approx(results["loss"], rel=1e-6)
    assert float(estimates["loss"].ci95) == pytest.approx(results["loss_ci95"], rel=1e-5)


def test_the_learner_adapts_and_predicts(trained):
    learner, meta_params, config, *_ = restore(trained)
    sample, key = runs.test_tasks(config, None, config.seed)
    task = sample(key)
    adapted = learner.adapt(jax.random.key(0), meta_params, task.support)
    outputs = learner.predict(adapted, task.query.inputs)
    assert outputs.shape == task.query.targets.shape
    assert bool(jnp.isfinite(outputs).all())


def test_no_run_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run folder: it has no config\.json"):
        restore(tmp_path)


def test_a_broken_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"config": {')
    with pytest.raises(ValueError, match=r"config\.json can't be read"):
        restore(tmp_path)


def test_runs_that_are_not_of_a_learner(tmp_path):
    seed = tmp_path / "seed_3"
    seed.mkdir()
    (seed / "config.json").write_text('{"config": {"experiment": "sequence"}}')
    with pytest.raises(ValueError, match=r"it is a run of experiments\.sequence; give one of"):
        restore(seed)
    with pytest.raises(FileNotFoundError, match=r"holds a run of each seed; give .*seed_3"):
        restore(tmp_path)


def test_no_checkpoint_yet(trained, tmp_path):
    shutil.copy(trained / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="no validated checkpoint yet"):
        restore(tmp_path)
    shutil.copy(trained / "results.json", tmp_path)  # as a committed run
    with pytest.raises(FileNotFoundError, match="without its checkpoints"):
        restore(tmp_path)


def test_the_checkpoint_of_another_model(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    fields = json.loads((folder / "config.json").read_text())
    fields["config"]["hidden"] = [9]
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="another learner, model or optimizer"):
        restore(folder)


def test_a_damaged_checkpoint(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (manifest,) = (folder / "checkpoints").glob("best_*/manifest.json")
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(ValueError, match="damaged"):
        restore(folder)

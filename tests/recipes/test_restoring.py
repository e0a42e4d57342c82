"""A run folder gives back what it was evaluated with."""

import json
import shutil
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxmeta.recipes import restore
from jaxmeta.recipes.loading import run_keys
from jaxmeta.training import evaluation
from jaxmeta.training.checkpoints import parameters_sha256, save_best


@pytest.fixture
def folder(trained):
    return trained("regression")


def held_out(run) -> Any:
    """The test tasks of the run."""
    experiment = run.experiment
    tasks = experiment.domain.tasks(experiment.training, experiment.learner.needs)
    return tasks.tests["test"]


def test_the_best_meta_parameters_reproduce_the_result(folder):
    results = json.loads((folder / "results.json").read_text())
    run = restore(folder)
    assert run.step == results["best_step"]
    assert run.data == {}
    assert parameters_sha256(run.meta_params) == results["evaluated_parameters_sha256"]
    assert run.trained.meta_params is run.meta_params

    key = run_keys(run.experiment.training.seed)[2]
    evaluate = evaluation(run.learner, 6, tasks_at_once=6)
    estimates = evaluate(run.meta_params, held_out(run).source, key)
    assert float(estimates["loss"].mean) == pytest.approx(results["loss"], rel=1e-6)
    assert float(estimates["loss"].ci95) == pytest.approx(results["loss_ci95"], rel=1e-5)


def test_the_learner_adapts_and_predicts(folder):
    run = restore(str(folder))
    learner, meta_params, *_ = run
    task = held_out(run).source(jax.random.key(3))
    adapted = learner.adapt(jax.random.key(0), meta_params, task.support)
    outputs = learner.predict(adapted, task.query.inputs)
    assert outputs.shape == task.query.targets.shape
    assert bool(jnp.isfinite(outputs).all())
    trained_with = (run.example.support.inputs.shape, run.example.query.inputs.shape)
    assert trained_with == ((10, 1), (10, 1))  # where a test has 5 and 20 points


def test_settings_may_change_that_do_not_touch_the_parameters(folder):
    run = restore(folder, eval_inner_steps=0)
    assert run.experiment.learner.eval_inner_steps == 0  # pyright: ignore
    support = held_out(run).source(jax.random.key(3)).support
    adapted = run.learner.adapt(jax.random.key(0), run.meta_params, support)
    chex.assert_trees_all_equal(adapted.params, run.meta_params)  # no step was taken
    with pytest.raises(ValueError, match="--distance cosine: maml on regression has no such"):
        restore(folder, distance="cosine")


def test_no_run_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no config\.json"):
        restore(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not a run folder: it has no config\.json"):
        restore(tmp_path / "absent")


def test_a_broken_configuration(tmp_path):
    (tmp_path / "config.json").write_text('{"training": {')
    with pytest.raises(ValueError, match=r"config\.json can't be read"):
        restore(tmp_path)


def test_a_folder_of_several_seeds(tmp_path):
    seed = tmp_path / "seed_3"
    seed.mkdir()
    (seed / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"holds one run per seed; give .*seed_3"):
        restore(tmp_path)


def test_no_checkpoint_yet(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="no validated checkpoint yet"):
        restore(tmp_path)
    shutil.copy(folder / "results.json", tmp_path)  # as a committed run
    with pytest.raises(FileNotFoundError, match="without its checkpoints"):
        restore(tmp_path)


def test_the_checkpoint_of_another_model(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    fields = json.loads((copy / "config.json").read_text())
    fields["tasks"]["hidden"] = [9]
    (copy / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="another learner, model or optimizer"):
        restore(copy)


def test_a_damaged_checkpoint(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    (manifest,) = (copy / "checkpoints").glob("best_*/manifest.json")
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(ValueError, match="damaged"):
        restore(copy)


def test_parameters_that_diverged(folder, tmp_path, status, capsys):
    copy = shutil.copytree(folder, tmp_path / "run")
    run = restore(copy)
    broken = run.trained._replace(meta_params=jax.tree.map(lambda a: a / 0, run.meta_params))
    save_best(copy / "checkpoints", run.step, broken, metadata={})
    with pytest.raises(ArithmeticError, match="has diverged: its parameters at step .* are NaN"):
        restore(copy)
    capsys.readouterr()
    assert status("evaluate", copy) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "has diverged" in captured.err


@pytest.mark.full
def test_data_that_is_no_data(trained, tmp_path):
    """As an earlier version could have written it: without a digest."""
    copy = shutil.copytree(trained("few-shot"), tmp_path / "run")
    whole = json.loads((copy / "config.json").read_text())
    del whole["data_sha256"]
    for value in ("x", None, 3, [[]], {}):
        for data in ({}, {**whole["data"], "image_shape": value}):
            (copy / "config.json").write_text(json.dumps({**whole, "data": data}))
            with pytest.raises(ValueError, match="config.json can't be used|run"):
                restore(copy)


@pytest.mark.full
def test_a_learner_with_a_head_for_other_ways(trained):
    with pytest.raises(ValueError, match="each of the 3 classes of its training tasks"):
        restore(trained("few-shot"), ways=4)

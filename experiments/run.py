"""One run from configuration to `results.json`: what every experiment shares."""

import dataclasses
import json
import os
import platform
import shlex
import sys
import zlib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import jaxmeta
from experiments import pictures, presets
from experiments.folders import prepare_folder
from experiments.oracle import oracle
from experiments.progress import Progress
from jaxmeta import files
from jaxmeta.core import Key, MetaLearner, PyTree
from jaxmeta.data import Dataset, load
from jaxmeta.data._episodes import turned_classes
from jaxmeta.training import build, build_learner, checkpoints
from jaxmeta.training import config as configs
from jaxmeta.training.config import AnyExperiment, Experiment, FewShot, Regression
from jaxmeta.training.estimates import Estimate, evaluation, trajectory_evaluation
from jaxmeta.training.feed import Source, on_all_devices
from jaxmeta.training.loop import Outcome, train_with_checkpoints
from jaxmeta.training.options import MetaTransfer
from jaxmeta.training.parallel import (
    check_same,
    mesh_for,
    on_first_process,
    raise_on_all_processes,
    size_of,
)
from jaxmeta.training.update import MetaUpdate

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def run(
    config: AnyExperiment,
    folder: Path,
    *,
    resume: bool,
    overwrite: bool,
    devices: int | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Train, evaluate the best checkpoint on test tasks, draw, write `results.json`; return it.

    Raises:
      ValueError, OSError: with one plain line for the command line to show.
    """
    configs.check(config)
    dataset = raise_on_all_processes(lambda: load_dataset(config))
    mesh = mesh_for(
        config.task_batch,
        devices,
        tasks_at_once=config.tasks_at_once,
        evenly=build.pipeline_of(config, dataset) == "stream",
    )
    config = fit_train_ways(config, dataset, progress.say)
    _check_pretrained(config, dataset)
    train_tasks = build.source_of(config, dataset, "train")
    validation_tasks = build.source_of(config, dataset, "validation")
    held_out, test_key = test_tasks(config, dataset, config.seed)
    test_learner = build_learner.learner_of(config, train=False)
    _try_shapes(test_learner, config, dataset)
    update = build.update_of(config, mesh)
    check_same(_digest(config, dataset), "give all the same options and the same images.")
    on_first_process(
        lambda: prepare_folder(folder, config, dataset, resume=resume, overwrite=overwrite)
    )
    raise_on_all_processes(lambda: _check_visible(folder))

    train_key, validation_key, _ = run_keys(config.seed)
    at_once = evaluation_tasks_at_once(config)
    # Evaluation has tasks for all devices, also where a training batch has not.
    everywhere = mesh_for(jax.device_count(), devices)
    validation_tasks = on_all_devices(validation_tasks, everywhere)
    validate = evaluation(
        test_learner, config.validation_tasks, tasks_at_once=at_once, mesh=everywhere
    )
    outcome = train_in(
        folder,
        config,
        update,
        train_tasks,
        train_key,
        lambda params: validate(params, validation_tasks, validation_key),
        name=config.learner.name,
        mesh=mesh,
        resume=resume,
        progress=progress,
    )

    progress.say(f"evaluating the best checkpoint (step {outcome.best_step}) on held-out tasks.")
    evaluate = evaluation(test_learner, config.eval_tasks, tasks_at_once=at_once, mesh=everywhere)
    estimates = evaluate(outcome.best.meta_params, held_out, test_key)
    results = {
        **describe(config, dataset),
        **plain(estimates),
        "num_tasks": config.eval_tasks,
        "seed": config.seed,
        "steps": config.steps,
        "best_step": outcome.best_step,
        "wall_seconds": round(outcome.wall_seconds, 1),
        "tasks_per_second": round(outcome.tasks_per_second, 1),
        **circumstances(mesh),
        "parameters_sha256": checkpoints.parameters_sha256(outcome.state.meta_params),
        "evaluated_parameters_sha256": checkpoints.parameters_sha256(outcome.best.meta_params),
        "resumed_from_step": outcome.resumed_from_step,
    }
    results |= beside_oracle(config, test_learner, outcome.best.meta_params, held_out, test_key)
    if test_learner.trajectory is not None:
        # A curve costs a query prediction a step, Reptile's 50 of them: fewer tasks for images.
        tasks = config.eval_tasks if dataset is None else min(config.eval_tasks, 200)
        objective = build_learner.objective_of(config)
        evaluate = trajectory_evaluation(
            test_learner, objective, tasks, tasks_at_once=at_once, mesh=everywhere
        )
        curve = evaluate(outcome.best.meta_params, held_out, test_key)
        results["after_inner_steps"] = {**plain(curve), "num_tasks": tasks}

    def keep() -> None:
        files.write_json(folder / "results.json", results)
        pictures.draw_all(
            folder, config, results, test_learner, outcome.best.meta_params, held_out, test_key
        )

    on_first_process(keep)
    return results


def _try_shapes(learner: MetaLearner, config: AnyExperiment, dataset: Dataset | None) -> None:
    """Raises, before a folder is made or a program compiled, what the learner has against them."""
    task = build.example_task(config, None if dataset is None else dataset.train.images.shape[1:])

    def adapt(key: Key) -> Any:
        return learner.adapt(key, learner.init(key, task), task.support)

    jax.eval_shape(adapt, jax.random.key(0))


def train_in(
    folder: Path,
    settings: Experiment,
    update: MetaUpdate,
    source: Source,
    key: Key,
    validate: Callable[[PyTree], Mapping[str, Estimate]],
    *,
    name: str,
    mesh: Mesh | None,
    resume: bool,
    progress: Progress,
) -> Outcome:
    """`train` with the numbers of the settings, and a bar."""
    with progress.training(name, settings.steps) as report:
        return train_with_checkpoints(
            folder,
            update,
            source,
            key,
            steps=settings.steps,
            task_batch=settings.task_batch,
            validate=validate,
            checkpoint_every=settings.checkpoint_every,
            chunk=settings.chunk,
            mesh=mesh,
            resume=resume,
            report=report,
            say=progress.say,
        )


def _check_pretrained(config: AnyExperiment, dataset: Dataset | None) -> None:
    """Refuse a pre-trained network that may know the test classes: one of another split."""
    if not isinstance(config, FewShot) or not isinstance(config.learner, MetaTransfer):
        return
    assert dataset is not None
    trained_on = str(build_learner.backbone_of(config)["images_sha256"])
    if trained_on != dataset.protocol["images_sha256"]:
        raise ValueError(
            f"{config.learner.pretrained} was trained on other images or another split of them; "
            "give the --dataset, --split, --seed and --image-size of its pre-training."
        )


def _digest(config: AnyExperiment, dataset: Dataset | None) -> int:
    """31 bits of what all processes of a run must have in common."""
    images = "" if dataset is None else dataset.protocol["images_sha256"]
    text = json.dumps([files.plain(configs.to_json(config)), images], sort_keys=True)
    return zlib.crc32(text.encode()) >> 1


def _check_visible(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise ValueError(
            f"process 0 made {folder}, which is not seen here: share it between hosts."
        )


def load_dataset(config: AnyExperiment) -> Dataset | None:
    """The image set of an experiment; None for curves."""
    if not isinstance(config, FewShot):
        if config.task != "images":
            return None
        color = None if config.dataset in ("glyphs", "omniglot") else False  # those are grey
        return load(config.dataset, color=color, seed=config.seed)
    return load(
        config.dataset,
        split=config.split,
        rotations=config.rotations,
        image_size=config.image_size,
        color=config.color,
        seed=config.seed,
    )


def fit_train_ways(
    config: AnyExperiment, dataset: Dataset | None, say: Callable[[str], object]
) -> AnyExperiment:
    """A prototypical network's 60 training ways, or all the classes of a set that has fewer."""
    if dataset is None or not isinstance(config, FewShot):
        return config
    classes = len(dataset.train.names) * turned_classes(config.rotations)
    if config.train_ways != presets.PROTOTYPICAL_WAYS or classes >= config.train_ways:
        return config
    say(f"{config.dataset} has {classes} classes to train on: {classes}-way training tasks.")
    return dataclasses.replace(config, train_ways=classes)


def evaluation_tasks_at_once(config: AnyExperiment) -> int:
    """As many tasks at once in evaluation as in training, where that is not all of them."""
    return min(build.tasks_at_once(config) or 100, 100)


def describe(config: AnyExperiment, dataset: Dataset | None) -> dict[str, Any]:
    """What was learned from what, and the protocol that makes the number comparable."""
    learner = config.learner
    options = configs.to_json(config)["learner"]
    protocol: dict[str, Any] = {
        "inner": {name: value for name, value in options.items() if name != "name"},
        "selected_on": f"validation {'accuracy' if isinstance(config, FewShot) else 'loss'}, "
        f"{config.validation_tasks} tasks every {config.checkpoint_every} steps",
        "train_episode": config.episode(True),
    }
    described: dict[str, Any] = {"learner": learner.name}
    if isinstance(config, FewShot):
        assert dataset is not None
        described |= {"dataset": config.dataset, **config.episode(False)}
        protocol |= dataset.protocol | {
            "query_statistics": config.query_statistics,
            "transductive": config.query_statistics == "batch",
            "shuffled_labels": config.shuffle_labels,
            "pipeline": build.pipeline_of(config, dataset),
            "network": f"{config.network}, width {config.width}, {config.precision}",
            "hard_tasks": config.hard_tasks,
            "distortions": config.distortions,
            "unlabelled": config.unlabelled,
            "distractors": config.distractors,
        }
    else:
        what: dict[str, tuple[str, ...]] = {
            "sinusoids": ("amplitude", "phase", "frequency", "domain", "hidden"),
            "gp": ("points", "kernel", "kernel_length", "kernel_scale", "kernel_period", "noise"),
            "images": ("points",),
        }
        if config.task == "sinusoids":
            described |= {"dataset": "sinusoids", **config.episode(False)}
        else:
            name = config.dataset if dataset else f"gp {config.kernel}"
            described |= {"dataset": name, "points": config.points}
            queries = config.episode(True)["queries"]
            protocol["train_episode"] = {"points": config.points, "queries": queries}
        protocol |= {name: getattr(config, name) for name in what[config.task]}
        protocol |= {"query_statistics": "none", **({} if dataset is None else dataset.protocol)}
    return {**described, "protocol": protocol}


def beside_oracle(
    config: AnyExperiment, learner: MetaLearner, meta_params: PyTree, sample: Source, key: Key
) -> dict[str, Any]:
    """What can be known of the test tasks, as `{"oracle": ...}`; nothing where nobody knows."""
    if not isinstance(config, Regression) or config.task != "gp":
        return {}
    return {"oracle": plain(oracle(learner, meta_params, sample, key, config.eval_tasks))}


def plain(estimates: dict[str, Estimate]) -> dict[str, Any]:
    """`{"accuracy": ..., "accuracy_ci95": ...}` of numbers or lists."""
    flat = {}
    for name, estimate in estimates.items():
        flat[name] = estimate.mean.tolist()
        flat[f"{name}_ci95"] = estimate.ci95.tolist()
    return flat


def run_keys(seed: int) -> Key:
    """Three keys of a run: of training, of validation tasks, of test tasks."""
    return jax.random.split(jax.random.key(seed), 3)


def test_tasks(config: AnyExperiment, dataset: Dataset | None, seed: int) -> tuple[Source, Key]:
    """The test tasks and their key: one seed always gives the same tasks."""
    seeded = dataclasses.replace(config, seed=seed)
    return build.source_of(seeded, dataset, "test"), run_keys(seed)[2]


def circumstances(mesh: Mesh | None = None) -> dict[str, Any]:
    """The command, the device, and the versions of all that a bit of the result may depend on."""
    device = jax.devices()[0]
    name = f"{device.device_kind} × {size_of(mesh)}"
    if device.platform == "cpu":
        name += f" ({os.cpu_count()} cores)"
    if jax.process_count() > 1:
        name += f", {jax.process_count()} processes"
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "device": name,
        "versions": {
            "jaxmeta": jaxmeta.__version__,
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in _PACKAGES},
        },
    }

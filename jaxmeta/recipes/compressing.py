"""Compressed versions of a trained run, and what they cost: bytes, results of tasks, time."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmeta.compress import (
    dequantised,
    distilled,
    gradual_pruning,
    in_bfloat16,
    pruned,
    quantised,
    stored_bytes,
)
from jaxmeta.core import Array, Key, PyTree, Task
from jaxmeta.recipes.base import Engine
from jaxmeta.recipes.evaluation import Evaluator
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.loading import Loaded, load, problems, run_keys, untrained_shapes
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.settings import option, values
from jaxmeta.recipes.tasks import Problem, query_inputs
from jaxmeta.recipes.updates import run_updates
from jaxmeta.training.feed import first_task, without_constants
from jaxmeta.training.parallel import mesh_for
from jaxmeta.training.state import draw, shared_of
from jaxmeta.training.update import MetaUpdate, Supplied, Trained, with_constants


class Compression(NamedTuple):
    """A compressed version of a run.

    Attributes:
      name: the method with its settings, such as `prune 90 %`.
      loaded: the experiment of its learner, which is another one after distillation.
      trained: its parameters; weights may be `jaxmeta.compress.Quantised`.
    """

    name: str
    loaded: Loaded
    trained: Trained


class Cost(NamedTuple):
    """What a version of a run takes, and its results.

    Attributes:
      bytes: see `jaxmeta.compress.stored_bytes`.
      values: the metrics of every test task, by name, `[tasks]`.
      milliseconds: the shortest of 60 times to adapt to one test task and to predict its query.
    """

    bytes: int
    values: dict[str, np.ndarray]
    milliseconds: float


class Further(NamedTuple):
    """The settings of further training.

    Attributes:
      steps: number of meta-updates.
      outer_rate: learning rate of the meta-parameters.
    """

    steps: int
    outer_rate: float


REPEATS = 30  # other programs only add time, so the shortest time counts


def costs(loaded: Loaded, count: int, mesh: Mesh | None) -> Callable[[Trained], Cost]:
    """`cost(trained)`, on the main test of the run: `count` tasks on its shared test keys."""
    evaluator, recipe = Evaluator(loaded, mesh), loaded.experiment.learner
    test = next(iter(loaded.tasks.tests.values()))
    problem, judge = evaluator.problem(test), evaluator.judged(test, count)
    key = run_keys(loaded.experiment.training.seed)[2]

    @jax.jit
    def solve(trained: Trained, constants: PyTree, key: Key, task: Task) -> Any:
        learner = recipe.build(problem._replace(constants=constants))
        params = dequantised(trained.meta_params)
        adapted = learner.adapt(key, params, task.support, **shared_of(learner, trained))
        if not hasattr(task.query, "inputs"):  # a process to act in has none
            return adapted
        return learner.predict(adapted, query_inputs(task))

    def cost(trained: Trained) -> Cost:
        usable = trained._replace(meta_params=dequantised(trained.meta_params))
        source, timed = test.source, trained
        if test.prepare is not None:
            source, timed = test.prepare(recipe, usable)
        first = first_task(without_constants(source))
        task, learn_key = jax.jit(draw)(first, jax.random.split(key, count)[0])

        def shortest_milliseconds() -> float:
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                jax.block_until_ready(solve(timed, loaded.constants, learn_key, task))
                times.append(1000 * (time.perf_counter() - start))
            return min(times)

        # Before and after the evaluation, since another program may use the machine for a while.
        before = shortest_milliseconds()
        results = judge(usable, key)
        after = shortest_milliseconds()
        return Cost(stored_bytes(trained.meta_params), results, min(before, after))

    return cost


def pruned_at_once(loaded: Loaded, trained: Trained, sparsity: float) -> Compression:
    """Without further training, but for statistics; see `jaxmeta.compress.pruned`."""

    def prune(own: Trained) -> Trained:
        return own._replace(meta_params=pruned(own.meta_params, sparsity))

    return Compression(f"prune {_percent(sparsity)}", loaded, _unfolded(loaded, trained, prune))


def with_eight_bits(loaded: Loaded, trained: Trained) -> Compression:
    """See `jaxmeta.compress.quantised`."""
    params = quantised(trained.meta_params)
    return Compression("int8", loaded, trained._replace(meta_params=params))


def with_sixteen_bits(loaded: Loaded, trained: Trained) -> Compression:
    """See `jaxmeta.compress.in_bfloat16`."""
    params = in_bfloat16(trained.meta_params)
    return Compression("bfloat16", loaded, trained._replace(meta_params=params))


def check_gradual(loaded: Loaded, trained: Trained, steps: int) -> None:
    """Check that a run can be pruned gradually.

    Raises:
      ValueError: fewer than 2 steps; the run is tested with other parameters than it trains.
    """
    if steps < 2:
        raise ValueError(f"{option('steps', steps)}: gradual pruning requires 2 or more.")
    recipe, problem = loaded.experiment.learner, loaded.of_training
    if _shapes(untrained_shapes(recipe, problem).meta_params) != _shapes(trained.meta_params):
        raise ValueError(
            f"--method gradual: {recipe.name} is tested with other parameters than it trains; use "
            "--method prune."
        )


def pruned_gradually(
    loaded: Loaded, trained: Trained, sparsity: float, further: Further, progress: Progress
) -> Compression:
    """Pruned during the first three quarters of further training; see `gradual_pruning`.

    Raises:
      ValueError: as `check_gradual`.
    """
    check_gradual(loaded, trained, further.steps)
    prunings = min(20, further.steps // 2)
    every = max(1, 3 * further.steps // (4 * prunings))
    recipe, name = loaded.experiment.learner, f"gradual {_percent(sparsity)}"

    def update(problem: Problem, engine: Engine) -> MetaUpdate:
        own = recipe.update(recipe.build(problem), engine)
        return gradual_pruning(own, sparsity, prunings=prunings, every=every)

    def train(start: Trained) -> Trained:
        return _train(loaded, update, further, progress, name, start=start)

    return Compression(name, loaded, _unfolded(loaded, trained, train))


def narrowed(loaded: Loaded, width: int | None) -> Experiment:
    """The experiment with a narrower network, by default of half the width.

    Raises:
      ValueError: tasks without classes; a network without `--width`, or one that is not smaller.
    """
    experiment, domain = loaded.experiment, loaded.experiment.domain
    if domain.kind != "classification":
        raise ValueError(
            f"--method distil matches class probabilities, but {domain.name} has tasks of the kind "
            f"{domain.kind}; choose another method."
        )
    wide = values(experiment).get("width")
    if wide is None:
        raise ValueError(
            f"--method distil requires a network with the setting --width, which {domain.name} "
            "does not have; choose another method."
        )
    width = width or max(1, wide // 2)
    found = experiment.changed(width=width)
    problem, _ = problems(found, loaded.tasks.data, loaded.constants)
    before, after = (
        sum(leaf.size for leaf in jax.tree.leaves(untrained_shapes(experiment.learner, own)))
        for own in (loaded.of_training, problem)
    )
    if after >= before:
        raise ValueError(
            f"{option('width', width)}: the network would have {after:,} parameters, that of the "
            f"run has {before:,}; give a smaller --width, or choose another method if the width "
            "has no effect on this network."
        )
    return found


def distilled_narrower(
    loaded: Loaded,
    trained: Trained,
    width: int | None,
    temperature: float,
    further: Further,
    progress: Progress,
) -> Compression:
    """A narrower network that is trained to match the run's predictions; see `distilled`.

    Raises:
      ValueError: as `narrowed`.
    """
    experiment = narrowed(loaded, width)
    narrow = load(experiment)
    recipe, teacher_problem = experiment.learner, _as_tested(loaded)

    def logits(outputs: Array) -> Array:
        probabilities = recipe.probabilities(outputs)
        return jnp.log(jnp.maximum(probabilities, jnp.finfo(probabilities.dtype).tiny))

    def update(problem: Problem, engine: Engine) -> MetaUpdate:
        teacher = recipe.build(teacher_problem._replace(constants=problem.constants))
        student = recipe.build(problem)
        learner = distilled(
            student, teacher, trained.meta_params, temperature=temperature, logits=logits
        )
        return engine.update(learner)

    name = f"distil to width {values(experiment)['width']}"
    student = _train(narrow, update, further, progress, name)
    key = jax.random.fold_in(run_keys(experiment.training.seed)[0], 3)
    finish = jax.jit(lambda own, inputs: recipe.finish(key, own, narrow.of_training, inputs))
    return Compression(name, narrow, finish(student, narrow.tasks.calibration()) or student)


def _as_tested(loaded: Loaded) -> Problem:
    """The problem of training with the network of the tests, whose statistics may be folded."""
    return loaded.of_training._replace(network=loaded.of_test.network, fold=None)


def _unfolded(loaded: Loaded, trained: Trained, change: Callable[[Trained], Trained]) -> Trained:
    """Change the parameters of the network in training, then fold new statistics into them.

    Fewer weights give other activations, to which statistics folded before no longer belong.
    """
    recipe, problem = loaded.experiment.learner, loaded.of_training
    if problem.fold is None or problem.unfold is None:
        return change(trained)
    calibration = loaded.tasks.calibration()

    def encoder_changed(by: Callable[[PyTree, PyTree], PyTree], own: Trained) -> Trained:
        @jax.jit
        def changed(params: PyTree, calibration: PyTree) -> PyTree:
            return recipe.with_encoder(params, lambda encoder: by(encoder, calibration))

        return own._replace(meta_params=changed(own.meta_params, calibration))

    return encoder_changed(problem.fold, change(encoder_changed(problem.unfold, trained)))


def _train(
    loaded: Loaded,
    update_of: Callable[[Problem, Engine], MetaUpdate],
    further: Further,
    progress: Progress,
    name: str,
    *,
    start: Trained | None = None,
) -> Trained:
    """Train on the tasks of training, from `start` or from the learner's initial parameters."""
    training = loaded.experiment.changed(**further._asdict()).training
    tasks, constants = loaded.tasks, loaded.constants
    mesh = mesh_for(
        training.task_batch, tasks_at_once=training.tasks_at_once, evenly=tasks.streamed
    )
    engine = Engine(training, tasks, mesh)

    def build(constants: PyTree) -> MetaUpdate:
        return update_of(loaded.of_training._replace(constants=constants), engine)

    has_constants = bool(jax.tree.leaves(constants))
    source = tasks.train()
    update = with_constants(build) if has_constants else build(())
    given = Supplied(source, constants) if has_constants else source
    key = jax.random.fold_in(run_keys(training.seed)[0], 2)  # other tasks than the run's
    progress.say(f"{name}: {further.steps:,} meta-updates at a rate of {further.outer_rate:.2g}.")
    return run_updates(
        update, given, key, training, mesh=mesh, progress=progress, name=name, start=start
    )


def _shapes(tree: PyTree) -> Any:
    return jax.tree.structure(tree), [leaf.shape for leaf in jax.tree.leaves(tree)]


def _percent(sparsity: float) -> str:
    return f"{100 * sparsity:g} %"

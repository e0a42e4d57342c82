"""Active learning with trained runs: pools of their tasks, and the accuracy after every label."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmeta.active import (
    Acquired,
    Rule,
    Solve,
    View,
    acquisition,
    area_under,
    committee,
    from_learner,
    learned,
    learned_acquirer,
)
from jaxmeta.core import Batch, Key, Model, PyTree, Task, unpadded
from jaxmeta.data.samplers import sampler
from jaxmeta.data.stream import TaskStream, enumerated
from jaxmeta.models import mlp
from jaxmeta.models.layers import OF_SEVERAL_EXAMPLES
from jaxmeta.recipes.base import Labelling, Recipe, Training
from jaxmeta.recipes.evaluation import Evaluator
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.loading import Loaded, run_keys, tasks_at_once
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.settings import option, values
from jaxmeta.recipes.tasks import HeldOut, Problem
from jaxmeta.recipes.updates import run_updates
from jaxmeta.training.estimates import per_task
from jaxmeta.training.feed import Source, count_tasks, first_task, on_all_devices
from jaxmeta.training.parallel import mesh_for
from jaxmeta.training.state import shared_of
from jaxmeta.training.update import MetaUpdate, Supplied, Trained, meta_update, with_constants

POLICY = mlp((32,), 1)
"""The network of the learned rule."""
MOST_POOLS = 100
"""Pools of embedded examples that the learned rule is trained on."""

Given = tuple[Trained, PyTree]
"""What is trained of a member, and its frozen weights: arguments of compiled programs."""


class Sizes(NamedTuple):
    """The pools, and the labels that are asked for.

    Attributes:
      budget: labels beyond the start.
      start: labels per class at the start.
    """

    budget: int
    start: int


class Member(NamedTuple):
    """A trained run: the first one is helped, further ones form a committee with it."""

    loaded: Loaded
    trained: Trained


def on_pools(experiment: Experiment, asked: Labelling) -> Experiment:
    """The experiment with test tasks whose support is a pool of examples.

    Raises:
      ValueError: its domain has no such tasks, or its network normalises by statistics of several
        examples.
    """
    domain = experiment.domain.for_labelling(asked)
    statistics = values(experiment).get("query_statistics")
    if statistics in OF_SEVERAL_EXAMPLES:
        raise ValueError(
            f"{option('query_statistics', statistics)}: the network of this run normalises by "
            "statistics of several examples, and the support set is padded for further labels; "
            "choose a run with the statistics training, group, layer or none, or train one."
        )
    return experiment.replaced(domain)


class Opened(NamedTuple):
    """The tasks of all members, which are the same tasks.

    Attributes:
      source: draws a task; with several members, the tasks of each, whose inputs may differ.
      problems: the problem of each member.
      given: what is trained of each member, and its frozen weights.
    """

    source: Source
    problems: list[Problem]
    given: list[Given]


class Pools:
    """The test tasks of a run as pools, and the accuracy of its learner after every label.

    Learners whose network only embeds examples get embeddings, which are computed once for all
    rules.

    Args:
      members: the run that is helped, and further runs that form a committee with it.
      sizes: the labels.
      samples: predictions with different keys that form a committee, in `curves` with
        `sampled=True`.
      count: number of test tasks, or all if there are fewer.

    Raises:
      ValueError: the tests are judged in a way of their own, or have other numbers of classes.
    """

    def __init__(self, members: Sequence[Member], sizes: Sizes, samples: int, count: int) -> None:
        self.members, self.sizes, self.samples = [*members], sizes, samples
        self.loaded = members[0].loaded
        self.metric = self.loaded.tasks.figures[0].metric
        self.recipes = [own.loaded.experiment.learner for own in members]
        self.mesh = mesh_for(jax.device_count())
        self.test = _test_of(self.loaded)
        self.count = min(count, self.test.number or count)
        self.key = run_keys(self.loaded.experiment.training.seed)[2]
        self.embedding = all(own.needs.embeds for own in self.recipes)
        self.ways = self._problem(members[0], self.test).ways
        if self.test.judge is not None:
            raise ValueError(
                f"active learning does not support {self.loaded.experiment.domain.name}: its tests "
                "are not judged by the loss of the query."
            )

    def curves(
        self, rule_of: Callable[[PyTree], Rule], params: PyTree = (), *, sampled: bool = False
    ) -> dict[str, np.ndarray]:
        """The values of a rule on the test tasks: loss, metrics, and areas under the metrics.

        Loss and metrics are `[tasks, budget + 1]`, the areas `area_METRIC` `[tasks]`.
        """
        opened = self._opened(_test_of, prepared=False) if sampled else self.pools
        ahead = self.embedding and not sampled

        def judge(key: Key, given: tuple[Any, PyTree], task: Task) -> Any:
            members, params = given
            acquire_with = self._acquire_with(opened.problems, members, sampled, ahead)
            found = acquire_with(rule_of(params))(key, task)
            areas = {f"area_{name}": area_under(own) for name, own in found.metrics.items()}
            return found.loss, {**found.metrics, **areas}

        given = (opened.given, params)
        return self._per_task(judge, self.count)(given, opened.source, self.key)

    @property
    def size(self) -> int:
        """The number of examples of the largest pool."""
        one: Any = jax.eval_shape(first_task(self.test.source), self.key)
        return one.support.targets.shape[0]

    @functools.cached_property
    def pools(self) -> Opened:
        """The test tasks, embedded if possible."""
        return self._embedded(self._opened(_test_of), self.count, self.key)

    def trained_rule(self, training: Training, progress: Progress) -> PyTree:
        """The parameters of the learned rule, trained on pools of the validation classes.

        The learner has not been trained on these classes, so that its predictions are like those
        for test classes. Embedded pools are drawn once, at most `MOST_POOLS` of them.

        Raises:
          ArithmeticError: training diverged.
        """
        key = jax.random.fold_in(run_keys(self.loaded.experiment.training.seed)[0], 4)
        opened = self._opened(lambda loaded: loaded.tasks.validation())
        count = min(MOST_POOLS, training.steps * training.task_batch)
        count = min(count, count_tasks(opened.source) or count)
        opened = self._embedded(opened, count, key)

        def build(given: PyTree) -> MetaUpdate:
            acquire_with = self._acquire_with(opened.problems, given, False, self.embedding)
            return meta_update(
                learned_acquirer(POLICY, acquire_with, metric=self.metric),
                optax.adam(training.outer_rate),
                task_batch=training.task_batch,
                tasks_at_once=training.tasks_at_once,
            )

        progress.say(
            f"learned: {training.steps:,} meta-updates on pools of the validation classes."
        )
        done = run_updates(
            with_constants(build),
            Supplied(opened.source, opened.given),
            key,
            training,
            mesh=None,
            progress=progress,
            name="learned",
        )
        return done.meta_params

    def varies(self) -> bool:
        """Whether predictions of the run depend on the key, so that samples differ."""
        opened = Pools(self.members[:1], self.sizes, 0, 1)._opened(_test_of, prepared=False)

        def judge(key: Key, given: Any, task: Task) -> Any:
            ((trained, constants),) = given
            learner = self.recipes[0].build(opened.problems[0]._replace(constants=constants))
            shared = shared_of(learner, trained)
            adapted = learner.adapt(key, trained.meta_params, task.support, **shared)
            one, two = (
                learner.predict(adapted, task.query.inputs, key=own)
                for own in jax.random.split(key)
            )
            apart = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), one, two)
            return jnp.stack(jax.tree.leaves(apart)).max(), {}

        found = self._per_task(judge, 1)(opened.given, opened.source, self.key)
        return bool((found["loss"] > 0).any())

    def _problem(self, member: Member, test: HeldOut) -> Problem:
        return Evaluator(member.loaded, None).problem(test)

    def _opened(self, test_of: Callable[[Loaded], HeldOut], *, prepared: bool = True) -> Opened:
        """The same tasks for all members; if a domain prepares them for a learner, as it does."""
        sources, problems, given = [], [], []
        for member, recipe in zip(self.members, self.recipes):
            test, trained = test_of(member.loaded), member.trained
            source = test.source
            if test.prepare is not None and prepared:
                source, trained = test.prepare(recipe, trained)
            elif test.prepare is not None:
                test = test._replace(problem=None)
            sources.append(source)
            problems.append(self._problem(member, test))
            given.append((trained, member.loaded.constants))
        if {own.ways for own in problems} != {self.ways}:
            ways = ", ".join(str(own.ways) for own in problems)
            raise ValueError(f"the runs of a committee have tasks of {ways} ways; give --ways.")
        return Opened(_of_all(sources), problems, given)

    def _embedded(self, opened: Opened, count: int, key: Key) -> Opened:
        """With embeddings as inputs, computed here, if all members only embed."""
        if not self.embedding:
            return opened

        def judge(key: Key, given: Any, task: Task) -> Any:
            prepare, _ = self._solver(opened.problems, given, False)
            return jnp.zeros(()), {"task": prepare(task)}

        tasks = self._per_task(judge, count)(opened.given, opened.source, key)["task"]
        rows = [jax.tree.map(lambda leaf, row=row: leaf[row], tasks) for row in range(count)]
        return opened._replace(source=enumerated(rows))

    def _per_task(self, judge: Any, count: int) -> Any:
        at_once = tasks_at_once(self.loaded.experiment, self.loaded.tasks, self.test)
        evaluate = per_task(judge, count, tasks_at_once=at_once, mesh=self.mesh)
        return lambda given, source, key: evaluate(given, on_all_devices(source, self.mesh), key)

    def _acquire_with(
        self, problems: Sequence[Problem], given: Sequence[Given], sampled: bool, ahead: bool
    ) -> Callable[..., Callable[[Key, Task], Acquired]]:
        """`acquire_with(rule, record) -> acquire(key, task)`, for trained values in a program.

        `ahead`: the tasks have embeddings already.
        """
        prepare, solve = self._solver(problems, given, sampled)

        def acquire_with(rule: Rule, record: Callable[[View], PyTree] | None = None) -> Any:
            acquire = acquisition(
                solve,
                rule,
                problems[0].objective,
                ways=self.ways,
                **self.sizes._asdict(),
                record=record,
            )
            return lambda key, task: acquire(key, task if ahead else prepare(task))

        return acquire_with

    def _solver(
        self, problems: Sequence[Problem], given: Sequence[Given], sampled: bool
    ) -> tuple[Callable[[Any], Task], Solve]:
        """`prepare(task)`, whose inputs are those of all members, and `solve` on them."""
        samples = self.samples if sampled else 0
        parts = [
            _member_solver(recipe, problem, *values, samples)
            for recipe, problem, values in zip(self.recipes, problems, given)
        ]
        solves = [_of_member(number, solve) for number, (_, solve) in enumerate(parts)]

        def prepare(drawn: Any) -> Task:
            tasks: Sequence[Task] = drawn if len(parts) > 1 else (drawn,)
            padded = tasks[0].support._replace(mask=jnp.ones(tasks[0].support.targets.shape, bool))

            def embedded(batches: Sequence[Batch]) -> Batch:
                inputs = [embed(own.inputs) for (embed, _), own in zip(parts, batches)]
                return batches[0]._replace(inputs=(*inputs,))

            with unpadded(padded):  # statistics of several examples are refused
                return Task(
                    embedded([own.support for own in tasks]), embedded([own.query for own in tasks])
                )

        return prepare, solves[0] if len(solves) == 1 else committee(solves[0], solves[1:])


def _test_of(loaded: Loaded) -> HeldOut:
    """The main test of a run."""
    return next(iter(loaded.tasks.tests.values()))


def _of_all(sources: Sequence[Any]) -> Source:
    """The source itself; of several, a source of the tasks of each, which are the same tasks."""
    if len(sources) == 1:
        return sources[0]
    if isinstance(sources[0], TaskStream):
        prepares = [own.prepare for own in sources]
        return TaskStream(sources[0].tasks, jax.tree_util.Partial(_prepare_all, prepares))
    return sampler(_draw_all, *sources)


def _prepare_all(prepares: Sequence[Any], task: Task) -> tuple[Task, ...]:
    return tuple(prepare(task) for prepare in prepares)


def _draw_all(*sources_and_key: Any) -> tuple[Task, ...]:
    """The task of each source, all drawn with the same key."""
    *sources, key = sources_and_key
    return tuple(source(key) for source in sources)


def rule_of_policy(params: PyTree) -> Rule:
    """The learned rule with these parameters."""
    return learned(POLICY, params)


def _member_solver(
    recipe: Recipe, problem: Problem, trained: Trained, constants: PyTree, samples: int
) -> tuple[Callable[[PyTree], PyTree], Solve]:
    """`embed(inputs)`, once per task, and `solve` on its results; of one member.

    With samples, dropout may be anywhere in the network, so that nothing is embedded ahead.
    """
    problem = problem._replace(constants=constants)
    embed, points, params = _same, None, trained.meta_params
    if recipe.needs.embeds and not samples:
        encoder, weights = problem.encoder(), recipe.encoder_params(params)
        params = recipe.with_encoder(params, lambda own: {})
        embed, points = (lambda inputs: encoder.apply(weights, inputs)), _same
        problem = problem._replace(network=lambda constants, outputs: _IDENTITY)
    learner = recipe.build(problem)
    solve = from_learner(
        learner,
        params,
        probabilities=recipe.probabilities,
        embed=points,
        samples=samples,
        **shared_of(learner, trained),
    )
    return embed, solve


def _same(inputs: PyTree) -> PyTree:
    return inputs


def _of_member(number: int, solve: Solve) -> Solve:
    """`solve` on the inputs of one member."""

    def solve_own(key: Key, support: Batch, inputs: PyTree) -> Any:
        return solve(key, support._replace(inputs=support.inputs[number]), inputs[number])

    return solve_own


def _unchanged(
    params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
) -> PyTree:
    return inputs


_IDENTITY = Model(lambda key, inputs: {}, _unchanged)

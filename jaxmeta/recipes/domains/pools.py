"""Pools of examples: `python -m experiments.pools [LEARNER] --dataset NAME`.

A task is a few examples of one pool to learn from, and others of the same pool to predict: the
molecules of an assay, the ratings of a user, the rows of a table of your own. At test, all other
examples of a pool are its query.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, Task, cross_entropy, squared_error, valid_mask
from jaxmeta.data._whole_pools import WholePools, candidate_pools
from jaxmeta.data.identity import NOTHING
from jaxmeta.data.pool_sets import PoolSet, describe_pools, load_pools, unseen_pools
from jaxmeta.data.pool_sets.dataset import PLAIN
from jaxmeta.data.pool_sets.table import scaling_of, table_rows, targets_in
from jaxmeta.data.pools import identified
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.files import shown
from jaxmeta.models import mlp, pairwise
from jaxmeta.recipes import Domain, HeldOut, Needs, Preset, Problem, Tasks, Training, domain
from jaxmeta.recipes.base import Labelling, UserTask
from jaxmeta.recipes.pool_report import compared, comparison_lines, draw_comparison, judge_of
from jaxmeta.recipes.settings import AT_TEST, PLACE, Count, Natural, option
from jaxmeta.recipes.tasks import Figure

Targets = Literal["classification", "regression"]


@domain("pools", kind="classification", also=("regression",))
@dataclass(frozen=True)
class Pools(Domain):
    """Meta-train a learner on pools of examples and evaluate it on whole unseen pools."""

    dataset: Annotated[str, AT_TEST, PLACE] = "fsmol"
    """fsmol, ratings, movielens, these two with _new_films, metahin_user_cold, _item_cold and
    _user_item_cold, anomaly, volatility, or a table FILE (CSV or parquet) with columns for pool,
    target and features; or a FILE.npz of ADBench, or a folder of them."""
    fold: Natural = 0
    """Which fold of the sets of `anomaly` is tested, from 0 to 3."""
    pool_column: str = "pool"
    """Column of a FILE that names the pool."""
    target_column: str = "target"
    """Column of a FILE with the targets; all other columns are features."""
    targets: Targets | None = None
    """Kind of the targets of a FILE. Defaults to classification for whole numbers from 0 to at
    most 19."""
    support: tuple[int, int] | None = None
    """Smallest and largest number of support examples in training. Defaults to those of the data
    set."""
    queries: Count = 64
    """Largest number of query examples in training."""
    test_support: Annotated[tuple[int, ...] | None, AT_TEST] = None
    """Numbers of support examples at test. Defaults to those of the data set."""
    draws: Annotated[Count, AT_TEST] = 10
    """Draws of the support set from each test pool."""
    baseline_draws: Annotated[Natural, AT_TEST] = 10
    """Draws, at most --draws, on which the data set's baselines are evaluated; 0 for none."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the network's hidden layers."""
    embedding: Count = 128
    """Width of the network's output for learners that compare or combine features."""
    query_statistics: Literal["layer", "none"] = "layer"
    """Normalisation of the hidden layers: each example by itself, or none."""

    default_learner: ClassVar[str] = "prototypical"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 2000,
                "task_batch": 8,
                "outer_schedule": "cosine",
                "checkpoint_every": 200,
                "chunk": 10,
            },
        ),
    )

    def check(self) -> None:
        """Check the numbers of support examples, and the kind of the targets."""
        for name, sizes in (("support", self.support), ("test_support", self.test_support)):
            least = 1 if name == "support" else 0  # a test may be without examples to learn from
            if sizes is not None and (not sizes or min(sizes) < 0 or max(sizes) < least):
                raise ValueError(f"{option(name, sizes)}: give numbers from 1.")
        if self.support is not None and self.support[0] > self.support[1]:
            raise ValueError(f"{option('support', self.support)}: give the smaller number first.")
        if self.test_support is not None and len({*self.test_support}) < len(self.test_support):
            raise ValueError(f"{option('test_support', self.test_support)}: give each number once.")
        if self._given_kind():
            for name in ("pool_column", "target_column"):
                if (given := getattr(self, name)) != getattr(Pools, name):
                    raise ValueError(f"{option(name, given)} applies only to tables of your own.")
        folds = describe_pools(self.dataset).folds
        if self.fold >= folds:
            remedy = (
                f"{self.dataset} has {folds} folds; give a number below {folds}"
                if folds > 1
                else f"{self.dataset} has no folds; leave --fold out"
            )
            raise ValueError(f"{option('fold', self.fold)}: {remedy}.")

    def task_kind(self) -> str:
        return self.targets or self._given_kind() or self._load(0).kind

    def _given_kind(self) -> Targets | None:
        """The kind that the name of the data set tells; None for a file.

        Raises:
          ValueError: another one is asked for.
        """
        own = describe_pools(self.dataset).kind
        if own is not None and self.targets not in (None, own):
            raise ValueError(f"{option('targets', self.targets)}: {self.dataset} has {own} tasks.")
        return own

    def _load(self, seed: int, trained: Mapping[str, Any] = {}) -> PoolSet:
        given = {
            "pool_column": self.pool_column,
            "target_column": self.target_column,
            "kind": self.targets,
            "seed": seed,
            "scaling": scaling_of(trained),
        }
        if self._given_kind():
            given = {"fold": self.fold} if describe_pools(self.dataset).folds > 1 else {}
        return _loaded(self.dataset, *given.items())

    def label(self) -> str:
        return Path(self.dataset).stem

    def resolved(self) -> "Pools":
        own = describe_pools(self.dataset)
        return dataclasses.replace(
            self,
            targets=self.task_kind(),
            support=self.support or own.train_support,
            test_support=self.test_support or own.test_support,
        )

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        ways, outputs = data.get("ways", 2), data.get("outputs", 1)
        shape = tuple(data.get("input_shape", (4,)))
        _, most = self.support or (1, 1)

        def batch(examples: int) -> Batch:
            targets = jnp.zeros((examples,), jnp.int32) if ways else jnp.zeros((examples, outputs))
            return Batch(jnp.zeros((examples, *shape)), targets, valid_mask(None, examples))

        plain = self.query_statistics == "none"
        return Problem(
            kind="classification" if ways else "regression",
            train=train,
            example=Task(batch(most), batch(self.queries)),
            objective=cross_entropy if ways else squared_error,
            network=lambda constants, outputs: mlp(
                self.hidden, outputs or self.embedding, query_statistics=self.query_statistics
            ),
            outputs=ways or outputs,
            ways=ways,
            trained_ways=ways,
            support=most,
            steps=training.steps,
            comparison=lambda constants: (
                mlp(self.hidden, self.embedding, query_statistics=self.query_statistics),
                pairwise(mlp((self.embedding,), 1)),
            ),
            context_layer="hidden_0/bias" if plain else "norm_0/bias",
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        if needs.in_order:
            raise ValueError(
                "this learner reads the support as a sequence, in random order and of one length; "
                "pools have supports of several sizes. Choose a learner for sets."
            )
        dataset = self._load(training.seed, needs.trained)
        if needs.seen != NOTHING:
            dataset = unseen_pools(dataset, needs.seen)
        support = self.support
        assert support is not None and self.test_support is not None  # resolved
        drawn: dict[str, Any] = {"order": dataset.order, "queries": self.queries}
        # A query set has at least as many examples as there are classes.
        drawn |= {"support": support, "least_queries": min(self.queries, max(2, dataset.ways))}
        data = {
            "input_shape": _input_shape(dataset),
            "ways": dataset.ways,
            "outputs": 1 if dataset.ways else dataset.train.targets.shape[1],
            "columns": list(dataset.columns),
            "centre": list(dataset.centre),
            "scale": list(dataset.scale),
            "pools_sha256": dataset.sha256(),
        }
        identity = {"pools_sha256": data["pools_sha256"], "order": dataset.order}
        figure = Figure(dataset.figure, higher=dataset.higher)
        judge, most = judge_of(dataset), dataset.drawing.most(dataset.test)
        draws = 1 if dataset.order == "time" else self.draws  # there is one order
        wholes = {
            f"{size} examples": dataset.drawing.enumerate(
                dataset.test,
                support=size,
                draws=draws,
                order=dataset.order,
                seed=training.seed,
                most=training.eval_tasks,
            )
            for size in self.test_support
            if size <= most
        }
        # Of the sizes that a set suggests, those that are too large are left out.
        suggested = self.test_support == describe_pools(self.dataset).test_support
        if not wholes or (len(wholes) < len(self.test_support) and not suggested):
            raise ValueError(
                f"{option('test_support', self.test_support)}: the test pools allow at most "
                f"{most} support examples; give smaller numbers."
            )

        def held_out(whole: WholePools) -> HeldOut:
            own = {"support": whole.size, "draws": draws, "seed": training.seed}
            return HeldOut(
                whole.source,
                {**identity, **own},
                number=len(whole.pools),
                judge=functools.partial(judge, draws=True),
                at_once=1,
            )

        def validation() -> HeldOut:
            source = dataset.drawing.sample(dataset.validation, **drawn)
            return HeldOut(source, {**identity, "part": "validation"}, judge=judge)

        return Tasks(
            train=lambda: _prepared(dataset, dataset.drawing.sample(dataset.train, **drawn)),
            validation=validation,
            tests={name: held_out(whole) for name, whole in wholes.items()},
            figures=(figure,),
            selection=figure,
            title=f"{shown(Path(self.dataset).stem)} · {draws} {'draw' if draws == 1 else 'draws'}",
            summary={"dataset": dataset.name},
            protocol={
                **dataset.protocol,
                "train_support": list(support),
                "train_queries": self.queries,
                "draws": draws,
                "order": dataset.order,
                "query_statistics": self.query_statistics,
            },
            data=data,
            # Also since batched factorisations on several devices of a CPU may wait for each other
            # forever (jaxlib 0.10).
            at_once=1 if jax.default_backend() == "cpu" else None,
            classes=lambda part: identified(dataset.name, dataset.parts[part]),
            report=lambda made: compared(made, dataset, wholes, self.baseline_draws),
            draw=functools.partial(draw_comparison, figure=figure, dataset=dataset, wholes=wholes),
            extra_lines=functools.partial(comparison_lines, figure=figure),
        )

    def for_labelling(self, asked: Labelling) -> "Pools":
        if self.task_kind() != "classification":
            raise ValueError(
                f"active learning requires classes; {self.dataset} has targets that are numbers."
            )
        if asked.ways is not None:
            raise ValueError(f"--ways {asked.ways}: pools have the classes of their data set.")
        if asked.start < 1:
            raise ValueError(
                "--start 0: pools of examples require a label of each class at the start, at "
                "least --start 1."
            )
        assert self.test_support is not None  # resolved
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        own |= {"test_support": (min(self.test_support),), "draws": 1}  # of tests that are not used
        return _Candidates(**own, asked=asked)

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read two tables with the columns of training: with targets, and without."""
        scaling = scaling_of(data)
        if scaling is None:
            raise ValueError(
                f"predict does not support runs on {self.dataset}: its inputs have no "
                "columns that a table could give."
            )
        known, columns = table_rows(support, scaling)
        targets = targets_in(support, columns, self.target_column)
        ways = data["ways"]
        if ways and not np.isin(targets, np.arange(ways)).all():
            raise ValueError(f"{shown(support)}: give classes from 0 to {ways - 1} as targets")
        asked, _ = table_rows(query, scaling)
        return UserTask(
            support=Batch(
                known, targets.astype(np.int32) if ways else targets[:, None].astype(np.float32)
            ),
            inputs=asked,
            rows=[f"row {number}" for number in range(1, len(asked) + 1)],
            names=[*map(str, range(ways))],
            kind="row",
        )


@dataclass(frozen=True)
class _Candidates(Pools):
    """The same pools, with candidates for active learning as the support of the tests."""

    asked: Labelling = field(default_factory=Labelling)

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        dataset, tasks = self._load(training.seed), super().tasks(training, needs)
        if dataset.drawing is not PLAIN:
            raise ValueError(
                f"active learning does not support {self.dataset}: not all of its classes are "
                "known, and its tasks are drawn in a way of their own."
            )
        ways, asked = dataset.ways, self.asked
        sizes = {
            "candidates": ways * (asked.pool or 64),
            "queries": ways * (asked.queries or 64),
            "start": asked.start,
            "labels": asked.labels,
        }

        def objective(outputs: Array, targets: Array, mask: Array | None = None) -> Any:
            loss, found = cross_entropy(outputs, targets, mask)
            return loss, {**found, **dataset.metrics(outputs, Batch(None, targets, mask))}

        problem = self.problem(training, needs, tasks.data, train=False)
        problem = problem._replace(objective=objective)

        def held_out(part: str, draws: int) -> HeldOut:
            source, chosen = candidate_pools(
                getattr(dataset, part),
                ways=ways,
                **sizes,
                draws=draws,
                order=dataset.order,
                seed=training.seed,
            )
            identity = {**sizes, "pools_sha256": tasks.data["pools_sha256"], "part": part}
            return HeldOut(source, identity, problem, number=len(chosen))

        return tasks._replace(
            # There are few pools for the learned rule, so that it has several draws of each.
            validation=lambda: held_out("validation", 3),
            tests={"test": held_out("test", 1)},
            summary={**tasks.summary, "ways": ways, "shots": sizes["candidates"] // ways},
        )


def _input_shape(dataset: PoolSet) -> list[int]:
    """The shape of an example as learners are given it."""
    inputs, targets = dataset.train.inputs, dataset.train.targets
    if dataset.prepare is None:
        return list(np.shape(inputs)[1:])
    some = Batch(jnp.zeros((2, *np.shape(inputs)[1:])), jnp.zeros((2, *targets.shape[1:]), int))
    return list(jax.eval_shape(dataset.prepare, Task(some, some)).query.inputs.shape[1:])


def _prepared(dataset: PoolSet, sample: Sampler) -> Sampler:
    if dataset.prepare is None:
        return sample
    return sampler(_draw_prepared, sample, prepare=dataset.prepare)


def _draw_prepared(sample: Any, key: Key, *, prepare: Any) -> Task:
    return prepare(sample(key))


@functools.lru_cache(maxsize=1)  # read for the kind, the defaults and the tasks
def _loaded(name: str, *given: tuple[str, Any]) -> PoolSet:
    dataset = load_pools(name, **dict(given))
    # On the device once, and shared by all parts.
    moved: dict[int, Any] = {}

    def placed(leaf: Any) -> Any:
        return moved.setdefault(id(leaf), jnp.asarray(leaf))

    parts = {
        part: own._replace(inputs=jax.tree.map(placed, own.inputs))
        for part, own in {**dataset.parts, "whole": dataset.whole}.items()
        if own is not None
    }
    return dataset._replace(**parts)

"""Tables: `python -m experiments.tables [LEARNER]`.

Training tasks are tables that a prior draws; the tests are real tables that no training has seen,
each a task: some rows with their classes, and others to classify.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Task, cross_entropy, valid_mask
from jaxmeta.data._whole_pools import WholePools, whole_pools
from jaxmeta.data.labelled_tables import CLASSICAL, classes_of_cells, load_tables, tables_as_pools
from jaxmeta.data.pool_sets import PoolSet
from jaxmeta.data.pool_sets.baselines import table_baselines
from jaxmeta.data.pool_sets.table import numbers, read_columns
from jaxmeta.data.pools import select_pools
from jaxmeta.data.synthetic import synthetic_tables
from jaxmeta.files import shown
from jaxmeta.metrics import multiclass_auroc
from jaxmeta.objectives import masked_mean
from jaxmeta.recipes import Domain, HeldOut, Needs, Preset, Problem, Report, Tasks, Training, domain
from jaxmeta.recipes.base import UserTask
from jaxmeta.recipes.pool_report import (
    baseline_values,
    compared,
    comparison_lines,
    draw_comparison,
    judge_of,
)
from jaxmeta.recipes.rollouts import no_network
from jaxmeta.recipes.settings import AT_TEST, PLACE, AtLeastTwo, Count, Natural
from jaxmeta.recipes.tasks import LOSS, Figure

AUROC = Figure("auroc", label="AUROC", higher=True)


@domain("tables", kind="tables")
@dataclass(frozen=True)
class Tables(Domain):
    """Meta-train a learner on synthetic tables and evaluate it on real ones."""

    dataset: Annotated[str, AT_TEST, PLACE] = CLASSICAL
    """classical, or a FILE: .npz with X and y, CSV or parquet; or a folder of such files."""
    target_column: Annotated[str, AT_TEST] = "target"
    """Column of a CSV or parquet FILE with the classes; all others are features."""
    classes: AtLeastTwo = 10
    """Largest number of classes."""
    columns: AtLeastTwo = 16
    """Largest number of columns of a training table."""
    support: tuple[int, int] = (12, 128)
    """Smallest and largest number of support rows in training."""
    queries: Count = 32
    """Query rows of a training table."""
    test_columns: Annotated[Count, AT_TEST] = 60
    """Largest number of columns of a test table; others are left out."""
    test_support: Annotated[tuple[int, ...], AT_TEST] = (256,)
    """Numbers of support rows at test, at most half of a table."""
    test_rows: Annotated[AtLeastTwo, AT_TEST] = 1256
    """Largest number of rows of a test table; of larger ones, so many are drawn."""
    draws: Annotated[Count, AT_TEST] = 10
    """Draws of the support rows of each test table."""
    baseline_draws: Annotated[Natural, AT_TEST] = 10
    """Draws, at most --draws, on which the baselines of scikit-learn are evaluated; 0 for none."""

    default_learner: ClassVar[str] = "prior-fitted"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset(
            "default",
            {
                "steps": 7000,
                "task_batch": 8,
                "tasks_at_once": 1,  # faster on a CPU
                "outer_rate": 1e-3,
                "outer_schedule": "cosine",
                "clip_norm": 1.0,
                "validation_tasks": 200,
                "checkpoint_every": 250,
                "chunk": 10,
            },
        ),
    )

    def label(self) -> str:
        return f"{self.columns}-columns"

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        def batch(rows: int) -> Batch:
            inputs = jnp.zeros((rows, self.columns))
            return Batch(inputs, jnp.zeros((rows,), jnp.int32), valid_mask(None, rows))

        return Problem(
            kind=self.kind,
            train=train,
            example=Task(batch(self.support[1]), batch(self.queries)),
            objective=cross_entropy,
            network=no_network,
            outputs=self.classes,
            ways=self.classes,
            trained_ways=self.classes,
            support=self.support[1],
            steps=training.steps,
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        drawn = synthetic_tables(
            support=self.support,
            queries=self.queries,
            columns=self.columns,
            classes=self.classes,
        )
        prior = {"columns": self.columns, "classes": self.classes, "queries": self.queries}
        prior |= {"support": list(self.support)}
        tables = load_tables(self.dataset, target_column=self.target_column)
        pools, left_out = tables_as_pools(
            tables,
            columns=self.test_columns,
            classes=self.classes,
            rows=self.test_rows,
            seed=training.seed,
        )
        nothing = select_pools(pools, [])  # training and validation are synthetic
        dataset = PoolSet(
            self.dataset,
            "classification",
            nothing,
            nothing,
            pools,
            metrics=table_metrics,
            figure=AUROC.metric,
            ways=self.classes,
            baselines=table_baselines(self.classes),
        )
        judge = judge_of(dataset)
        wholes = {
            f"{size} rows": whole_pools(
                pools,
                support=size,
                draws=self.draws,
                order="stratified",
                seed=training.seed,
                most=training.eval_tasks,
                share=0.5,
            )
            for size in self.test_support
        }
        sha256 = dataset.sha256()

        def held_out(whole: WholePools) -> HeldOut:
            identity = {"tables_sha256": sha256, "support": whole.size, "draws": self.draws}
            return HeldOut(
                whole.source,
                {**identity, "seed": training.seed},
                number=len(whole.pools),
                judge=functools.partial(judge, draws=True),
                at_once=1,
            )

        def report(made: Report) -> dict[str, Any]:
            found = compared(made, dataset, wholes, self.baseline_draws)
            return {**found, **_by_table(made, dataset, wholes, self.baseline_draws)}

        return Tasks(
            train=lambda: drawn,
            validation=lambda: HeldOut(drawn, {**prior, "part": "validation"}),
            tests={name: held_out(whole) for name, whole in wholes.items()},
            figures=(AUROC,),
            selection=LOSS,
            title=f"{shown(Path(self.dataset).stem)} · {len(pools.names)} tables",
            summary={"dataset": self.dataset},
            protocol={
                "tables": list(pools.names),
                "left_out": left_out,
                "rows": self.test_rows,
                "draws": self.draws,
                "order": "stratified",
                "largest_share_of_support": 0.5,
                "training": {"tables": "synthetic", **prior},
            },
            report=report,
            draw=functools.partial(draw_comparison, figure=AUROC),
            extra_lines=functools.partial(comparison_lines, figure=AUROC),
        )

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read two tables: rows with their classes, and rows without."""
        columns = read_columns(support)
        if self.target_column not in columns:
            raise ValueError(
                f"{shown(support)} has no column {self.target_column!r} with the classes; its "
                f"columns are {', '.join(columns)}."
            )
        cells = columns.pop(self.target_column)
        classes = classes_of_cells(support, cells)
        _, first, targets = np.unique(classes, return_index=True, return_inverse=True)
        names = [cells[row].strip() for row in first]
        if len(names) > self.classes:
            raise ValueError(
                f"{shown(support)} has {len(names)} classes; the run supports {self.classes}."
            )
        asked = read_columns(query)
        if missing := [name for name in columns if name not in asked]:
            raise ValueError(f"{shown(query)} has no column {missing[0]!r} of the labelled rows.")
        inputs = numbers(query, {name: asked[name] for name in columns})
        return UserTask(
            support=Batch(numbers(support, columns).astype(np.float32), targets.astype(np.int32)),
            inputs=inputs.astype(np.float32),
            rows=[f"row {number}" for number in range(1, len(inputs) + 1)],
            names=names,
            kind="row",
        )

    def for_user_task(self, given: UserTask) -> "Tables":
        """A network for columns serves tables of any width."""
        return dataclasses.replace(self, columns=given.inputs.shape[1])


def table_metrics(outputs: Array, query: Batch) -> dict[str, Array]:
    """The metrics of logits `[rows, classes]`: `accuracy` and `auroc`, the mean over classes."""
    correct = (outputs.argmax(axis=1) == query.targets).astype(outputs.dtype)
    return {
        "accuracy": masked_mean(correct, query.mask),
        "auroc": multiclass_auroc(outputs, query.targets, query.mask),
    }


def _by_table(
    made: Report, dataset: PoolSet, wholes: Mapping[str, WholePools], draws: int
) -> dict[str, Any]:
    """The figure of each method for each table, its mean rank, and the time of one prediction.

    Rank 1 is the best; equal figures share the mean of their ranks. The time is that of learning
    from one support set and predicting the query, the median over tables, without compilation.
    """
    from scipy.stats import rankdata

    by_table, ranks, seconds = {}, {}, {}
    for test, whole in wholes.items():
        values = {made.recipe.name: np.asarray(made.values[test][AUROC.metric], np.float64)}
        for name, learn in dataset.baselines.items() if draws else ():
            found = baseline_values(dataset, whole, learn, name, draws)
            values[name] = found[AUROC.metric]
        by_table[test] = {
            dataset.test.names[pool]: {
                name: round(float(own[row]), 4) for name, own in values.items()
            }
            for row, pool in enumerate(whole.pools.tolist())
        }
        mean_ranks = rankdata(-np.stack([*values.values()]), axis=0).mean(axis=1)
        ranks[test] = dict(zip(values, mean_ranks.round(3).tolist()))
        seconds[test] = _seconds(made, test, dataset, whole, bool(draws))
    return {"by_table": by_table, "mean_rank": ranks, "seconds": seconds}


def _seconds(
    made: Report, test: str, dataset: PoolSet, whole: WholePools, baselines: bool
) -> dict[str, float]:
    learner, trained = made.learners[test], made.trained

    @jax.jit
    def predict(task: Task) -> Array:
        adapted = learner.adapt(made.key, trained.meta_params, task.support)
        return learner.predict(adapted, task.query.inputs)

    times: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> None:
        start = time.perf_counter()
        work()
        times.setdefault(name, []).append(time.perf_counter() - start)

    for stream in whole.source.streams:
        for index in range(len(stream.tasks)):
            task = stream.prepare(stream.tasks[index])
            task = jax.tree.map(lambda leaf: leaf[0], task)
            jax.block_until_ready(predict(task))
            timed(made.recipe.name, lambda task=task: jax.block_until_ready(predict(task)))
            support, query = jax.tree.map(np.asarray, task)
            known, asked = support.mask, query.mask
            rows = (support.inputs[known], support.targets[known], query.inputs[asked], 0)
            for name, learn in dataset.baselines.items() if baselines else ():
                timed(name, lambda learn=learn, rows=rows: learn(*rows))
    return {name: round(float(np.median(own)), 4) for name, own in times.items()}

"""A set of pools: its parts, what its targets are, its metrics and its baselines."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxmeta import metrics
from jaxmeta.core import Array, Batch, Task
from jaxmeta.data._whole_pools import WholePools, whole_pools
from jaxmeta.data.cache import digest
from jaxmeta.data.identity import Seen, names_seen
from jaxmeta.data.pools import Order, Pools, identified, pool_tasks, select_pools
from jaxmeta.data.samplers import Sampler
from jaxmeta.objectives import masked_mean

PARTS = ("train", "validation", "test")
Kind = Literal["classification", "regression"]
Metrics = Callable[[Array, Batch], Mapping[str, Array]]
"""`metrics(outputs, query) -> named scalars`, of one task.

`outputs` are logits `[examples, classes]`, or predicted numbers `[examples, Y]`.
"""
Baseline = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""`baseline(inputs, targets, asked, seed) -> outputs`, learned from one support set alone.

`inputs` and `asked` are those of support and query, `[examples, features]`; `outputs` as in
`Metrics`, for the query. The support set may be empty.
"""


class Drawing(NamedTuple):
    """How tasks are drawn from pools, and how whole pools are enumerated.

    Attributes:
      sample: as `pool_tasks`, with the arguments that it is given here.
      enumerate: as `whole_pools`, likewise.
      most: `most(pools) -> number`, the largest support of a whole pool.
    """

    sample: Callable[..., Sampler]
    enumerate: Callable[..., WholePools]
    most: Callable[[Pools], int]


PLAIN = Drawing(pool_tasks, whole_pools, lambda pools: int(pools.counts.max()) - 1)
Outputs = Mapping[str, Mapping[str, np.ndarray]]
"""Metrics of each whole pool by method and metric, float `[pools, ...]`."""


class PoolSet(NamedTuple):
    """A set of pools, split into three parts without common pools.

    Attributes:
      name: the name that was passed to `load_pools`.
      kind: classification, with class indices as targets; or regression, with numbers.
      train: pools for meta-training.
      validation: pools for the choice of checkpoints and settings.
      test: pools for the final evaluation.
      metrics: the metrics of one task.
      figure: the metric that is the main result.
      higher: whether a higher figure is better.
      order: how the examples of a task are drawn.
      drawing: how tasks are drawn, if not by `pool_tasks` and `whole_pools`.
      prepare: `prepare(task) -> task`, what learners are given in place of the drawn examples,
        which baselines have; pure.
      whole: all pools, if a run is tested on all those that it has not seen, and not on `test`
        alone; None otherwise.
      related: groups of names of pools with common examples: who has seen one has seen all.
      details: arrays of one test task that `further` needs, `[examples]`; they may need queries of
        one length.
      further: `further(whole, outputs) -> results`, of a test and the metrics of its pools by
        method; None if there are no further results.
      ways: number of classes; 0 for regression.
      baselines: methods that learn from one support set alone, by name.
      published: `published(size) -> {method: {pool: figure}}`, published figures of each test pool
        with `size` support examples.
      columns: the names of the input columns, where they have some.
      centre, scale: of each input column, `(value − centre) / scale` is the input; empty if inputs
        are as they are.
      protocol: the description of the data that is stored with every result, as JSON values.
      licence: of the data; None if unknown.
      source: where the data come from, a URL or a path; None if unknown.
    """

    name: str
    kind: Kind
    train: Pools
    validation: Pools
    test: Pools
    metrics: Metrics
    figure: str
    higher: bool = True
    order: Order = "random"
    drawing: Drawing = PLAIN
    prepare: Callable[[Task], Task] | None = None
    whole: Pools | None = None
    related: tuple[tuple[str, ...], ...] = ()
    details: Metrics | None = None
    further: Callable[[WholePools, Outputs], Mapping[str, Any]] | None = None
    ways: int = 0
    baselines: Mapping[str, Baseline] = {}
    published: Callable[[int], Mapping[str, Mapping[str, float]]] = lambda size: {}
    columns: tuple[str, ...] = ()
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    protocol: Mapping[str, Any] = {}
    licence: str | None = None
    source: str | None = None

    @property
    def parts(self) -> dict[str, Pools]:
        """The three parts by name."""
        return {part: getattr(self, part) for part in PARTS}

    def with_protocol(self) -> "PoolSet":
        """The set with the sizes of its parts in its protocol."""
        sizes = {
            "pools": {part: len(own.names) for part, own in self.parts.items()},
            "examples": {part: int(own.counts.sum()) for part, own in self.parts.items()},
        }
        return self._replace(protocol={"dataset": self.name, **sizes, **self.protocol})

    def sha256(self) -> str:
        """The digest of all inputs and targets."""
        arrays: dict[str, np.ndarray] = {}
        for part, own in self.parts.items():
            arrays |= {f"{part}/{name}": getattr(own, name) for name in ("rows", "targets")}
            arrays[f"{part}/counts"] = own.counts
            for number, leaf in enumerate(jax.tree.leaves(own.inputs)):
                if part == "train" or leaf is not jax.tree.leaves(self.train.inputs)[number]:
                    arrays[f"{part}/inputs {number}"] = np.asarray(leaf)
        return digest(arrays)


def unseen_pools(dataset: PoolSet, seen: Seen) -> PoolSet:
    """The set with a test part without the pools that a run was trained or validated on.

    The data of the run itself is unchanged, also if a set is divided by time or by films and a user
    is in several parts.

    See `jaxmeta.data.identity.names_seen` for how they are recognised.

    Raises:
      ValueError: the run has seen all test pools.
    """
    if seen.data and seen.data == dataset.sha256():
        return dataset
    tested = dataset.test if dataset.whole is None else dataset.whole
    known = {*names_seen(identified(dataset.name, tested), seen.classes)}
    seen_names = known.union(*(own.examples for own in seen.classes))
    for group in dataset.related:
        if not seen_names.isdisjoint(group):
            known |= {*group} & {*tested.names}
    free = [row for row, name in enumerate(tested.names) if name not in known]
    if [tested.names[row] for row in free] == [*dataset.test.names]:
        return dataset
    if not free:
        raise ValueError(
            f"{dataset.name}: the run was trained or validated on all of its test pools; give a "
            "set with other pools"
        )
    protocol = {
        **dataset.protocol,
        "split": f"test without the {len(known)} pools that were trained or validated on",
    }
    return dataset._replace(test=select_pools(tested, free), protocol=protocol)


def class_metrics(outputs: Array, query: Batch) -> dict[str, Array]:
    """The metrics of logits `[examples, classes]`: `accuracy`, and of two classes those of scores.

    These are `average_precision`, its gain over chance, `auroc` and `calibration_error`.

    >>> import jax.numpy as jnp
    >>> query = Batch(None, jnp.array([1, 0]))
    >>> found = class_metrics(jnp.array([[0.0, 1.0], [0.0, -1.0]]), query)
    >>> float(found["accuracy"]), float(found["average_precision_gain"])
    (1.0, 0.5)
    """
    _, targets, mask = query
    correct = (outputs.argmax(axis=1) == targets).astype(outputs.dtype)
    found = {"accuracy": masked_mean(correct, mask)}
    if outputs.shape[1] == 2:
        log_odds = outputs[:, 1] - outputs[:, 0]
        for name in ("average_precision", "average_precision_gain", "auroc"):
            found[name] = getattr(metrics, name)(log_odds, targets, mask)
        probabilities = jax.nn.sigmoid(log_odds)
        found["calibration_error"] = metrics.calibration_error(probabilities, targets, mask)
    return found


def number_metrics(outputs: Array, query: Batch) -> dict[str, Array]:
    """The metrics of predicted numbers `[examples, Y]`: `mae` and `rmse`, in the targets' unit.

    >>> import jax.numpy as jnp
    >>> float(number_metrics(jnp.ones((2, 1)), Batch(None, jnp.zeros((2, 1))))["mae"])
    1.0
    """
    return {
        "mae": metrics.mean_absolute_error(outputs, query.targets, query.mask),
        "rmse": metrics.root_mean_squared_error(outputs, query.targets, query.mask),
    }

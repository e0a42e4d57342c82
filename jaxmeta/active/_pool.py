"""Labels for a pool of examples, one after another, chosen by a rule."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxmeta.active._rules import Rule, View, highest
from jaxmeta.core import Array, Batch, Key, MetaLearner, Objective, PyTree, Task, unpadded
from jaxmeta.objectives import valid_mask
from jaxmeta.ops import varying_with


class Predictions(NamedTuple):
    """The predictions of a learner that has adapted to the labels so far.

    Attributes:
      outputs: the learner's outputs `[examples, ...]`, for the objective.
      probabilities_NW: its class probabilities, float `[examples, ways]`.
      points_ND: where distances between examples are measured, such as an embedding.
      members_MNW: class probabilities of the members of a committee, float `[M, examples, ways]`.
    """

    outputs: PyTree
    probabilities_NW: Array
    points_ND: Array
    members_MNW: Array


class Solve(Protocol):
    """`solve(key, support, inputs) -> Predictions`: adapts to the support, predicts the inputs.

    The support is a padded `Batch` with the labels so far, in the order in which they were given.
    """

    def __call__(self, key: Key, support: Batch, inputs: PyTree, /) -> Predictions: ...


class Acquired(NamedTuple):
    """The labels that were asked for, and what they were worth.

    Attributes:
      chosen_B: int32 `[budget]`, the examples of the pool in the order of their labels, without
        those of the start.
      loss: float `[budget + 1]`, of the query after 0, 1, ..., `budget` labels beyond the start.
      metrics: the objective's metrics, `[budget + 1]` each; with two classes also `class_1_found`,
        the fraction of the pool's examples of class 1 that have a label.
      recorded: what `record` returned for each choice, `[budget, ...]`.
    """

    chosen_B: Array
    loss: Array
    metrics: Mapping[str, Array]
    recorded: PyTree


def acquisition(
    solve: Solve,
    rule: Rule,
    objective: Objective,
    *,
    ways: int,
    budget: int,
    start: int = 0,
    record: Callable[[View], PyTree] | None = None,
) -> Callable[[Key, Task], Acquired]:
    """`acquire(key, task)`: asks for labels of a pool one by one, and follows the query loss.

        S_0 = `start` random examples of each class
        n_t = argmax_n rule(view of the pool after S_t)_n,  S_{t+1} = S_t ∪ {n_t}
        loss_t = objective(predict(adapt(S_t), query.inputs), query.targets)

    The task's support is the pool: its targets are the labels that are shown when asked for, its
    mask marks the valid examples. The learner sees a support set of one shape, with a mask for the
    labels to come, so its network must not normalise by statistics of several examples.

    With `start=0` the first label is chosen without any. Before each class has a label, a learner
    can't know of the others. The probabilities of a `View` are therefore restricted to classes with
    a label; with a single one, entropy and margin are the same for all examples, and the choice is
    random.

    Args:
      solve: adapts and predicts, see `from_learner`.
      rule: scores the examples; ties are broken at random.
      objective: of the outputs and the targets of the query.
      ways: classes of a task.
      budget: B, labels beyond the start.
      start: labels per class before the first choice. Every class needs as many examples.
      record: what to keep of the view of each choice. Defaults to nothing.

    Raises:
      ValueError: fewer than 1 label, a negative start, a pool with fewer examples than labels; the
        network normalises by statistics of several examples.

    >>> import jaxmeta
    >>> from jaxmeta.active._rules import k_centre
    >>> identity = jaxmeta.Model(lambda key, x: {}, lambda params, x, reference=None, key=None: x)
    >>> learner = jaxmeta.prototypical(identity, jaxmeta.cross_entropy, ways=2)
    >>> solve = from_learner(learner, {"encoder": {}}, embed=lambda inputs: inputs)
    >>> pool = Batch(jnp.array([[0.0], [1.0], [8.0]]), jnp.array([0, 0, 1]))
    >>> query = Batch(jnp.array([[0.5], [9.0]]), jnp.array([0, 1]))
    >>> acquire = acquisition(solve, k_centre, jaxmeta.cross_entropy, ways=2, budget=2)
    >>> acquired = acquire(jax.random.key(0), Task(pool, query))
    >>> acquired.chosen_B.tolist(), acquired.metrics["accuracy"].tolist()
    ([1, 2], [0.5, 0.5, 1.0])
    """
    if budget < 1 or start < 0:
        raise ValueError(
            f"acquisition: {budget} labels, {start} per class at the start; give at least 1 label, "
            "and no negative number."
        )
    capacity = start * ways + budget

    def acquire(key: Key, task: Task) -> Acquired:
        with unpadded(task.support, task.query) as (pool, query):
            return _acquire(key, pool, query)

    def _acquire(key: Key, pool: Batch, query: Batch) -> Acquired:
        size = len(pool.targets)
        if size < capacity:
            raise ValueError(
                f"acquisition: a pool of {size} examples is too small for {capacity} labels "
                f"({start} per class at the start, then {budget}); give a larger pool, or fewer "
                "labels."
            )
        start_key, steps_key = jax.random.split(key)
        valid_N = valid_mask(pool.mask, size)
        first = first_labels(start_key, pool, ways, start)
        order = jnp.zeros((capacity,), jnp.int32).at[: start * ways].set(first)
        inputs = jax.tree.map(lambda *two: jnp.concatenate(two), pool.inputs, query.inputs)

        def step(carry: tuple[Array, Array], given: tuple[Key, Array]) -> tuple[Any, Any]:
            order, labelled_N = carry
            key, number = given
            adapt_key, rule_key, tie_key = jax.random.split(key, 3)
            count = start * ways + number
            shown = jax.tree.map(lambda leaf: leaf[order], pool.inputs)
            support = Batch(shown, pool.targets[order], jnp.arange(capacity) < count)
            found = solve(adapt_key, support, inputs)
            outputs = jax.tree.map(lambda leaf: leaf[size:], found.outputs)
            loss, metrics = objective(outputs, query.targets, query.mask)
            if ways == 2:
                found_N = (pool.targets == 1) & valid_N
                part = (found_N & labelled_N).sum() / jnp.maximum(found_N.sum(), 1)
                metrics = {**metrics, "class_1_found": part}
            classes_NW = jax.nn.one_hot(pool.targets, ways, dtype=bool)
            known_W = (classes_NW & labelled_N[:, None]).any(axis=0)
            view = View(
                among(found.probabilities_NW[:size], known_W),
                among(found.members_MNW[:, :size], known_W),
                found.points_ND[:size],
                labelled_N,
                valid_N & ~labelled_N,
                known_W,
                (number / budget).astype(found.probabilities_NW.dtype),
            )
            choice = highest(tie_key, rule(rule_key, view), view.candidates_N)
            # After the last label there is no place for another one, and the choice is dropped.
            order = order.at[count].set(choice, mode="drop")
            kept = () if record is None else record(view)
            return (order, labelled_N.at[choice].set(True)), (choice, loss, metrics, kept)

        labelled_N = jnp.zeros((size,), bool).at[first].set(True)
        carry = varying_with((order, labelled_N), (key, pool, query))
        numbers = jnp.arange(budget + 1)
        keys = jax.random.split(steps_key, budget + 1)
        _, (chosen, loss, metrics, kept) = jax.lax.scan(step, carry, (keys, numbers))
        return Acquired(chosen[:-1], loss, metrics, jax.tree.map(lambda leaf: leaf[:-1], kept))

    return acquire


def among(probabilities: Array, known_W: Array) -> Array:
    """Probabilities `[..., ways]` among known classes; unchanged if none is known.

    >>> among(jnp.array([[0.2, 0.2, 0.6]]), jnp.array([True, True, False])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    shape = (1,) * (probabilities.ndim - 1) + known_W.shape
    kept = jnp.where(known_W.reshape(shape) | ~known_W.any(), probabilities, 0)
    total = kept.sum(axis=-1, keepdims=True)
    # Where all known classes have probability 0, they are equally likely.
    even = known_W.astype(kept.dtype) / jnp.maximum(known_W.sum(), 1).astype(kept.dtype)
    return jnp.where(total > 0, kept / jnp.where(total > 0, total, 1), even.reshape(shape))


def first_labels(key: Key, pool: Batch, ways: int, count: int) -> Array:
    """`count` random examples of each class, int32 `[ways * count]`, sorted by class.

    >>> pool = Batch(jnp.zeros((3, 1)), jnp.array([1, 0, 0]), jnp.array([True, True, False]))
    >>> first_labels(jax.random.key(0), pool, ways=2, count=1).tolist()
    [1, 0]
    """
    draws_N = jax.random.uniform(key, pool.targets.shape)
    valid_N = valid_mask(pool.mask, len(pool.targets))

    def of_class(number: Array) -> Array:
        draws = jnp.where(valid_N & (pool.targets == number), draws_N, -1)
        return jax.lax.top_k(draws, count)[1]

    return jax.vmap(of_class)(jnp.arange(ways)).ravel().astype(jnp.int32)


def area_under(values: Array) -> Array:
    """The mean height of a curve `[..., points]` with equal steps, by the trapezoidal rule.

    Of accuracies it is the area under accuracy over labels, divided by the number of labels.

    >>> float(area_under(jnp.array([0.0, 1.0, 1.0])))
    0.75
    """
    return (values[..., :-1] + values[..., 1:]).mean(axis=-1) / 2


def from_learner(
    learner: MetaLearner,
    meta_params: PyTree,
    *,
    probabilities: Callable[[PyTree], Array] = jax.nn.softmax,
    embed: Callable[[PyTree], Array] | None = None,
    samples: int = 0,
    **shared: PyTree,
) -> Solve:
    """`solve(key, support, inputs)` for `acquisition`, from a trained learner.

    Args:
      learner, meta_params: the trained learner.
      probabilities: class probabilities `[examples, ways]` from the outputs of `predict`.
      embed: `embed(inputs) -> points`, `[examples, ...]`, where distances are measured. Defaults to
        the class probabilities.
      samples: members of a committee: predictions with different keys, for a learner whose
        `predict` is stochastic (dropout). Defaults to none.
      shared: the keyword `shared`, for learners that have shared values.

    See `acquisition`, and `committee` for several learners.

    >>> import jaxmeta
    >>> run = jaxmeta.pretrained("maml-glyphs")
    >>> solve = from_learner(run.learner, run.meta_params)
    """

    def solve(key: Key, support: Batch, inputs: PyTree) -> Predictions:
        adapt_key, sample_key = jax.random.split(key)
        adapted = learner.adapt(adapt_key, meta_params, support, **shared)
        outputs = learner.predict(adapted, inputs)
        own_NW = probabilities(outputs)
        points = own_NW if embed is None else embed(inputs)
        members = jnp.zeros((0, *own_NW.shape), own_NW.dtype)
        if samples:
            draw = lambda key: probabilities(learner.predict(adapted, inputs, key=key))  # noqa: E731
            members = jax.vmap(draw)(jax.random.split(sample_key, samples))
        return Predictions(outputs, own_NW, points.reshape(len(points), -1), members)

    return solve


def committee(solve: Solve, others: Sequence[Solve]) -> Solve:
    """The predictions of `solve`, with a committee of it and of other learners.

    They may have other seeds or checkpoints, or be learners of another kind.

    >>> import jaxmeta
    >>> run = jaxmeta.pretrained("maml-glyphs")
    >>> solve = from_learner(run.learner, run.meta_params)
    >>> both = committee(solve, [solve])
    """

    def solve_with_all(key: Key, support: Batch, inputs: PyTree) -> Predictions:
        own = solve(key, support, inputs)
        found = [other(key, support, inputs).probabilities_NW for other in others]
        return own._replace(members_MNW=jnp.stack([own.probabilities_NW, *found]))

    return solve_with_all

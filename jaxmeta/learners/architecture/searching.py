"""Searches that propose one architecture after the other, as learners."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.architecture import SearchSpace
from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, PyTree, Task
from jaxmeta.learners.architecture.alternating import Alternating

_TRIES = 100  # proposals of architectures that are known already


class Search(NamedTuple):
    """A method that proposes architectures and learns from their accuracies.

    Attributes:
      init: `init(key) -> state`.
      propose: `propose(key, state, history) -> architecture`.
      learn: `learn(key, state, history) -> state`, after the newest entry of the history.
      metrics: `metrics(history) -> named scalars` to be logged, such as ε.
    """

    init: Callable[[Key], PyTree]
    propose: Callable[[Key, PyTree, "History"], Array]
    learn: Callable[[Key, PyTree, "History"], PyTree]
    metrics: Callable[["History"], dict[str, Array]] = lambda history: {}


class History(NamedTuple):
    """The architectures that a search has seen.

    Attributes:
      architectures: int32 `[budget, decisions]`, in order; −1 for those to come.
      accuracies: float `[budget]`; 0 for those to come.
      seen: int32 scalar, their number.
    """

    architectures: Array
    accuracies: Array
    seen: Array

    @property
    def best(self) -> Array:
        """The architecture with the largest accuracy so far, the first of several."""
        return self.architectures[self._known.argmax()]

    @property
    def best_accuracy(self) -> Array:
        """The largest accuracy so far; 0 before there is any."""
        return jnp.where(self.seen > 0, self._known.max(), 0)

    @property
    def _known(self) -> Array:
        known = jnp.arange(len(self.accuracies)) < self.seen
        return jnp.where(known, self.accuracies, -jnp.inf)


class Searching(NamedTuple):
    """The shared values of a search.

    Attributes:
      history: the architectures seen.
      state: the state of the method.
    """

    history: History
    state: PyTree


def architecture_search(search: Search, space: SearchSpace, budget: int) -> MetaLearner:
    """A search as a learner: every update sees one more architecture.

    It has no meta-parameters: what it knows is `carry.shared`. Train it with
    `jaxmeta.training.alternating_update`; its metrics are those before the update. Proposals that
    were seen before are drawn again, up to 100 times, so that an update evaluates a new
    architecture; where no new one is found, the last proposal is evaluated again. After `budget`
    updates nothing changes. An accuracy that is NaN counts as 0.

    Args:
      search: the method.
      space: the architectures and their accuracies.
      budget: the largest number of architectures.

    `derive` and `adapt` give the best architecture so far; `predict` repeats it. The loss is minus
    its accuracy.

    Raises:
      ValueError: a budget below 1; `space.allowed` has another shape than
        `[options + 1, options]`, or a row without any option.

    >>> from jaxmeta.learners import random_search
    >>> accuracy = lambda key, architecture, task: architecture.mean() / 2
    >>> space = SearchSpace(3, ("a", "b", "c"), jnp.ones((4, 3), bool), accuracy)
    >>> learner = random_search(space, budget=10)
    >>> shared = learner.shared(jax.random.key(0), (), Task((), ()))
    >>> carry = Carry(jnp.array(0), shared)
    >>> _, _, carry = learner.grad(jax.random.key(1), (), Task((), ()), carry)
    >>> int(carry.shared.history.seen)
    1
    """
    if budget < 1:
        raise ValueError(f"architecture search: a budget of {budget}; give at least 1.")
    options = len(space.options)
    allowed = np.asarray(space.allowed)
    if allowed.shape != (options + 1, options) or not allowed.any(axis=1).all():
        raise ValueError(
            f"architecture search: allowed has the shape {allowed.shape}; give "
            f"{(options + 1, options)} with at least one allowed option in every row."
        )

    def shared(key: Key, meta_params: PyTree, task: Task) -> Searching:
        architectures = jnp.full((budget, space.decisions), -1, jnp.int32)
        history = History(architectures, jnp.zeros((budget,)), jnp.zeros((), jnp.int32))
        return Searching(history, search.init(key))

    def new_architecture(key: Key, history: History, state: PyTree) -> Array:
        def is_known(architecture: Array) -> Array:
            return (history.architectures == architecture[None]).all(axis=1).any()

        def again(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            tries, _ = carry
            return tries + 1, search.propose(jax.random.fold_in(key, tries), state, history)

        first = again((jnp.zeros((), jnp.int32), history.architectures[0]))
        go_on = lambda carry: is_known(carry[1]) & (carry[0] < _TRIES)  # noqa: E731
        return jax.lax.while_loop(go_on, again, first)[1]

    def follow(key: Key, meta_params: PyTree, task: Task, carry: Carry) -> Searching:
        within = carry.shared.history.seen < budget
        evaluate = lambda: evaluated(key, task, carry.shared)  # noqa: E731
        return jax.lax.cond(within, evaluate, lambda: carry.shared)

    def evaluated(key: Key, task: Task, shared: Searching) -> Searching:
        history, state = shared
        propose_key, train_key, learn_key = jax.random.split(key, 3)
        architecture = new_architecture(propose_key, history, state)
        accuracy = jnp.nan_to_num(space.accuracy(train_key, architecture, task), nan=0.0)
        history = History(
            history.architectures.at[history.seen].set(architecture),
            history.accuracies.at[history.seen].set(accuracy),
            history.seen + 1,
        )
        return Searching(history, search.learn(learn_key, state, history))

    def info(shared: Searching) -> Info:
        history = shared.history
        best = history.best_accuracy
        newest = history.accuracies[jnp.maximum(history.seen - 1, 0)]
        own = search.metrics(history)
        return Info(-best, {"accuracy": best, "newest_accuracy": newest, **own})

    def gradient(key: Key, meta_params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info]:
        return meta_params, info(carry.shared)

    def adapt(key: Key, meta_params: PyTree, support: PyTree, *, shared: Searching) -> Array:
        return shared.history.best

    def predict(adapted: Array, inputs: PyTree, *, key: Key | None = None) -> Array:
        return adapted

    def loss(key: Key, meta_params: PyTree, task: Task, *, shared: Searching) -> tuple[Array, Info]:
        found = info(shared)
        return found.loss, found

    # The shared state is a keyword argument beyond the protocols' signatures.
    return MetaLearner(
        lambda key, task: (),
        adapt,  # pyright: ignore[reportArgumentType]
        predict,
        loss,  # pyright: ignore[reportArgumentType]
        Alternating(gradient, follow),
        shared=shared,
        derive=lambda meta_params, shared: shared.history.best,
    )


def random_architecture(key: Key, space: SearchSpace) -> Array:
    """An architecture whose decisions are drawn uniformly from the allowed options.

    >>> space = SearchSpace(4, ("a", "b"), jnp.ones((3, 2), bool), lambda *_: jnp.zeros(()))
    >>> random_architecture(jax.random.key(0), space).shape
    (4,)
    """

    def decide(before: Array, key: Key) -> tuple[Array, Array]:
        logits = jnp.where(jnp.asarray(space.allowed)[before], 0.0, -jnp.inf)
        option = jax.random.categorical(key, logits).astype(jnp.int32)
        return option, option

    start = jnp.array(len(space.options), jnp.int32)
    return jax.lax.scan(decide, start, jax.random.split(key, space.decisions))[1]

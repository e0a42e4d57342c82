"""The vocabulary of control: spaces and environments as pure functions of one task."""

from typing import NamedTuple, Protocol

from jaxmeta.core import Array, Key, PyTree


class Space(NamedTuple):
    """The space of observations or actions.

    Attributes:
      shape: the shape of one element; `()` for a choice.
      choices: number of choices, for integers from 0; 0 for real numbers.
      largest: the largest magnitude of real actions; larger ones are clipped by the environment.
    """

    shape: tuple[int, ...] = ()
    choices: int = 0
    largest: float = 1.0


class Transition(NamedTuple):
    """The result of a step.

    Attributes:
      state: PyTree, the next state.
      observation: the next observation.
      reward: float scalar.
      done: bool scalar, whether the episode has ended.
    """

    state: PyTree
    observation: Array
    reward: Array
    done: Array


class Reset(Protocol):
    """`reset(key, task) -> (state, observation)`, the start of an episode."""

    def __call__(self, key: Key, task: PyTree, /) -> tuple[PyTree, Array]: ...


class Step(Protocol):
    """`step(key, state, action, task) -> Transition`."""

    def __call__(self, key: Key, state: PyTree, action: Array, task: PyTree, /) -> Transition: ...


class SampleTask(Protocol):
    """`sample_task(key) -> task`, a PyTree of arrays: a goal, masses, probabilities, ..."""

    def __call__(self, key: Key, /) -> PyTree: ...


class Optimum(Protocol):
    """`optimum(task) -> float scalar`, the largest expected return of an episode."""

    def __call__(self, task: PyTree, /) -> Array: ...


class Environment(NamedTuple):
    """A family of Markov decision processes, one for each task, as pure functions.

    Attributes:
      reset: `reset(key, task) -> (state, observation)`, see `Reset`.
      step: `step(key, state, action, task) -> Transition`, see `Step`.
      sample_task: `sample_task(key) -> task`, see `SampleTask`.
      observations: the space of observations.
      actions: the space of actions.
      horizon: the largest number of steps of an episode.
      optimum: None, or `optimum(task)`, the largest expected return, see `Optimum`.

    Map over tasks and episodes with `vmap`. An environment need not end an episode at its horizon;
    who gathers the episode does.
    """

    reset: Reset
    step: Step
    sample_task: SampleTask
    observations: Space
    actions: Space
    horizon: int
    optimum: Optimum | None = None


def check_horizon(name: str, horizon: int) -> None:
    """Raises `ValueError` if the horizon is below 1."""
    if horizon < 1:
        raise ValueError(f"{name}: horizon {horizon}; give at least 1 step.")

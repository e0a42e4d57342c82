"""Meta-updates of policies: several evaluations of a surrogate on experience gathered once."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, PyTree
from jaxmeta.inner import conjugate_gradients
from jaxmeta.training.state import Sample, TrainState, task_keys
from jaxmeta.training.task_mean import mean_over_batch
from jaxmeta.training.update import MetaUpdate, meta_update

_REACH = 1e-2  # norm of the steps of central differences, in the units of the meta-parameters


def proximal_update(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    *,
    task_batch: int,
    epochs: int = 5,
    minibatches: int = 1,
    tasks_at_once: int | None = None,
    mesh: Mesh | None = None,
) -> MetaUpdate:
    """Several steps of an optimizer on the experience of one batch of tasks, as in PPO and ProMP.

        experience_t = gather(φ_0; task_t)
        φ_{i+1} = optimizer(φ_i, mean_t ∇ surrogate(φ_i; experience_t)),  i = 0, ..., epochs · M − 1

    over all T tasks, or with M minibatches over T / M of them in turn.

    Args:
      learner: its `grad` is a `PolicyGradient`, with a surrogate that limits the change of the
        policy, such as `clipped`.
      optimizer: any optax transformation.
      epochs: number of passes over the tasks.
      minibatches: M, the number of steps per pass.
      tasks_at_once: tasks whose surrogates are differentiated together. Defaults to 1 on several
        CPU devices, so that a task's arrays stay in the cache, otherwise to all of a device. All
        gather experience together.
      task_batch, mesh: as in `meta_update`.

    Raises:
      ValueError: as `meta_update`; fewer than 1 epoch; `minibatches` that do not divide the tasks.
      TypeError: the learner gathers no experience.

    Source: Schulman et al. 2017, "Proximal policy optimization algorithms", Algorithm 1.

        init, update = proximal_update(learner, optax.adam(1e-3), task_batch=40)
    """
    if epochs < 1:
        raise ValueError(f"proximal_update: {epochs} epochs; give at least 1.")
    if minibatches < 1 or task_batch % minibatches:
        raise ValueError(
            f"proximal_update: {minibatches} minibatches of {task_batch} tasks; give a number that "
            "divides the tasks."
        )
    batch = _batch_of(learner, task_batch, tasks_at_once, mesh)
    few = task_batch // minibatches
    part = _batch_of(learner, few, tasks_at_once and math.gcd(tasks_at_once, few), mesh)
    start = meta_update(learner, optimizer, task_batch=task_batch)

    def update(state: TrainState, sample: Sample, given: PyTree = None) -> tuple[TrainState, Info]:
        experience, info = batch.gather(state, sample, given)
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(minibatches, few, *leaf.shape[1:]), experience
        )
        grad: Any = jax.grad(learner.grad.surrogate)  # pyright: ignore

        def step(carry: tuple[PyTree, PyTree], own: PyTree) -> tuple[tuple[PyTree, PyTree], None]:
            meta_params, optimizer_state = carry
            slope = part.mean(state, own, grad)(meta_params)
            updates, optimizer_state = optimizer.update(slope, optimizer_state, meta_params)
            return (optax.apply_updates(meta_params, updates), optimizer_state), None

        def epoch(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
            return jax.lax.scan(step, carry, parts)[0], None

        begin = (state.meta_params, state.optimizer_state)
        (meta_params, optimizer_state), _ = jax.lax.scan(epoch, begin, length=epochs)
        after = state._replace(
            step=state.step + 1, meta_params=meta_params, optimizer_state=optimizer_state
        )
        return after, info

    return MetaUpdate(start.init, update)


def trust_region_update(
    learner: MetaLearner,
    *,
    task_batch: int,
    largest: float = 0.01,
    solver_steps: int = 10,
    damping: float = 1e-5,
    backtracks: int = 15,
    backtrack: float = 0.8,
    curvature_tasks: int | None = None,
    tasks_at_once: int | None = None,
    mesh: Mesh | None = None,
) -> MetaUpdate:
    """Trust-region policy optimization of the meta-parameters.

        minimise surrogate(φ) with KL(φ_old ‖ φ) ≤ δ:
        x ≈ (H + damping)⁻¹ ∇ surrogate(φ_old),  H = ∇² KL at φ_old, by conjugate gradients
        φ = φ_old − b^j √(2δ / xᵀHx) x,  j the first of 0, 1, ... with a smaller surrogate and
        KL ≤ δ; if there is none, φ = φ_old

    Surrogate and KL are means over the tasks, of adapted policies; both are differentiated through
    the adaptation. H v is the central difference of ∇KL along v. No optimizer takes part.

    Args:
      learner: its `grad` is a `PolicyGradient`.
      largest: δ, in nats.
      solver_steps: conjugate-gradient steps.
      damping: added to H.
      backtracks: the largest number of tried step sizes.
      backtrack: b, the factor between them.
      curvature_tasks: number of tasks that H is the mean over, which takes most of the time.
        Defaults to all.
      tasks_at_once: as in `proximal_update`.
      task_batch, mesh: as in `meta_update`.

    `info` also has the KL divergence of the step and the factor b^j, 0 without a step.

    Raises:
      ValueError: as `meta_update`; a number that is not positive; `backtrack` not below 1; more
        `curvature_tasks` than tasks; a learner whose surrogate also fits values, such as RL².
      TypeError: the learner gathers no experience.

    Source: Schulman, Levine, Moritz, Jordan, Abbeel 2015, "Trust region policy optimization",
    appendix C, which also computes H from a part of the data; for MAML, Finn, Abbeel, Levine 2017,
    section 4.2, and Rothfuss et al. 2019, whose published code also has central differences.

        init, update = trust_region_update(learner, task_batch=20)
    """
    if min(largest, solver_steps, damping, backtracks, backtrack) <= 0 or backtrack >= 1:
        raise ValueError(
            f"trust_region_update: largest {largest}, solver_steps {solver_steps}, damping "
            f"{damping}, backtracks {backtracks}, backtrack {backtrack}; give positive numbers, "
            "and a backtrack below 1."
        )
    if getattr(learner.grad, "fits_values", False):
        raise ValueError(
            "trust_region_update: the surrogate of this learner also fits values, which a trust "
            "region does not limit; train it with proximal_update or meta_update."
        )
    batch = _batch_of(learner, task_batch, tasks_at_once, mesh)
    start = meta_update(learner, optax.identity(), task_batch=task_batch)
    few = task_batch if curvature_tasks is None else curvature_tasks
    if not 1 <= few <= task_batch:
        raise ValueError(f"trust_region_update: curvature_tasks {few}; give 1 to {task_batch}.")
    curved = _batch_of(learner, few, tasks_at_once and math.gcd(tasks_at_once, few), mesh)
    solve = conjugate_gradients(solver_steps)

    def update(state: TrainState, sample: Sample, given: PyTree = None) -> tuple[TrainState, Info]:
        experience, info = batch.gather(state, sample, given)
        own: Any = learner.grad
        old = state.meta_params

        def both(meta_params: PyTree, experience: PyTree) -> tuple[Array, Array]:
            return own.surrogate(meta_params, experience), own.divergence(meta_params, experience)

        values = batch.mean(state, experience, both)
        of_surrogate = batch.mean(state, experience, jax.value_and_grad(own.surrogate))
        before, gradient = of_surrogate(old)
        part = jax.tree.map(lambda leaf: leaf[:few], experience)
        slope = curved.mean(state, part, jax.grad(own.divergence))

        def damped(along: PyTree) -> PyTree:
            # By central differences: no way to differentiate through the adaptation, not even one
            # with rules of its own, is differentiated a second time.
            reach = _REACH / jnp.maximum(optax.tree.norm(along), 1e-30)
            slopes = jax.lax.map(  # one program for both sides
                lambda by: slope(jax.tree.map(lambda p, v: p + by * v, old, along)),
                jnp.stack([reach, -reach]),
            )
            return jax.tree.map(
                lambda both, v: (both[0] - both[1]) / (2 * reach) + damping * v, slopes, along
            )

        direction = solve(damped, gradient)
        # Conjugate gradients leave a residual orthogonal to x, so that xᵀHx = xᵀg.
        curvature = optax.tree.vdot(direction, gradient)
        length = jnp.sqrt(2 * largest / jnp.maximum(curvature, 1e-12))

        def moved(factor: Array) -> PyTree:
            return jax.tree.map(lambda p, d: p - factor * length * d, old, direction)

        class Search(NamedTuple):
            tried: Array
            accepted: Array
            factor: Array
            divergence: Array

        def attempt(search: Search) -> Search:
            factor = jnp.asarray(backtrack, length.dtype) ** search.tried
            value, divergence = values(moved(factor))
            accepted = (value < before) & (divergence <= largest)
            return Search(search.tried + 1, accepted, factor, divergence)

        search = jax.lax.while_loop(
            lambda search: ~search.accepted & (search.tried < backtracks),
            attempt,
            Search(jnp.zeros((), jnp.int32), jnp.zeros((), bool), *jnp.zeros((2,), length.dtype)),
        )
        factor = jnp.where(search.accepted, search.factor, 0)
        divergence = jnp.where(search.accepted, search.divergence, 0)
        metrics = {**info.metrics, "divergence": divergence, "step_factor": factor}
        # Chosen, not multiplied by 0: a direction that is not finite changes nothing either.
        meta_params = jax.tree.map(
            lambda p, new: jnp.where(search.accepted, new, p), old, moved(search.factor)
        )
        after = state._replace(step=state.step + 1, meta_params=meta_params)
        return after, Info(info.loss, metrics)

    return MetaUpdate(start.init, update)


class _Batch(NamedTuple):
    """The tasks of a meta-update, over all devices.

    Attributes:
      gather: `gather(state, sample, given) -> (experience, info)`, with a leading task axis, and
        the mean.
      mean: `mean(state, experience, function)(point)`, the mean of `function(point, experience_t)`.
    """

    gather: Callable[..., tuple[PyTree, Info]]
    mean: Callable[..., Callable[[PyTree], Any]]


def _batch_of(
    learner: MetaLearner, task_batch: int, tasks_at_once: int | None, mesh: Mesh | None
) -> _Batch:
    own: Any = learner.grad
    if not hasattr(own, "gather"):
        raise TypeError(
            "this learner gathers no experience: its grad is not a PolicyGradient. Train it with "
            "meta_update."
        )

    if tasks_at_once is None and mesh is not None and mesh.devices.flat[0].platform == "cpu":
        tasks_at_once = 1

    def over(grad: Callable[..., Any], at_once: int | None) -> Callable[..., tuple[PyTree, PyTree]]:
        return mean_over_batch(learner._replace(grad=grad), task_batch, at_once, mesh=mesh)

    def lived(key: Key, meta_params: PyTree, task: PyTree, carry: Carry) -> Any:
        experience = own.gather(key, meta_params, task)
        return (), own.info(experience), carry._replace(slot=experience)

    def gather(state: TrainState, sample: Sample, given: PyTree) -> tuple[PyTree, Info]:
        keys = task_keys(state, task_batch)
        # All tasks together: a loop over time steps of few episodes would take as long for each.
        (_, info, _), (experience, _) = over(lived, None)(state, sample, keys, given, ())
        return experience, info

    def mean(
        state: TrainState, experience: PyTree, function: Callable[[PyTree, PyTree], Any]
    ) -> Callable[[PyTree], Any]:
        def of_task(key: Key, point: PyTree, task: PyTree, carry: Carry) -> Any:
            value = function(point, carry.slot)
            return value, Info(jnp.zeros(()), {}), carry._replace(slot=())

        keys, over_batch = task_keys(state, task_batch), over(of_task, tasks_at_once)

        def at(point: PyTree) -> Any:
            there = state._replace(meta_params=point, optimizer_state=())
            (value, _, _), _ = over_batch(there, _no_task, keys, None, experience)
            return value

        return at

    return _Batch(gather, mean)


_no_task: Any = jax.tree_util.Partial(lambda key: ())

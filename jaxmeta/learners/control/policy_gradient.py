"""Policies that adapt by policy gradients: what `maml_rl` and `promp` share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import (
    Array,
    Carry,
    Info,
    Key,
    MetaLearner,
    Model,
    PyTree,
    Task,
    meta_learner,
)
from jaxmeta.environment import Environment
from jaxmeta.inner import Differentiation, second_order, unroll
from jaxmeta.learners.control.advantages import (
    generalized_advantages,
    linear_values,
    normalised,
)
from jaxmeta.learners.control.gathering import (
    Episodes,
    Seen,
    gather,
    mean_of_steps,
    over_steps,
    returns,
)
from jaxmeta.learners.control.policies import distribution_of
from jaxmeta.learners.control.surrogates import Surrogate, mean_surrogate
from jaxmeta.learners.gradient import Adapted

Advantages = Callable[[Episodes], Array]
"""`advantages(episodes) -> advantages_EH`, from episodes `[E, H]`."""


def linear_advantages(discount: float = 0.99, trace: float = 1.0) -> Advantages:
    """Generalised advantage estimates with a linear baseline: a function of episodes.

        A_t = Σ_{k ≥ 0} (γλ)ᵏ δ_{t+k},  δ_t = r_t + γ V_{t+1} − V_t,  V as in `linear_values`

    It maps episodes `[E, H]` to advantages `[E, H]`, which are 0 after the end of an episode. The
    baseline is fitted to the same episodes.

    Args:
      discount, trace: γ and λ, both between 0 and 1.

    Raises:
      ValueError: γ or λ is not between 0 and 1.

    See `generalized_advantages`.

    >>> from jaxmeta.data.control import navigation
    >>> def act(key, memory, seen):
    ...     return memory, jax.random.normal(key, (2,)), jnp.zeros(())
    >>> episodes = gather(navigation(horizon=5), act, jax.random.key(0), jnp.ones(2), episodes=4)
    >>> linear_advantages(0.99, 0.95)(episodes).shape
    (4, 5)
    """
    if not (0 <= discount <= 1 and 0 <= trace <= 1):
        raise ValueError(
            f"advantages: discount {discount}, trace {trace}; give numbers from 0 to 1."
        )

    def advantages(episodes: Episodes) -> Array:
        values_EH = linear_values(episodes, discount)
        found_EH = jax.vmap(lambda r, v: generalized_advantages(r, v, discount, trace))(
            episodes.rewards, values_EH
        )
        return found_EH * episodes.mask

    return advantages


class Sampled(NamedTuple):
    """Episodes with what a surrogate needs.

    Attributes:
      episodes: `[E, H]`.
      outputs: the outputs of the policy that acted, `[E, H, ...]`.
      advantages: `[E, H]`.
      unit: the standard deviation that the advantages were divided by; 1 if they were not.
    """

    episodes: Episodes
    outputs: PyTree
    advantages: Array
    unit: Array | float = 1.0


class Experience(NamedTuple):
    """What a task's policies lived through while they adapted; constants.

    Attributes:
      support: the episodes of each inner step, a tuple of K.
      query: the episodes of the adapted policy.
      reference: mean reward per step of further episodes before adaptation, a baseline of E-MAML's
        sampling term; 0 without it.
    """

    support: tuple[Sampled, ...]
    query: Sampled
    reference: Array


# Not a NamedTuple: `jax.jit` requires a function that supports weak references; tuples do not.
@dataclass(frozen=True)
class PolicyGradient:
    """The `grad` of a learner that gathers experience: the gradient of a surrogate on it.

        grads = ∇_φ surrogate(φ, experience),  experience = gather(key, φ, task)

    TRPO and PPO gather once, and evaluate the surrogate at several φ; see
    `jaxmeta.training.trust_region_update`.

    Attributes:
      gather: `gather(key, meta_params, task) -> experience`, any PyTree.
      surrogate: `surrogate(meta_params, experience) -> loss`, to be minimised.
      divergence: `divergence(meta_params, experience) -> scalar`, the mean KL divergence of the
        adapted policy that acted from that of `meta_params`, in nats.
      info: `info(experience) -> Info`.
      fits_values: whether the surrogate also fits values, whose parameters don't affect the
        divergence. A trust region does not limit these, so that `trust_region_update` refuses it.
    """

    gather: Callable[[Key, PyTree, Task], Any]
    surrogate: Callable[[PyTree, Any], Array]
    divergence: Callable[[PyTree, Any], Array]
    info: Callable[[Any], Info]
    fits_values: bool = False

    def __call__(
        self, key: Key, meta_params: PyTree, task: Task, carry: Carry, /
    ) -> tuple[PyTree, Info, Carry]:
        experience = self.gather(key, meta_params, task)
        return jax.grad(self.surrogate)(meta_params, experience), self.info(experience), carry


def adaptive_policy(
    environment: Environment,
    policy: Model,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    episodes: int,
    inner: Surrogate,
    outer: Surrogate,
    advantages: Advantages | None = None,
    normalise: bool = True,
    inner_divergence: float = 0.0,
    sampling_term: bool = False,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """A policy whose parameters adapt by steps on a surrogate of the return; see `maml_rl`.

        θ_0 = φ,  θ_{k+1} = θ_k + α ∇_θ inner(θ_k; E episodes of θ_k)
        surrogate = −outer(θ_K; E episodes of θ_K) + η Σ_k KL(π_old ‖ π_θ_k)

    `inner_divergence` is η, on the observations of the k-th episodes. Other arguments as in
    `maml_rl`.
    """
    if episodes < 1 or inner_steps < 0 or inner_divergence < 0:
        raise ValueError(
            f"adaptive policy: {episodes} episodes, {inner_steps} inner steps, inner divergence "
            f"{inner_divergence}; give at least 1 episode, and no negative number."
        )
    if differentiation.last is not None:
        raise ValueError(
            "adaptive policy: a truncated way to differentiate; policies differentiate through "
            "all inner steps, or through none (first order)."
        )
    distribution = distribution_of(environment.actions)
    estimate = linear_advantages() if advantages is None else advantages

    def act_with(params: PyTree) -> Any:
        def act(key: Key, memory: tuple[()], seen: Seen) -> tuple[tuple[()], Array, Array]:
            outputs = policy.apply(params, seen.observation[None])
            outputs = jax.tree.map(lambda leaf: leaf[0], outputs)
            action = distribution.sample(key, outputs)
            return (), action, distribution.log_probability(outputs, action)

        return act

    def outputs_on(params: PyTree, observations: Array) -> PyTree:
        """The outputs `[E, H, ...]` for observations `[E, H, ...]`."""
        outputs = policy.apply(params, observations.reshape(-1, *observations.shape[2:]))
        lead = observations.shape[:2]
        return jax.tree.map(lambda leaf: leaf.reshape(*lead, *leaf.shape[1:]), outputs)

    def sampled(key: Key, params: PyTree, task: PyTree) -> Sampled:
        params = jax.lax.stop_gradient(params)
        lived = gather(environment, act_with(params), key, task, episodes)
        outputs = outputs_on(params, lived.seen.observation)
        found, unit = estimate(lived), jnp.ones(())
        if normalise:
            found, unit = normalised(found, lived.mask)
        return jax.lax.stop_gradient(Sampled(lived, outputs, found, unit))

    def log_ratios(params: PyTree, given: Sampled) -> Array:
        lived = given.episodes
        outputs = outputs_on(params, lived.seen.observation)
        return (
            over_steps(distribution.log_probability)(outputs, lived.actions)
            - lived.log_probabilities
        )

    def value(surrogate: Surrogate, params: PyTree, given: Sampled) -> Array:
        ratios = log_ratios(params, given)
        return mean_surrogate(surrogate, ratios, given.advantages, given.episodes.mask)

    def change(params: PyTree, given: Sampled) -> Array:
        """The mean KL divergence of the policy that acted from that of `params`."""
        outputs = outputs_on(params, given.episodes.seen.observation)
        divergences = over_steps(distribution.divergence)(given.outputs, outputs)
        return mean_of_steps(divergences, given.episodes.mask)

    # One step at a time, since each has its own experience.
    step = unroll(
        lambda key, params, given: -value(inner, params, given),
        inner_optimizer,
        1,
        differentiation=differentiation,
    )

    class Path(NamedTuple):
        params: PyTree
        optimizer_state: PyTree = None

    def after(path: Path, given: Sampled) -> Path:
        no_key = jax.random.key(0)  # the loss takes none
        end = step(no_key, path.params, given, optimizer_state=path.optimizer_state)
        return Path(end.params, end.optimizer_state)

    def follow(key: Key, meta_params: PyTree, task: PyTree) -> tuple[list[Path], list[Sampled]]:
        """The parameters after 0, 1, ..., K steps, and the experience of each step."""
        paths, lived = [Path(meta_params)], []
        for number in range(inner_steps):
            lived.append(sampled(jax.random.fold_in(key, number), paths[-1].params, task))
            paths.append(after(paths[-1], lived[-1]))
        return paths, lived

    def gather_all(key: Key, meta_params: PyTree, task: Task) -> Experience:
        meta_params = jax.lax.stop_gradient(meta_params)
        support_key, query_key, reference_key = jax.random.split(key, 3)
        paths, lived = follow(support_key, meta_params, task.support)
        query = sampled(query_key, paths[-1].params, task.query)
        reference = jnp.zeros(())
        if sampling_term:
            reference = _mean_reward(sampled(reference_key, meta_params, task.query))
        return jax.lax.stop_gradient(Experience((*lived,), query, reference))

    def surrogate(meta_params: PyTree, experience: Experience) -> Array:
        path, total = Path(meta_params), jnp.zeros(())
        # In the unit of the outer surrogate, whose advantages may be normalised.
        gain = (_mean_reward(experience.query) - experience.reference) / experience.query.unit
        for given in experience.support:
            if inner_divergence:
                total += inner_divergence * change(path.params, given)
            if sampling_term:
                scores = jnp.where(given.episodes.mask > 0, log_ratios(path.params, given), 0)
                total -= gain * scores.sum()
            path = after(path, given)
        return total - value(outer, path.params, experience.query)

    def adapted_params(meta_params: PyTree, support: tuple[Sampled, ...]) -> PyTree:
        path = Path(meta_params)
        for given in support:
            path = after(path, given)
        return path.params

    def divergence(meta_params: PyTree, experience: Experience) -> Array:
        return change(adapted_params(meta_params, experience.support), experience.query)

    def info(experience: Experience) -> Info:
        of_steps = [returns(own.episodes).mean() for own in (*experience.support, experience.query)]
        return Info(-of_steps[-1], {"return": of_steps[-1], "return_before": of_steps[0]})

    def init(key: Key, task: Task) -> PyTree:
        return policy.init(key, jnp.zeros((1, *environment.observations.shape)))

    def adapt(key: Key, meta_params: PyTree, support: PyTree) -> Adapted:
        paths, _ = follow(jax.random.split(key, 3)[0], meta_params, support)
        return Adapted(paths[-1].params, ())

    def predict(adapted: Adapted, inputs: PyTree, *, key: Key | None = None) -> PyTree:
        return policy.apply(adapted.params, inputs, key=key)

    def trajectory(key: Key, meta_params: PyTree, support: PyTree, inputs: PyTree) -> PyTree:
        paths, _ = follow(jax.random.split(key, 3)[0], meta_params, support)
        outputs = [policy.apply(path.params, inputs) for path in paths]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)

    def loss(key: Key, meta_params: PyTree, task: Task) -> tuple[Array, Info]:
        found = info(gather_all(key, meta_params, task))
        return found.loss, found

    def rollout(key: Key, meta_params: PyTree, task: Task) -> Episodes:
        experience = gather_all(key, meta_params, task)
        lived = [own.episodes for own in (*experience.support, experience.query)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *lived)

    learner = meta_learner(init, adapt, predict, no_objective, loss=loss, trajectory=trajectory)
    grad = PolicyGradient(gather_all, surrogate, divergence, info)
    return learner._replace(grad=grad, rollout=rollout)


def _mean_reward(given: Sampled) -> Array:
    """The mean return, divided by the horizon as in `mean_surrogate`."""
    return (given.episodes.rewards * given.episodes.mask).mean()


def no_objective(outputs: PyTree, targets: PyTree, mask: Array | None = None) -> Any:
    raise ValueError("policies are judged by the return of their episodes, not by an objective.")

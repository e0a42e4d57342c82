"""Evolution strategies: meta-gradients estimated from losses, without derivatives."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, PyTree, Task
from jaxmeta.learners.truncation import Unroll


def evolve(learner: MetaLearner, *, std: float = 0.05, pairs: int = 8) -> MetaLearner:
    """The learner with a meta-gradient estimated from losses, by antithetic evolution strategies.

        ḡ = 1/(2σn) Σ_{i ≤ n} [L(φ + σε_i; task) − L(φ − σε_i; task)] ε_i,  ε_i ~ N(0, I)

    an unbiased estimate of the gradient of the smoothed loss E_ε L(φ + σε). That gradient also
    exists if L is not differentiable, and doesn't explode with a long inner loop. All 2n losses
    use the same task and key, so that randomness inside the learner cancels.

    Args:
      learner: any meta-learner.
      std: σ, in the meta-parameters' units.
      pairs: n.

    `info` is the mean over the perturbed evaluations. Meta-parameters that are not floats don't
    change.

    Raises:
      ValueError: `std` is not positive; `pairs` is below 1.

    Source: Salimans et al. 2017, "Evolution strategies as a scalable alternative to reinforcement
    learning", section 2; for learned optimizers Metz et al. 2019, section 4.

    >>> import jaxmeta, optax
    >>> from jaxmeta.learners import maml
    >>> from jaxmeta.models import mlp
    >>> learner = maml(mlp((8,), 1), jaxmeta.squared_error, optax.sgd(0.01), inner_steps=100)
    >>> learner = evolve(learner)
    """
    _check(std, pairs)

    def grad(key: Key, meta_params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info, Carry]:
        learn_key, noise_key = jax.random.split(key)

        def of_pair(key: Key) -> tuple[PyTree, Info]:
            noise = noise_like(key, meta_params)
            above, info_above = learner.loss(learn_key, moved(meta_params, std, noise), task)
            below, info_below = learner.loss(learn_key, moved(meta_params, -std, noise), task)
            slope = (above - below) / (2 * std)
            info = jax.tree.map(lambda a, b: (a + b) / 2, info_above, info_below)
            return jax.tree.map(lambda e: slope.astype(e.dtype) * e, noise), info

        of_pairs = jax.vmap(of_pair)(jax.random.split(noise_key, pairs))
        grads, info = jax.tree.map(lambda leaf: leaf.mean(axis=0), of_pairs)
        return grads, info, carry

    return learner._replace(grad=grad)


class Particles(NamedTuple):
    """The slot of `persistent_es`.

    Attributes:
      states: states of the unrolls under φ + noise and φ − noise, `[2, pairs, ...]`.
      sums: sum of the noise added to φ since the unroll began, like φ with a leading axis
        `[pairs, ...]`.
      task: the task of the unrolls.
      window: number of completed windows.
    """

    states: PyTree
    sums: PyTree
    task: Task
    window: Array


def persistent_es(
    learner: MetaLearner, unroll: Unroll, *, std: float = 0.05, pairs: int = 8
) -> MetaLearner:
    """Persistent evolution strategies: unbiased estimates from truncated unrolls.

        ξ_i ← ξ_i + σ ε_i,  ḡ = 1/(2σ²n) Σ_i [L_w(φ + σε_i) − L_w(φ − σε_i)] ξ_i

    Every pair continues its own two unrolls, by a window L_w per meta-update. ξ sums the noise
    since their beginning, so that over the windows of an unroll the estimates sum to an unbiased
    estimate of the (smoothed) gradient of Σ_w L_w.

    Args:
      learner: the learner of the whole unroll; its `grad` and `slot` are replaced.
      unroll: the same inner problem in windows.
      std, pairs: σ and n, as in `evolve`.

    Raises:
      ValueError: as `evolve`.

    Source: Vicol, Metz, Sohl-Dickstein 2021, "Unbiased gradient estimation in unrolled computation
    graphs with persistent evolution strategies", Algorithm 2.
    """
    _check(std, pairs)

    def begin(key: Key, meta_params: PyTree, task: Task) -> Particles:
        state = unroll.start(key, meta_params, task)
        states = jax.tree.map(lambda s: jnp.broadcast_to(s, (2, pairs, *s.shape)), state)
        sums = jax.tree.map(lambda p: jnp.zeros((pairs, *p.shape), p.dtype), meta_params)
        return Particles(states, sums, task, jnp.zeros((), jnp.int32))

    def grad(key: Key, meta_params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info, Carry]:
        start_key, advance_key, noise_key = jax.random.split(key, 3)
        particles: Particles = carry.slot
        noise = jax.vmap(lambda key: noise_like(key, meta_params))(
            jax.random.split(noise_key, pairs)
        )
        sums = jax.tree.map(lambda total, e: total + std * e, particles.sums, noise)

        def advance(sign: Array, noise: PyTree, state: PyTree) -> tuple[PyTree, Array]:
            # The same key for all, so that both signs draw the same random numbers.
            there = moved(meta_params, sign * std, noise)
            return unroll.advance(advance_key, there, particles.task, state)

        states, losses = jax.vmap(  # over signs, and over pairs
            jax.vmap(advance, in_axes=(None, 0, 0)), in_axes=(0, None, 0)
        )(jnp.array([1.0, -1.0]), noise, particles.states)
        slopes = (losses[0] - losses[1]) / (2 * std**2)
        grads = jax.tree.map(
            lambda total: jnp.tensordot(slopes.astype(total.dtype), total, axes=1) / pairs, sums
        )
        going_on = Particles(states, sums, particles.task, particles.window + 1)
        anew = begin(start_key, meta_params, task)
        slot = jax.tree.map(
            lambda a, b: jnp.where(going_on.window == unroll.windows, a, b), anew, going_on
        )
        return grads, Info(losses.mean(), {}), carry._replace(slot=slot)

    return learner._replace(grad=grad, slot=begin)


def moved(meta_params: PyTree, distance: float | Array, noise: PyTree) -> PyTree:
    """`φ + distance · noise`, with the dtypes of φ."""
    return jax.tree.map(lambda p, e: p + jnp.asarray(distance, e.dtype) * e, meta_params, noise)


def _check(std: float, pairs: int) -> None:
    if not std > 0 or pairs < 1:
        raise ValueError(
            f"evolution: std {std}, pairs {pairs}; give a positive std and at least 1 pair."
        )


def noise_like(key: Key, tree: PyTree) -> PyTree:
    """Standard normal noise for float leaves of the tree, zeros for other leaves.

    >>> noise_like(jax.random.key(0), {"a": jnp.zeros((2, 3))})["a"].shape
    (2, 3)
    """
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten(
        [
            jax.random.normal(key, leaf.shape, leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else jnp.zeros_like(leaf)
            for key, leaf in zip(keys, leaves)
        ]
    )

"""MAML++: improvements to the training of MAML, each with its own switch."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import (
    Array,
    Batch,
    Carry,
    Info,
    Key,
    MetaLearner,
    Model,
    Objective,
    PyTree,
    Task,
)
from jaxmeta.inner import (
    Differentiation,
    combine,
    first_order,
    partition,
    query_loss,
    second_order,
    support_loss,
    unroll,
)
from jaxmeta.inner._partition import Selection
from jaxmeta.inner.optimizers import check_params
from jaxmeta.learners.gradient._maml import gradient_learner

_LEAST_WEIGHT = 0.03  # least weight of an early step's loss, relative to its initial weight


class MAMLPlusPlusParams(NamedTuple):
    """Meta-parameters of MAML++.

    Attributes:
      initial: φ, the initialisation.
      rates: like `initial`, with inner rates float `[steps]` for each parameter that adapts and
        None for the others; `()` if rates are not learned.
      normalisation: like `initial`, with values after each step, float `[steps, ...]`, for the
        normalisation parameters and None for the others; `()` if they are not per step.
    """

    initial: PyTree
    rates: PyTree = ()
    normalisation: PyTree = ()


def in_normalisation(path: str) -> bool:
    """Select the parameters of normalisation layers, named `norm...` in the networks here.

    >>> in_normalisation("norm_0/scale"), in_normalisation("conv_0/kernel")
    (True, False)
    """
    return any(part.startswith("norm") for part in path.split("/"))


def maml_plus_plus(
    model: Model,
    objective: Objective,
    inner_steps: int,
    *,
    inner_rate: float = 0.1,
    learned_rates: bool = True,
    normalisation_per_step: Selection | None = in_normalisation,
    multi_step_loss_until: int = 0,
    first_order_until: int = 0,
    trained_inner_steps: int | None = None,
    differentiation: Differentiation = second_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """MAML++: MAML with rates and normalisation per step, a multi-step loss and order annealing.

        θ_{k+1} = θ_k − α_{k,l} ∇_θ L(θ_k; support)   for every parameter l except normalisation,
        γ_k, β_k learned for every step k
        meta-gradient: ∇ Σ_k w_k L(θ_k; query),  w from 1/K each to the last step only

    With everything off it is `maml`. The paper's cosine schedule of the outer rate belongs to the
    outer optimizer. Its running statistics per step are left out, because its experiments normalise
    by batch statistics. γ and β have K + 1 values here: `initial` for the first step, and one
    after each of the K steps. The authors' code has K: the query loss after step k uses the same
    values as step k.

    Args:
      model, objective, differentiation, inner_batch: as in `maml`.
      inner_steps: K.
      inner_rate: learning rate of the inner loop, and initial value of learned rates.
      learned_rates: learn a rate for every parameter tensor and step.
      normalisation_per_step: which parameters have learned values for every step instead of
        adapting; None for no parameter. Defaults to those of normalisation layers.
      multi_step_loss_until: number of meta-updates with a loss after every step, whose weights
        fall linearly for all but the last step; 0 uses only the last step's loss.
      first_order_until: number of meta-updates that take inner gradients as constants.
      trained_inner_steps: K in training, if it differs from `inner_steps`; further steps use the
        last step's rates and normalisation. Defaults to `inner_steps`.

    Raises:
      ValueError: `trained_inner_steps` below 1; a negative number of meta-updates; at `init`,
        `normalisation_per_step` selects no parameter; otherwise as `maml`.

    Source: Antoniou, Edwards, Storkey 2019, "How to train your MAML", section 4.

    >>> import jaxmeta
    >>> from jaxmeta.models import conv4
    >>> learner = maml_plus_plus(conv4(5), jaxmeta.cross_entropy, inner_steps=5,
    ...                          multi_step_loss_until=1000)
    """
    trained_inner_steps = (
        max(inner_steps, 1) if trained_inner_steps is None else trained_inner_steps
    )
    if trained_inner_steps < 1 or min(multi_step_loss_until, first_order_until) < 0:
        raise ValueError(
            f"maml_plus_plus: trained_inner_steps {trained_inner_steps}, multi_step_loss_until "
            f"{multi_step_loss_until}, first_order_until {first_order_until}; give at least 1 step "
            "and 0 or more updates."
        )

    def loop(way: Differentiation):
        return unroll(
            support_loss(model, objective),
            None,
            inner_steps,
            differentiation=way,
            batch_size=inner_batch,
        )

    def init(key: Key, task: Task) -> MAMLPlusPlusParams:
        initial = model.init(key, task.support.inputs)
        rates = normalisation = ()
        adapting = initial
        if normalisation_per_step is not None:
            per_step, adapting = partition(initial, normalisation_per_step)
            normalisation = jax.tree.map(
                lambda leaf: jnp.repeat(leaf[None], trained_inner_steps, axis=0), per_step
            )
        if learned_rates:
            rates = jax.tree.map(
                lambda leaf: jnp.full((trained_inner_steps,), inner_rate, leaf.dtype), adapting
            )
        return MAMLPlusPlusParams(initial, rates, normalisation)

    def optimizer_of(meta_params: MAMLPlusPlusParams) -> optax.GradientTransformation:
        """Gradient descent whose state is the step number."""

        def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
            at = jnp.minimum(state, trained_inner_steps - 1)
            if normalisation_per_step is not None:
                check_params("maml_plus_plus", params)
                updates = partition(updates, normalisation_per_step)[1]
            if learned_rates:
                moves = jax.tree.map(
                    lambda rates, g: -jnp.asarray(rates)[at] * g, meta_params.rates, updates
                )
            else:
                moves = jax.tree.map(lambda g: -inner_rate * g, updates)
            if normalisation_per_step is not None:
                now, _ = partition(params, normalisation_per_step)
                jumps = jax.tree.map(
                    lambda n, p: jnp.asarray(n)[at] - p, meta_params.normalisation, now
                )
                moves = combine(jumps, moves)
            return moves, state + 1

        return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

    def unpack(meta_params: MAMLPlusPlusParams, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        return meta_params.initial, {"optimizer": optimizer_of(meta_params)}

    base = gradient_learner(model, objective, loop(differentiation), init=init, unpack=unpack)

    def multi_step_loss(
        way: Differentiation, step: Array, key: Key, meta_params: MAMLPlusPlusParams, task: Task
    ) -> tuple[Array, Info]:
        # Checkpointed, so that the query's activations of all steps are not stored.
        judge = jax.checkpoint(query_loss(model, objective, task))
        initial, options = unpack(meta_params, task.support)
        end = loop(way)(key, initial, task.support, observe=judge, **options)
        losses, metrics = end.observations
        progress = step.astype(losses.dtype) / multi_step_loss_until
        weights = step_weights(inner_steps, progress)
        info = Info(losses[-1], jax.tree.map(lambda values: values[-1], metrics))
        return weights @ losses[1:], info

    def last_step_loss(
        way: Differentiation, step: Array, key: Key, meta_params: MAMLPlusPlusParams, task: Task
    ) -> tuple[Array, Info]:
        learner = gradient_learner(model, objective, loop(way), init=init, unpack=unpack)
        return learner.loss(key, meta_params, task)

    def grad(
        key: Key, meta_params: MAMLPlusPlusParams, task: Task, carry: Carry
    ) -> tuple[MAMLPlusPlusParams, Info, Carry]:
        # Each end of an annealing period starts a new phase; each phase is compiled separately.
        ends = sorted({multi_step_loss_until, first_order_until} - {0})
        phases = []
        for start in (0, *ends):
            every_step = inner_steps and start < multi_step_loss_until
            judge = multi_step_loss if every_step else last_step_loss
            way = first_order if start < first_order_until else differentiation

            def of_phase(operands: tuple, judge=judge, way=way) -> tuple[PyTree, Info]:
                return jax.grad(judge, argnums=3, has_aux=True)(way, carry.step, *operands)

            phases.append(of_phase)
        phase = sum((carry.step >= end).astype(jnp.int32) for end in ends) if ends else 0
        grads, info = jax.lax.switch(phase, phases, (key, meta_params, task))
        return grads, info, carry

    return base._replace(grad=grad)


def step_weights(steps: int, progress: Array) -> Array:
    """The weights of the losses after steps 1, …, K, float `[steps]`, with sum 1.

        w_k = max(1 − p, 0.03) / K  for k < K,  w_K = 1 − Σ_{k<K} w_k

    Args:
      progress: p, from 0 to 1.

    >>> step_weights(2, jnp.array(0.0)).tolist(), step_weights(2, jnp.array(0.5)).tolist()
    ([0.5, 0.5], [0.25, 0.75])
    """
    chex.assert_rank(progress, 0)
    early = jnp.maximum(1 - progress, _LEAST_WEIGHT) / steps
    return jnp.full((steps,), early).at[-1].set(1 - (steps - 1) * early)

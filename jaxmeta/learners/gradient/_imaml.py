"""iMAML (MAML with implicit gradients): the meta-gradient depends only on the inner optimum."""

import optax

from jaxmeta.core import MetaLearner, Model, Objective
from jaxmeta.inner import Solver, implicit, support_loss
from jaxmeta.inner._partition import Selection
from jaxmeta.learners.gradient._maml import gradient_learner


def imaml(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    strength: float = 2.0,
    damping: float = 0.0,
    solver: Solver | None = None,
    adapts: Selection | None = None,
) -> MetaLearner:
    """iMAML: a proximal inner loop, with the meta-gradient as the solution of a linear system.

        θ* = argmin_θ L(θ; support) + λ/2 ‖θ − φ‖²
        meta-gradient: (I + H/λ)⁻¹ ∇_θ L(θ*; query),  H = ∇²L(θ*; support)

    Its memory doesn't grow with the number of inner steps.

    Args:
      model, objective: as in `maml`.
      inner_optimizer, inner_steps: solve the inner problem, with any optax transformation.
      strength, damping, solver, adapts: `strength` is λ; see `jaxmeta.inner.implicit`.

    Raises:
      ValueError: as `jaxmeta.inner.implicit`.

    Source: Rajeswaran, Finn, Kakade, Levine 2019, "Meta-learning with implicit gradients",
    Algorithms 1 and 2.

    >>> import jaxmeta
    >>> from jaxmeta.models import mlp
    >>> learner = imaml(mlp((40,), 1), jaxmeta.squared_error, optax.sgd(0.1), inner_steps=16)
    """
    inner = implicit(
        support_loss(model, objective),
        inner_optimizer,
        inner_steps,
        strength=strength,
        damping=damping,
        solver=solver,
        adapts=adapts,
    )
    return gradient_learner(
        model,
        objective,
        inner,
        init=lambda key, task: model.init(key, task.support.inputs),
        unpack=lambda meta_params, support: (meta_params, {}),
    )

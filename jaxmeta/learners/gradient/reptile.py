"""Reptile: move the initialisation towards where each task's training ends."""

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Carry, Info, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.learners.gradient.maml import first_order_maml


def reptile(
    model: Model,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    batch_size: int | None = None,
) -> MetaLearner:
    """Reptile: the meta-gradient is the way from the adapted parameters back to the initial ones.

        θ_0 = φ,  θ_{k+1} = θ_k + optimizer(∇_θ L(θ_k; minibatch of the support))
        meta-"gradient": φ − θ_K,  so that the outer `optax.sgd(ε)` makes φ ← φ + ε (θ_K − φ)

    No derivative of an inner step is taken, and the query set is used for `info` alone. The
    inner optimizer's state starts anew in every task; the authors' code carries the second
    moments of Adam from task to task.

    Args:
      model, objective: as in `maml`.
      optimizer: the inner optimizer; the paper takes Adam with β1 = 0.
      steps: K.
      batch_size: examples a step; the paper's training shots exceed it.

    Raises:
      ValueError: as `maml`.

    Source: Nichol, Achiam, Schulman 2018, "On first-order meta-learning algorithms",
    Algorithm 1 and section 6.

    >>> import jaxmeta
    >>> from jaxmeta.inner import adam
    >>> from jaxmeta.models import mlp
    >>> learner = reptile(mlp((40,), 1), jaxmeta.squared_error, adam(1e-3, b1=0.0), steps=5)
    """
    base = first_order_maml(model, objective, optimizer, steps, batch_size=batch_size)

    def grad(
        key: Key, meta_params: PyTree, task: Task, carry: Carry
    ) -> tuple[PyTree, Info, PyTree]:
        adapted = base.adapt(key, meta_params, task.support)
        outputs = base.predict(adapted, task.query.inputs)
        loss, metrics = objective(outputs, task.query.targets, task.query.mask)
        towards_start = jax.tree.map(jnp.subtract, meta_params, adapted.params)
        return towards_start, Info(loss, metrics), carry.slot

    return base._replace(grad=grad)

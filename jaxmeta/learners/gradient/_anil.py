"""ANIL (almost no inner loop): MAML in which only the head adapts."""

import optax

from jaxmeta.core import MetaLearner, Model, Objective
from jaxmeta.inner import Differentiation, only, second_order
from jaxmeta.learners.gradient._maml import maml


def anil(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    head: str = "head",
    differentiation: Differentiation = second_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """ANIL: `maml` with the parameters named `head` adapted and the body shared by all tasks.

        φ = (body, head):  head_{k+1} = head_k − α ∇_head L(body, head_k; support)
        meta-gradient: with respect to both

    Arguments as in `maml`, and
      head: name of the parameters that adapt; the last layer of the networks here is `head`.

    Raises:
      ValueError: at the first use, if no parameter has that name; otherwise as `maml`.

    Source: Raghu et al. 2020, "Rapid learning or feature reuse?", section 4.

    >>> import jaxmeta
    >>> from jaxmeta.models import conv4
    >>> learner = anil(conv4(5), jaxmeta.cross_entropy, optax.sgd(0.1), inner_steps=5)
    """
    return maml(
        model,
        objective,
        inner_optimizer,
        inner_steps,
        differentiation=differentiation,
        adapts=only(head),
        inner_batch=inner_batch,
    )

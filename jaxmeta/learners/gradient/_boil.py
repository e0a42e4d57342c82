"""BOIL (body only update in the inner loop): MAML in which all but the head adapts."""

import optax

from jaxmeta.core import MetaLearner, Model, Objective
from jaxmeta.inner import Differentiation, excluding, second_order
from jaxmeta.learners.gradient._maml import maml


def boil(
    model: Model,
    objective: Objective,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    head: str = "head",
    differentiation: Differentiation = second_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """BOIL: `maml` with the body adapted and the parameters named `head` shared by all tasks.

        φ = (body, head):  body_{k+1} = body_k − α ∇_body L(body_k, head; support)
        meta-gradient: with respect to both

    Arguments as in `maml`, and
      head: name of the parameters that don't adapt; the last layer of the networks here is `head`.

    Raises:
      ValueError: at the first use, if there is no other parameter; otherwise as `maml`.

    Source: Oh, Yoo, Kim, Yun 2021, "BOIL: towards representation change for few-shot learning",
    section 3.

    >>> import jaxmeta
    >>> from jaxmeta.models import conv4
    >>> learner = boil(conv4(5), jaxmeta.cross_entropy, optax.sgd(0.1), inner_steps=1)
    """
    return maml(
        model,
        objective,
        inner_optimizer,
        inner_steps,
        differentiation=differentiation,
        adapts=excluding(head),
        inner_batch=inner_batch,
    )

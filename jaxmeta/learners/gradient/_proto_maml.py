"""Proto-MAML: MAML whose head starts as a prototypical network's."""

from typing import Any

import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree
from jaxmeta.inner import Differentiation, second_order, support_loss, unroll
from jaxmeta.learners.gradient._maml import gradient_learner
from jaxmeta.learners.metric._prototypical import class_means
from jaxmeta.learners.ways import check_ways


def proto_maml(
    encoder: Model,
    objective: Objective,
    ways: int,
    inner_optimizer: optax.GradientTransformation,
    inner_steps: int,
    *,
    differentiation: Differentiation = second_order,
    inner_batch: int | None = None,
) -> MetaLearner:
    """Proto-MAML: encoder and head adapt by gradient descent, the head from the class means.

        w_c = 2 c̄_c,  b_c = −‖c̄_c‖²,  c̄_c the mean embedding of class c in the support set

    so that before the first step logit_c(x) = −‖f(x) − c̄_c‖² up to a term that all classes
    share: a prototypical network. The meta-gradient, to the encoder's initialisation, goes
    through the head's as well.

    Args:
      encoder: maps inputs to features `[examples, D]`; its parameters are the meta-parameters.
      ways: classes of a task. The meta-parameters do not depend on it.
      objective, inner_optimizer, inner_steps, differentiation, inner_batch: as in `maml`.

    Raises:
      ValueError: fewer than two ways; else as `maml`.

    Source: Triantafillou et al. 2020, "Meta-Dataset", section 3.

    >>> import jaxmeta
    >>> from jaxmeta.models import conv4
    >>> learner = proto_maml(conv4(), jaxmeta.cross_entropy, 5, optax.sgd(0.01), inner_steps=3)
    """
    check_ways("proto_maml", ways)

    def apply(
        params: PyTree, inputs: PyTree, *, reference: PyTree = None, key: Key | None = None
    ) -> Array:
        features = encoder.apply(params["encoder"], inputs, reference=reference, key=key)
        return features @ params["head"]["kernel"] + params["head"]["bias"][None]

    model = Model(lambda key, inputs: {"encoder": encoder.init(key, inputs)}, apply)
    inner = unroll(
        support_loss(model, objective),
        inner_optimizer,
        inner_steps,
        differentiation=differentiation,
        batch_size=inner_batch,
    )

    def unpack(meta_params: PyTree, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        means_WD = class_means(encoder.apply(meta_params["encoder"], support.inputs), support, ways)
        head = {"kernel": 2 * means_WD.T, "bias": -jnp.square(means_WD).sum(axis=1)}
        return {**meta_params, "head": head}, {}

    return gradient_learner(
        model,
        objective,
        inner,
        init=lambda key, task: model.init(key, task.support.inputs),
        unpack=unpack,
    )

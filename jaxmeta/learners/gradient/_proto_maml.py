"""Proto-MAML: MAML with a head initialised by prototypes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree
from jaxmeta.inner import Differentiation, excluding, second_order, support_loss, unroll
from jaxmeta.learners.gradient._maml import gradient_learner
from jaxmeta.learners.metric._prototypical import class_means, known_classes, mean_of_known
from jaxmeta.learners.ways import among_known, check_ways


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

        w_c = 2 (c̄_c − m),  b_c = −‖c̄_c − m‖² − w_c·m,  c̄_c the mean embedding of class c in the
        support set, m the mean of the c̄_c

    so that before the first step logit_c(x) = −‖f(x) − c̄_c‖² up to a term that is equal for all
    classes, as in a prototypical network. The meta-gradient with respect to the encoder's
    initialisation includes the path through the head's initialisation. The paper has w_c = 2 c̄_c
    and b_c = −‖c̄_c‖², whose logits differ by a term that is equal for all classes, and lose
    precision if the features share an offset. A class without a (valid) support example is never
    predicted.

    Args:
      encoder: maps inputs to features `[examples, D]`; its parameters are the meta-parameters.
      ways: classes of a task. The meta-parameters do not depend on it.
      objective, inner_optimizer, inner_steps, differentiation, inner_batch: as in `maml`.

    Raises:
      ValueError: fewer than two ways; otherwise as `maml`.

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
        logits = features @ params["head"]["kernel"] + params["head"]["bias"][None]
        return among_known(logits, params["known"])

    model = Model(lambda key, inputs: {"encoder": encoder.init(key, inputs)}, apply)
    inner = unroll(
        support_loss(model, objective),
        inner_optimizer,
        inner_steps,
        differentiation=differentiation,
        adapts=excluding("known"),
        batch_size=inner_batch,
    )

    def unpack(meta_params: PyTree, support: Batch) -> tuple[PyTree, dict[str, Any]]:
        features_SD = encoder.apply(meta_params["encoder"], support.inputs)
        known_W = known_classes(support, ways)
        head = prototype_head(features_SD, support, ways)
        return {**meta_params, "head": head, "known": known_W}, {}

    return gradient_learner(
        model,
        objective,
        inner,
        init=lambda key, task: model.init(key, task.support.inputs),
        unpack=unpack,
    )


def prototype_head(features_SD: Array, support: Batch, ways: int) -> dict[str, Array]:
    """The linear layer whose logits are those of class means, see `proto_maml`.

    `kernel` `[D, ways]` and `bias` `[ways]`, from features of the support set `[examples, D]`.

    >>> support = Batch(None, jnp.array([0, 1]))
    >>> head = prototype_head(jnp.array([[1.0, 0.0], [0.0, 1.0]]), support, ways=2)
    >>> (jnp.eye(2) @ head["kernel"] + head["bias"][None]).tolist()
    [[0.5, -1.5], [-1.5, 0.5]]
    """
    means_WD = class_means(features_SD, support, ways)
    # It changes the logits of all classes equally, so that it has no gradient.
    origin_D = jax.lax.stop_gradient(mean_of_known(means_WD, known_classes(support, ways)))
    kernel_WD = 2 * (means_WD - origin_D[None])
    bias_W = -jnp.square(kernel_WD / 2).sum(axis=1) - kernel_WD @ origin_D
    return {"kernel": kernel_WD.T, "bias": bias_W}

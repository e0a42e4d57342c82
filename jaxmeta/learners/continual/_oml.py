"""OML: a representation on which a head learns online without forgetting."""

from jaxmeta.core import MetaLearner, Model, Objective
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.inner import Differentiation, second_order
from jaxmeta.learners.continual._online import initial, streaming


def oml(
    encoder: Model,
    objective: Objective,
    classes: int,
    rate: float = 0.03,
    *,
    ways: int | None = None,
    learns_rates: bool = False,
    differentiation: Differentiation = second_order,
) -> MetaLearner:
    """OML: the representation is meta-learned so that online steps of the head interfere little.

        W_0: the head, with random weights for the classes of the stream
        W_t = W_{t−1} − α ∇_W L(W_{t−1} f_θ(x_t), y_t),  t = 1, …, T, one example a step
        meta-gradient: ∇_(θ, W_0) L(W_T f_θ(query), query targets)

    In training, the support is a short stream of a few of the training classes, and the query has
    these and examples of all training classes, which the steps must not harm. A target is the index
    of a training class. At test a stream has `ways` new classes and a new head. The representation
    is constant in the inner loop, so it is computed once for the whole stream.

    With `learns_rates`, each feature has a learned factor of the rate, α max(0, η), shared by the
    classes: the learned rates of La-MAML (Gupta et al. 2020), for the head.

    Args:
      encoder: an encoder without a head, which normalises each example by itself.
      objective: an objective of logits, such as cross-entropy.
      classes: number of training classes.
      rate: α.
      ways: number of new classes in a test stream. Defaults to none: the targets are training
        classes.
      learns_rates: see above.
      differentiation: see `jaxmeta.inner.unroll`.

    Raises:
      ValueError: fewer than two classes or ways, or a rate that is not positive.

    Source: Javed, White 2019, "Meta-learning representations for continual learning", algorithm 2.

    >>> import jaxmeta
    >>> from jaxmeta.models import strided_convolutions
    >>> learner = oml(strided_convolutions(width=8), jaxmeta.cross_entropy, classes=964)
    """
    adapt, predict = streaming(
        "oml", encoder, objective, classes, rate, ways, differentiation=differentiation
    )
    init = initial(encoder, classes, rate, learns_rates=learns_rates)
    return plain_learner(init, adapt, predict, objective)

"""The inner loop, and how to differentiate through it."""

from jaxmeta.inner._implicit import Solver, conjugate_gradients, implicit, neumann_series
from jaxmeta.inner._partition import Selection, combine, excluding, only, partition
from jaxmeta.inner._unroll import (
    InnerLoop,
    Unrolled,
    minibatches,
    query_loss,
    support_loss,
    unroll,
)
from jaxmeta.inner.differentiation import (
    DIFFERENTIATIONS,
    Differentiation,
    InnerLoss,
    first_order,
    mixed_mode,
    rematerialised,
    reverse_mode,
    second_order,
    truncated,
)
from jaxmeta.inner.optimizers import adam, log_and_sign, scaled

__all__ = [
    "DIFFERENTIATIONS",
    "Differentiation",
    "InnerLoop",
    "InnerLoss",
    "Selection",
    "Solver",
    "Unrolled",
    "adam",
    "combine",
    "conjugate_gradients",
    "excluding",
    "first_order",
    "implicit",
    "log_and_sign",
    "minibatches",
    "mixed_mode",
    "neumann_series",
    "only",
    "partition",
    "query_loss",
    "rematerialised",
    "reverse_mode",
    "scaled",
    "second_order",
    "support_loss",
    "truncated",
    "unroll",
]

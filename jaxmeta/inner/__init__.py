"""The inner loop, and how to differentiate through it."""

from jaxmeta.inner.differentiation import (
    DIFFERENTIATIONS,
    Differentiation,
    first_order,
    mixed_mode,
    rematerialised,
    reverse_mode,
    second_order,
    truncated,
)
from jaxmeta.inner.implicit import Solver, conjugate_gradients, implicit, neumann_series
from jaxmeta.inner.optimizers import adam, log_and_sign, scaled
from jaxmeta.inner.partition import combine, excluding, only, partition
from jaxmeta.inner.unroll import minibatches, query_loss, support_loss, unroll

__all__ = [
    "DIFFERENTIATIONS",
    "Differentiation",
    "Solver",
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

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
from jaxmeta.inner.optimizers import adam
from jaxmeta.inner.partition import combine, only, partition
from jaxmeta.inner.unroll import minibatches, support_loss, unroll

__all__ = [
    "DIFFERENTIATIONS",
    "Differentiation",
    "adam",
    "combine",
    "first_order",
    "minibatches",
    "mixed_mode",
    "only",
    "partition",
    "rematerialised",
    "reverse_mode",
    "second_order",
    "support_loss",
    "truncated",
    "unroll",
]

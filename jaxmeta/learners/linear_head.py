"""A linear classifier of features, as parameters `{"kernel": [D, ways], "bias": [ways]}`."""

from jaxmeta.core import Array, Batch, Key, Objective, PyTree
from jaxmeta.inner import InnerLoss


def head_logits(head: PyTree, features: Array) -> Array:
    """`features W + b`, `[examples, ways]`, of features `[examples, D]`."""
    return features @ head["kernel"] + head["bias"][None]


def head_loss(objective: Objective) -> InnerLoss:
    """The loss of a head on a batch of features, for an inner loop."""

    def loss(key: Key, head: PyTree, features: Batch) -> Array:
        return objective(head_logits(head, features.inputs), features.targets, features.mask)[0]

    return loss

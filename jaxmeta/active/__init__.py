"""Active learning: which examples of a task to label, for any trained learner.

    from jaxmeta.active import acquisition, entropy, from_learner

    acquire = acquisition(
        from_learner(learner, meta_params), entropy, jaxmeta.cross_entropy, ways=5, budget=20)
    acquired = acquire(key, task)   # task.support is the pool, with the labels to be asked for
    acquired.metrics["accuracy"]    # on the query, after 0, 1, ..., 20 labels

All functions are pure functions of one task; the caller applies `vmap` and `jit`. Inputs are any
PyTree of arrays with a leading example axis.
"""

from jaxmeta.active._learned import AcquisitionExperience, features, learned, learned_acquirer
from jaxmeta.active._pool import (
    Acquired,
    Predictions,
    Solve,
    acquisition,
    area_under,
    committee,
    first_labels,
    from_learner,
)
from jaxmeta.active._rules import (
    RULES,
    Rule,
    View,
    bald,
    chance,
    entropy,
    greedy,
    highest,
    k_centre,
    margin,
    unlabelled_view,
)

__all__ = [
    "RULES",
    "Acquired",
    "AcquisitionExperience",
    "Predictions",
    "Rule",
    "Solve",
    "View",
    "acquisition",
    "area_under",
    "bald",
    "chance",
    "committee",
    "entropy",
    "features",
    "first_labels",
    "from_learner",
    "greedy",
    "highest",
    "k_centre",
    "learned",
    "learned_acquirer",
    "margin",
    "unlabelled_view",
]

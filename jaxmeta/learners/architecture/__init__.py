"""Architecture search: by gradient descent, by Q-learning, by evolution, at random."""

from jaxmeta.learners.architecture._darts import (
    Mixed,
    Relaxation,
    SupernetState,
    darts,
    gumbel_relaxation,
    softmax_relaxation,
)
from jaxmeta.learners.architecture._metaqnn import epsilons, metaqnn, q_update
from jaxmeta.learners.architecture._random_search import random_search
from jaxmeta.learners.architecture._regularised_evolution import regularised_evolution
from jaxmeta.learners.architecture.alternating import Alternating
from jaxmeta.learners.architecture.searching import (
    History,
    Search,
    Searching,
    architecture_search,
    random_architecture,
)
from jaxmeta.learners.architecture.stopping import (
    Eigenvalues,
    Stop,
    dominant_eigenvalue,
    eigenvalue_growth,
    never,
    skip_limit,
)
from jaxmeta.learners.architecture.trained import trained_accuracy

__all__ = [
    "Alternating",
    "Eigenvalues",
    "History",
    "Mixed",
    "Relaxation",
    "Search",
    "Searching",
    "Stop",
    "SupernetState",
    "architecture_search",
    "darts",
    "dominant_eigenvalue",
    "eigenvalue_growth",
    "epsilons",
    "gumbel_relaxation",
    "metaqnn",
    "never",
    "q_update",
    "random_architecture",
    "random_search",
    "regularised_evolution",
    "skip_limit",
    "softmax_relaxation",
    "trained_accuracy",
]

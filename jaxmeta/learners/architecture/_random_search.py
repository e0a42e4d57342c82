"""Random search, the baseline of architecture search."""

from jaxmeta.architecture import SearchSpace
from jaxmeta.core import MetaLearner
from jaxmeta.learners.architecture.searching import (
    Search,
    architecture_search,
    random_architecture,
)


def random_search(space: SearchSpace, *, budget: int) -> MetaLearner:
    """Random search: architectures whose decisions are drawn uniformly, without replacement.

    Arguments and errors as in `architecture_search`, which also has an example.

    Source: Li, Talwalkar 2019, "Random search and reproducibility for neural architecture search".
    """
    search = Search(
        init=lambda key: (),
        propose=lambda key, state, history: random_architecture(key, space),
        learn=lambda key, state, history: state,
    )
    return architecture_search(search, space, budget)

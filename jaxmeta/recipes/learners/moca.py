"""MOCA on the command line."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxmeta.core import Batch, MetaLearner
from jaxmeta.learners import MOCAParams, moca
from jaxmeta.learners.process import Followed, follow
from jaxmeta.learners.process._moca import check_hazard, rates_of, starting
from jaxmeta.recipes import Problem, Recipe, recipe
from jaxmeta.recipes.settings import Count, Fraction


@recipe("moca", paper="Harrison et al. 2020", kinds=("stream",))
@dataclass(frozen=True)
class Moca(Recipe):
    """MOCA (Harrison et al. 2020): a belief about the last switch around a Bayesian last layer."""

    features: Count = 32
    """Number of learned features, of a network with the hidden layers of the tasks."""
    hazard: Fraction = 0.05
    """Probability of a switch before an example; at initialisation, if it is learned."""
    learns_hazard: bool = True
    """Learn the hazard rate beside the other meta-parameters."""
    longest: Count | None = None
    """Largest run length that is told apart. Defaults to the length of the stream."""

    def check(self) -> None:
        """Check the hazard rate."""
        check_hazard(self.hazard, self.learns_hazard)

    def build(self, problem: Problem) -> MetaLearner:
        return moca(
            problem.encoder(self.features),
            hazard=self.hazard,
            learns_hazard=self.learns_hazard,
            longest=self.longest,
        )

    def follower(self, problem: Problem) -> Callable[[MOCAParams, Batch], Followed]:
        """`follower(problem)(meta_params, stream)`: predictions and beliefs at every example.

        All run lengths are told apart, whatever `longest` is.
        """
        encoder = problem.encoder(self.features)

        def followed(meta_params: MOCAParams, stream: Batch) -> Followed:
            before = starting(meta_params.last_layer, len(stream.targets) + 1)
            rates = rates_of(meta_params, self.hazard)
            return follow(encoder, meta_params, before, stream, rates=rates)[1]

        return followed

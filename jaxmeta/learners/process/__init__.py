"""Neural processes: learners of functions that predict with uncertainty."""

from jaxmeta.learners.process._alpaca import (
    ALPaCAParams,
    LastLayer,
    alpaca,
    last_layer_posterior,
)
from jaxmeta.learners.process._bayesian_last_layer import LastLayerParams, bayesian_last_layer
from jaxmeta.learners.process._members import Members, members_of_tables
from jaxmeta.learners.process._moca import (
    Followed,
    MOCAParams,
    RunLengths,
    follow,
    moca,
    next_belief,
)
from jaxmeta.learners.process._prior_fitted import ReadTable, prior_fitted
from jaxmeta.learners.process._sliding_window import sliding_window
from jaxmeta.learners.process.conditional import (
    class_by_class,
    conditional_neural_process,
    conditional_neural_process_classifier,
)
from jaxmeta.learners.process.gaussian import (
    Gaussian,
    Mixture,
    gaussian_likelihood,
    mixture_likelihood,
)
from jaxmeta.learners.process.latent import neural_process
from jaxmeta.learners.process.transformer import transformer_neural_process

__all__ = [
    "ALPaCAParams",
    "Followed",
    "Gaussian",
    "LastLayer",
    "LastLayerParams",
    "MOCAParams",
    "Members",
    "Mixture",
    "ReadTable",
    "RunLengths",
    "alpaca",
    "bayesian_last_layer",
    "class_by_class",
    "conditional_neural_process",
    "conditional_neural_process_classifier",
    "follow",
    "gaussian_likelihood",
    "last_layer_posterior",
    "members_of_tables",
    "mixture_likelihood",
    "moca",
    "neural_process",
    "next_belief",
    "prior_fitted",
    "sliding_window",
    "transformer_neural_process",
]

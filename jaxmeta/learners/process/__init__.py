"""Neural processes: learners of functions that predict with uncertainty."""

from jaxmeta.learners.process._alpaca import (
    ALPaCAParams,
    LastLayer,
    alpaca,
    last_layer_posterior,
)
from jaxmeta.learners.process._bayesian_last_layer import LastLayerParams, bayesian_last_layer
from jaxmeta.learners.process._prior_fitted import ReadTable, prior_fitted
from jaxmeta.learners.process.conditional import (
    class_by_class,
    conditional_neural_process,
    conditional_neural_process_classifier,
)
from jaxmeta.learners.process.gaussian import Gaussian, gaussian_likelihood
from jaxmeta.learners.process.latent import neural_process
from jaxmeta.learners.process.transformer import transformer_neural_process

__all__ = [
    "ALPaCAParams",
    "Gaussian",
    "LastLayer",
    "LastLayerParams",
    "ReadTable",
    "alpaca",
    "bayesian_last_layer",
    "class_by_class",
    "conditional_neural_process",
    "conditional_neural_process_classifier",
    "gaussian_likelihood",
    "last_layer_posterior",
    "neural_process",
    "prior_fitted",
    "transformer_neural_process",
]

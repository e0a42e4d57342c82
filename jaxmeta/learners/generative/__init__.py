"""Learners that generate: examples of a new class for a linear head, and images."""

from jaxmeta.learners.generative._augmented import (
    Generate,
    augmented,
    gaussian_noise,
    with_generated,
)
from jaxmeta.learners.generative._distribution_calibration import (
    BaseClasses,
    base_statistics,
    calibrated_samples,
    distribution_calibration,
)
from jaxmeta.learners.generative._gan_augmented import CriticState, gan_augmented, gan_samples
from jaxmeta.learners.generative._noise_augmented import base_noise, noise_augmented
from jaxmeta.learners.generative._vae_augmented import (
    FeatureVAEParams,
    base_codes,
    vae_augmented,
    vae_samples,
)
from jaxmeta.learners.generative.linear import LinearHead, tukey
from jaxmeta.learners.generative.vae import VAEParams, vae

__all__ = [
    "BaseClasses",
    "CriticState",
    "FeatureVAEParams",
    "Generate",
    "LinearHead",
    "VAEParams",
    "augmented",
    "base_codes",
    "base_noise",
    "base_statistics",
    "calibrated_samples",
    "distribution_calibration",
    "gan_augmented",
    "gan_samples",
    "gaussian_noise",
    "noise_augmented",
    "tukey",
    "vae",
    "vae_augmented",
    "vae_samples",
    "with_generated",
]

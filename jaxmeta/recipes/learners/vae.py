"""A variational autoencoder of images on the command line."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax

from jaxmeta.core import Array, Key, MetaLearner, Model, PyTree
from jaxmeta.learners import vae
from jaxmeta.learners.generative.vae import posterior
from jaxmeta.models import image_decoder
from jaxmeta.recipes import Preset, Problem, recipe
from jaxmeta.recipes.generative import Generative
from jaxmeta.recipes.settings import Count


@recipe("vae", paper="Kingma & Welling 2014", kinds=("generation",))
@dataclass(frozen=True)
class VAE(Generative):
    """A variational autoencoder (Kingma & Welling 2014): images from codes with a prior."""

    latent: Count = 32
    """Size of the code."""
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    """Of a pixel: 0 or 1 for drawings, or Gaussian with a learned standard deviation."""
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("generate/*", {"batch_size": 64}, wall_time="10 min on a CPU core"),
    )

    def _networks(self, problem: Problem) -> tuple[Model, Model]:
        return problem.encoder(2 * self.latent), _decoder(problem)

    def build(self, problem: Problem) -> MetaLearner:
        return vae(*self._networks(problem), likelihood=self.likelihood)

    def interpolated(
        self, problem: Problem, params: PyTree, key: Key, images: Array, shares: Array
    ) -> Array:
        """Between the codes of two images."""
        encoder, decoder = self._networks(problem)
        seen = (images > 0.5).astype(images.dtype) if self.likelihood == "bernoulli" else images
        codes, _ = posterior(encoder.apply(params.encoder, seen))
        first, second = codes[0::2, None], codes[1::2, None]
        between = first + shares[None, :, None] * (second - first)
        outputs = decoder.apply(params.decoder, between.reshape(-1, self.latent))
        outputs = outputs.reshape(*between.shape[:2], *images.shape[1:])
        return jax.nn.sigmoid(outputs) if self.likelihood == "bernoulli" else outputs


def _decoder(problem: Problem) -> Model:
    return image_decoder(problem.data["image_shape"], width=problem.data["width"])

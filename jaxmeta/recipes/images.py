"""Settings of images and of image networks, shared by several domains."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp

from jaxmeta.core import Model
from jaxmeta.data import Dataset, load
from jaxmeta.data._episodes import Rotations
from jaxmeta.data.identity import NOTHING, Seen
from jaxmeta.data.images.dataset import unseen
from jaxmeta.files import shown
from jaxmeta.models import comparator, computed_in, conv4, conv_maps, mlp, resnet12
from jaxmeta.models.layers import NormalisationKind
from jaxmeta.recipes.settings import AT_TEST, PLACE, Count


@dataclass(frozen=True)
class Images:
    """The images."""

    dataset: Annotated[str, AT_TEST, PLACE] = "glyphs"
    """glyphs, omniglot, grocery, miniimagenet, a TFDS image set, or a FOLDER with images
    FOLDER/class/*.png."""
    split: Annotated[str | None, AT_TEST] = None
    """Class split: vinyals, maml, lake, lake-small1 or lake-small2 for omniglot, ravi or vinyals
    for miniimagenet, TRAIN/VALIDATION/TEST counts for other sets."""
    image_size: Count | None = None
    """Side of the images in pixels. Defaults to the data set's own size."""
    color: bool | None = None
    """Read images with three channels, or with one. Defaults to the data set's own."""

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The changes, with the split reset where the data set changes."""
        other = changes.get("dataset", self.dataset) != self.dataset
        return {"split": None, **changes} if other else changes

    def load(self, seed: int, rotations: Rotations | None = None, seen: Seen = NOTHING) -> Dataset:
        found = load(
            self.dataset,
            split=self.split,
            rotations=rotations,
            image_size=self.image_size,
            color=self.color,
            seed=seed,
        )
        return unseen(found, seen)


@dataclass(frozen=True)
class ImageNetwork:
    """The image network."""

    network: Literal["conv4-stride", "conv4-pool", "resnet12", "mlp"] = "conv4-stride"
    """Four convolutions (of stride 2 as in MAML, or max-pooled), a 12-layer ResNet, or an MLP."""
    width: Count = 64
    """Channels of each convolution (of the first block in resnet12)."""
    query_statistics: Annotated[NormalisationKind, AT_TEST] = "batch"
    """Normalise a query by its batch (transductive), by the support, or alone (layer, group)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network; meta-parameters, statistics and losses stay float32."""

    def build(self, outputs: int | None) -> Model:
        """The network; without `outputs`, the encoder, which has no head."""
        return self._computed(self._in_float32(outputs))

    def _computed(self, network: Model) -> Model:
        return network if self.precision == "float32" else computed_in(network, jnp.bfloat16)

    def _in_float32(self, outputs: int | None) -> Model:
        statistics: Any = {"query_statistics": self.query_statistics}
        if self.network == "mlp":  # as in Finn et al. 2017, section 5.2
            hidden = (256, 128, 64) if outputs is None else (256, 128, 64, 64)
            return mlp(hidden, outputs or 64, **statistics)
        if self.network == "resnet12":
            return resnet12(outputs, width=self.width, **statistics)
        halving: Any = self.network.removeprefix("conv4-")
        return conv4(outputs, width=self.width, downsampling=halving, **statistics)

    def described(self, *, comparison: bool = False) -> str:
        """The network as the protocol names it, such as `conv4-stride, width 64, float32`."""
        name = "conv-maps" if comparison else self.network
        return f"{name}, width {self.width}, {self.precision}"

    def comparison(self) -> tuple[Model, Model]:
        """For relation networks: an encoder to feature maps, and a network that compares two."""
        statistics: Any = {"width": self.width, "query_statistics": self.query_statistics}
        return self._computed(conv_maps(**statistics)), comparator(**statistics)

    @property
    def context_layer(self) -> str:
        """The parameters that a context modulates: the third block's last normalisation."""
        return {"mlp": "norm_0", "resnet12": "block_2/norm_2"}.get(self.network, "norm_2")


def data_identity(dataset: Dataset) -> dict[str, Any]:
    """The entries of `config.json` that identify an image set."""
    names = ("images_sha256", "classes", "ink")
    shape = list(dataset.train.images.shape[1:])
    return {"image_shape": shape, **{name: dataset.protocol[name] for name in names}}


def query_files(path: Path) -> list[Path]:
    """The image files in a folder and its subfolders, or a single image.

    Raises:
      ValueError, FileNotFoundError: there are none.
    """
    from jaxmeta.data.images.folder import image_files

    if not path.exists():
        raise FileNotFoundError(f"--query {shown(path)} does not exist; give a folder or an image.")
    return image_files(path)

"""Settings of images and of image networks, shared by several domains."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Model, PyTree
from jaxmeta.data import ClassImages, Dataset, load
from jaxmeta.data._episodes import Rotations
from jaxmeta.data.identity import NOTHING, Seen
from jaxmeta.data.images.dataset import unseen
from jaxmeta.data.images.registry import resampling_of
from jaxmeta.data.scaling import scaled
from jaxmeta.files import shown
from jaxmeta.models import (
    averaged_over_shifts,
    comparator,
    computed_in,
    conv4,
    conv_maps,
    folded,
    mlp,
    relaxed,
    resnet12,
    supernet,
    unfolded,
)
from jaxmeta.models._cells import ARCHITECTURE
from jaxmeta.models.layers import NormalisationKind
from jaxmeta.recipes.base import UserTask
from jaxmeta.recipes.settings import AT_TEST, PLACE, Count, option
from jaxmeta.recipes.tasks import Needs

CALIBRATION_IMAGES = 1024
"""Training images for the statistics that are folded into a network."""


@dataclass(frozen=True)
class Images:
    """The images."""

    dataset: Annotated[str, AT_TEST, PLACE] = "glyphs"
    """glyphs, omniglot, grocery, miniimagenet, mednist, cifar10, a TFDS image set, a MedMNIST
    FILE.npz, or a FOLDER with images FOLDER/class/*.png."""
    split: Annotated[str | None, AT_TEST] = None
    """Class split: vinyals, maml, background, lake, lake-small1 or lake-small2 for omniglot, ravi
    or vinyals for miniimagenet, TRAIN/VALIDATION/TEST counts for other sets. By default mednist,
    cifar10 and MedMNIST files have all classes in all parts, with different images."""
    image_size: Annotated[Count | None, AT_TEST] = None
    """Side of the images in pixels. Defaults to the data set's own size."""
    color: Annotated[bool | None, AT_TEST] = None
    """Read images with three channels, or with one. Defaults to the data set's own."""

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The changes, with the split reset where the data set changes."""
        other = changes.get("dataset", self.dataset) != self.dataset
        return {"split": None, **changes} if other else changes

    def load(
        self, seed: int, rotations: Rotations | None = "none", seen: Seen = NOTHING
    ) -> Dataset:
        """The set, for tasks that rotate nothing unless they say so; None is the set's default."""
        found = load(
            self.dataset,
            split=self.split,
            rotations=rotations,
            image_size=self.image_size,
            color=self.color,
            seed=seed,
        )
        return unseen(found, seen)

    def user_task(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """A task from `support/CLASS/*.png`, and query images from a file or a folder.

        The images are resized as those of the data set. The true class of a query image is known
        if it is in `query/CLASS/`.
        """
        from jaxmeta.data.images.folder import class_files, read_images

        size, _, channels = data["image_shape"]

        def pixels(paths: list[Path]) -> np.ndarray:
            images = read_images(
                paths,
                image_size=size,
                color=channels == 3,
                ink=data["ink"] if ink is None else ink,
                resampling=resampling_of(self.dataset),
            )
            return scaled(images)

        classes = class_files(support)
        shown = {name: pixels(group) for name, group in classes.items()}
        labels = np.repeat(np.arange(len(shown)), [len(group) for group in shown.values()])
        queries = query_files(query)
        images = pixels(queries)
        within = [path.relative_to(query).parts[:-1] for path in queries]  # () if it is no folder

        def draw(path: Path, names: list[str], probabilities: np.ndarray, title: str) -> None:
            from jaxmeta import plots

            plots.prediction_sheet(path, images, names, probabilities, title=title, support=shown)

        return UserTask(
            support=Batch(np.concatenate(list(shown.values())), labels.astype(np.int32)),
            inputs=images,
            rows=[str(path) for path in queries],
            names=list(shown),
            truth=tuple(path[0] if path and path[0] in shown else None for path in within),
            draw=draw,
        )


@dataclass(frozen=True)
class ImageNetwork:
    """The image network."""

    network: Literal["conv4-stride", "conv4-pool", "resnet12", "mlp", "supernet"] = "conv4-stride"
    """Four convolutions (of stride 2 as in MAML, or max-pooled), a 12-layer ResNet, an MLP, or all
    cells of NAS-Bench-201 at once, whose architecture is learned (supernet)."""
    width: Count = 64
    """Channels of each convolution (of the first block or stage in resnet12 and supernet)."""
    query_statistics: Annotated[NormalisationKind, AT_TEST] = "batch"
    """Normalise a query by its batch (transductive), by the support, alone (layer, group), or by
    statistics of the training images, which normalise each batch in training (training)."""
    test_views: Annotated[Literal["one", "shifts"], AT_TEST] = "one"
    """Views of an image in validation and test: the image (one), or the mean embedding of it and
    of its shifts by a pixel up, down, left and right (shifts)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network; meta-parameters, statistics and losses stay float32."""
    cells: Count = 1
    """Cells per stage, with --network supernet."""

    def check_learner(self, needs: Needs) -> None:
        """Raise `ValueError` if a learner with these needs does not support the network."""
        if needs.comparison and self.network != "conv4-stride":
            raise ValueError(
                f"--network {self.network}: this learner has a network of its own; "
                "leave --network out."
            )
        if self.architecture and not needs.relaxed:
            raise ValueError(
                f"--network {self.network}: this learner does not learn an "
                "architecture; choose maml or first-order-maml, or another network."
            )
        if needs.folded and self.query_statistics != "none":
            raise ValueError(
                f"--query-statistics {self.query_statistics}: the training statistics of a "
                "pre-trained network are folded into its scales and shifts; give "
                "--query-statistics none."
            )
        if self.query_statistics == "training" and not needs.embeds:
            raise ValueError(
                "--query-statistics training requires a learner whose network only embeds images, "
                "such as prototypical or r2d2; give batch, support, layer, group or none."
            )
        if self.test_views != "one" and not needs.embeds:
            raise ValueError(
                f"--test-views {self.test_views} requires a learner whose network "
                "only embeds images, such as prototypical or r2d2; leave it out."
            )

    def check(self) -> None:
        if self.network != "supernet":
            if self.cells != 1:
                raise ValueError(
                    f"{option('cells', self.cells)} applies only to --network supernet."
                )
        elif self.query_statistics != "batch":
            raise ValueError(
                f"{option('query_statistics', self.query_statistics)}: --network supernet "
                "normalises by the batch; give batch."
            )

    @property
    def architecture(self) -> str:
        """The parameter with the logits of an architecture; empty if the network has none."""
        return ARCHITECTURE if self.network == "supernet" else ""

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The changes of an evaluation.

        Raises:
          ValueError: the training statistics of a run that has none.
        """
        if "training" == changes.get("query_statistics") != self.query_statistics:
            raise ValueError(
                "--query-statistics training: this run was trained with --query-statistics "
                f"{self.query_statistics} and has no training statistics; give batch, support, "
                "layer, group or none."
            )
        return changes

    def build(self, outputs: int | None, *, train: bool = False) -> Model:
        """The network; without `outputs`, the encoder, which has no head."""
        network = self._computed(self._in_float32(outputs, train))
        shifts = self.test_views == "shifts" and not train
        return averaged_over_shifts(network) if shifts else network

    def fold(self, params: PyTree, calibration: Array) -> PyTree:
        """The encoder's parameters, with statistics of the calibration images folded in."""
        return folded(self.build(None, train=True), params, calibration)

    def unfold(self, params: PyTree, calibration: Array) -> PyTree:
        """The opposite of `fold`: parameters to train or to prune, and to fold again."""
        return unfolded(self._computed(self._in_float32(None, False)), params, calibration)

    def _computed(self, network: Model) -> Model:
        return network if self.precision == "float32" else computed_in(network, jnp.bfloat16)

    def _in_float32(self, outputs: int | None, train: bool) -> Model:
        statistics: Any = {"query_statistics": self.query_statistics}
        if train and self.query_statistics == "training":  # folded into the parameters afterwards
            statistics = {"query_statistics": "batch"}
        if self.network == "mlp":  # as in Finn et al. 2017, section 5.2
            hidden = (256, 128, 64) if outputs is None else (256, 128, 64, 64)
            return mlp(hidden, outputs or 64, **statistics)
        if self.network == "resnet12":
            return resnet12(outputs, width=self.width, **statistics)
        if self.network == "supernet":
            return relaxed(supernet(outputs, width=self.width, cells=self.cells))
        halving: Any = self.network.removeprefix("conv4-")
        return conv4(outputs, width=self.width, downsampling=halving, **statistics)

    def described(self, *, comparison: bool = False) -> str:
        """The network as the protocol names it, such as `conv4-stride, width 64, float32`."""
        name = "conv-maps" if comparison else self.network
        width = f"width {self.width}"
        if self.network == "supernet":
            width += f", {self.cells} {'cell' if self.cells == 1 else 'cells'} per stage"
        return f"{name}, {width}, {self.precision}"

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


def query_images(source: Callable[[str], Any], seed: int) -> Array:
    """Query images of training tasks, `[tasks, Q, H, W, C]`, at least `CALIBRATION_IMAGES`."""
    sample, key = source("train"), jax.random.key(seed)
    count = -(-CALIBRATION_IMAGES // len(jax.eval_shape(sample, key).query.targets))
    draw = jax.jit(lambda sample, key: sample(key).query.inputs)
    return jnp.stack([draw(sample, key) for key in jax.random.split(key, count)])


def query_files(path: Path) -> list[Path]:
    """The image files in a folder and its subfolders, or a single image.

    Raises:
      ValueError, FileNotFoundError: there are none.
    """
    from jaxmeta.data.images.folder import image_files

    if not path.exists():
        raise FileNotFoundError(f"--query {shown(path)} does not exist; give a folder or an image.")
    return image_files(path)


def features_of(encoder: Model, params: PyTree, classes: ClassImages) -> ClassImages:
    """The classes with frozen features in place of the images: float32 `[total, 1, 1, D]`."""
    embed = _embedding(encoder)
    parts = np.array_split(classes.images, -(-len(classes.images) // 64))
    # The parts have at most two sizes, so at most two programs are compiled.
    features = np.concatenate([np.asarray(embed(params, part)) for part in parts])
    return classes._replace(images=features[:, None, None])


@functools.cache  # so that all validations of a network use the same compiled programs
def _embedding(encoder: Model) -> Callable[[PyTree, Any], Array]:
    return jax.jit(lambda params, images: encoder.apply(params, scaled(images)))

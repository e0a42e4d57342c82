"""Use a run: learn classes from a few images of your own, and name others.

    python -m experiments.predict RUN_DIR --support FOLDER --query FOLDER

`--support` holds `FOLDER/class/*.png`, `--query` images, by themselves or in folders.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments.command_line import guarded, read_arguments


@dataclass(frozen=True)
class Predict:
    """Adapt a trained image classifier to a few images and name others."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    support: Path
    """Folder to learn from: FOLDER/class/*.png (or jpg, jpeg)."""
    query: Path
    """Folder of images to name, or one image."""
    out: Path = Path("predictions.png")
    """The picture; the table goes beside it, with the suffix .csv."""
    ink: bool | None = None
    """Dark drawings on light paper: read ink as 1, paper as 0, as omniglot and glyphs are. None:
    as the run's data set is."""


def predict(options: Predict) -> None:
    """Adapt, name every query image, print the table, draw the picture."""
    import jax
    import jax.numpy as jnp
    from rich.console import Console
    from rich.table import Table

    from jaxmeta import files, plots
    from jaxmeta.core import Batch
    from jaxmeta.data.images.folder import class_files, read_images
    from jaxmeta.training import build_learner, restore
    from jaxmeta.training.config import FewShot
    from jaxmeta.training.options import Relation
    from jaxmeta.training.restore import read_config, with_episode

    config, image_shape = read_config(options.run_dir)
    if not isinstance(config, FewShot) or image_shape is None:
        raise ValueError(f"{options.run_dir} is no run on images; predict needs one.")
    inked = config.dataset in ("omniglot", "glyphs") if options.ink is None else options.ink

    def read(paths: list[Path]) -> jax.Array:
        size, _, channels = image_shape
        images = read_images(paths, image_size=size, color=channels == 3).astype(np.float32) / 255
        return jnp.asarray(1 - images if inked else images)

    classes = class_files(options.support)
    names = list(classes)
    config = with_episode(config, ways=len(names))
    # Refuses a number of ways before anything is read.
    build_learner.learner_of(config, train=False)
    trained = restore(options.run_dir, config=config)
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(f) for f in classes.values()])
    learned_from = {name: read(group) for name, group in classes.items()}
    # Some learners read the support in the order given, and have never seen it class by class.
    order = jax.random.permutation(jax.random.key(config.seed), len(labels))
    inputs = jnp.concatenate(list(learned_from.values()))
    support = Batch(inputs[order], jnp.asarray(labels)[order])
    queries = _query_files(options.query)
    images = read(queries)

    adapted = trained.learner.adapt(jax.random.key(config.seed), trained.meta_params, support)
    outputs_QW = trained.learner.predict(adapted, images)
    if isinstance(config.learner, Relation):  # scores between 0 and 1, no logits
        outputs_QW = jnp.log(outputs_QW)
    probabilities_QW = np.asarray(jax.nn.softmax(outputs_QW))
    predicted = probabilities_QW.argmax(axis=1)
    named = [names[index] for index in predicted]
    sure = probabilities_QW.max(axis=1)

    table = Table("image", "class", "probability")
    for path, name, probability in zip(queries, named, sure, strict=True):
        table.add_row(str(path), name, f"{probability:.1%}")
    Console().print(table)
    rows = [
        f'"{path}","{name}",{probability:.6f}'
        for path, name, probability in zip(queries, named, sure, strict=True)
    ]
    files.write_bytes(
        options.out.with_suffix(".csv"), "\n".join(["image,class,probability", *rows, ""]).encode()
    )
    counts = ", ".join(f"{count} {name}" for name, count in Counter(named).items())
    plots.prediction_sheet(
        options.out,
        np.asarray(images),
        named,
        sure,
        title=f"{config.learner.name}: {counts}",
        support={name: np.asarray(group) for name, group in learned_from.items()},
    )
    print(f"picture: {options.out}, table: {options.out.with_suffix('.csv')}")


def _query_files(path: Path) -> list[Path]:
    """The images of a folder, of the folders in it, or the one image itself."""
    from jaxmeta.data.images.folder import SUFFIXES

    if not path.exists():
        raise FileNotFoundError(f"--query {path} does not exist; give a folder or an image.")
    candidates = sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [file for file in candidates if file.suffix.lower() in SUFFIXES]
    if not found:
        raise ValueError(f"--query {path} holds no image; put {', '.join(SUFFIXES)} files there.")
    return found


if __name__ == "__main__":
    sys.exit(guarded(lambda: predict(read_arguments(Predict, "predict"))))

"""Sheets of images: one task, and the predictions for a user's images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta.files import shown
from jaxmeta.plots.figures import (
    BLUE,
    GREY,
    MISTAKE,
    check_labels,
    new_figure,
    percent,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_CLASSES, SHOWN_SUPPORT, SHOWN_QUERIES, SHOWN_PREDICTIONS = 20, 10, 15, 60
_BUTT: dict[str, Any] = {"solid_capstyle": "butt"}


def image_episode(
    path: str | Path,
    support_images: np.ndarray,
    support_labels: np.ndarray,
    query_images: np.ndarray,
    query_labels: np.ndarray,
    predicted: np.ndarray,
    *,
    title: str,
    class_names: Sequence[str] | None = None,
) -> "Figure":
    """One task of images, a row for each class: support and queries, with errors marked.

    A misclassified query has a red frame, with the predicted class below it. Of large tasks the
    first 20 classes, 10 support and 15 query images per class are shown, and as many unlabelled
    images as fit; the accuracy above the plot includes all queries.

    Args:
      path: the PNG to write.
      support_images, query_images: `[S, H, W, C]` and `[Q, H, W, C]`, C = 1 or 3, uint8 or
        floats, with 0 as black and 1 as white.
      support_labels, query_labels, predicted: int `[S]`, `[Q]` and `[Q]`; support examples of
        label −1 are unlabelled and shown in a separate row.
      title: one line above the plot.
      class_names: None, or one name for each label.

    Raises:
      ValueError: images or labels have other shapes, or there are fewer names than labels.

    >>> import tempfile
    >>> images = np.zeros((4, 8, 8, 1))
    >>> figure = image_episode(
    ...     Path(tempfile.mkdtemp()) / "episode.png", images[:2], np.arange(2), images,
    ...     np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), title="maml")
    >>> sum(patch.get_gid() == "mistake" for patch in figure.axes[0].patches)
    1
    """
    support_images, query_images = _pictures(support_images, query_images)
    support_labels, query_labels = np.asarray(support_labels), np.asarray(query_labels)
    predicted = np.asarray(predicted)
    check_labels("image_episode", support_images, support_labels, query_images, query_labels)
    if predicted.shape != query_labels.shape:
        raise ValueError(
            "image_episode requires one prediction for each query label; got shapes "
            f"{predicted.shape} and {query_labels.shape}."
        )
    labels = np.unique(np.concatenate([support_labels, query_labels])).tolist()
    labels = sorted(labels, key=lambda label: (label < 0, label))[:SHOWN_CLASSES]
    support_of = {label: np.flatnonzero(support_labels == label) for label in labels}
    query_of = {label: np.flatnonzero(query_labels == label) for label in labels}
    shots = min(max(len(support_of[label]) for label in labels if label >= 0), SHOWN_SUPPORT)
    queries = min(max(map(len, query_of.values())), SHOWN_QUERIES)
    free = support_of.get(-1, np.array([], int))
    if len(free) > shots + queries:  # the row of unlabelled images has the whole width
        support_of[-1] = free[np.linspace(0, len(free) - 1, shots + queries).round().astype(int)]

    if class_names is not None and len(class_names) <= max(*labels, *predicted.tolist()):
        raise ValueError(
            f"image_episode requires a name for each label; got {len(class_names)} names and the "
            f"label {max(*labels, *predicted.tolist())}."
        )
    shown = sum(min(len(query_of[label]), queries) for label in labels)
    cut = "" if shown == len(query_labels) else f"; {shown} of the queries are shown"
    if len(free) > shots + queries:
        cut += f"; {shots + queries} of {len(free)} unlabelled images are shown"

    def name(label: int) -> str:
        if label < 0:
            return "unlabelled"
        return f"class {label}" if class_names is None else class_names[label]

    margin = 1.7  # cells, for the names at the left
    query_left = margin + shots + 0.4
    right = (predicted == query_labels).sum()
    figure, axes = _board(
        query_left + queries,
        1.25 * len(labels) + 0.4,
        0.6,
        f"{title}\n{right} of {len(predicted)} queries correct "
        f"({percent(right / len(predicted))}){cut}",
    )
    for left, text in ((margin, "support"), (query_left, "query")):
        axes.text(left, 0.22, text, color=GREY, fontsize=9, va="center")
    for row, label in enumerate(labels):
        top = 1.25 * row + 0.4
        axes.text(
            margin - 0.15,
            top + 0.5,
            _shortened(name(label), 13),
            ha="right",
            va="center",
            fontsize=9,
            parse_math=False,
        )
        for column, index in enumerate(support_of[label][: shots if label >= 0 else None]):
            _place(axes, support_images[index], margin + column, top)
        for column, index in enumerate(query_of[label][:queries]):
            _place(axes, query_images[index], query_left + column, top)
            if predicted[index] != label:
                _mark_mistake(axes, query_left + column, top, name(int(predicted[index])))
    return write(figure, path)


def prediction_sheet(
    path: str | Path,
    images: np.ndarray,
    names: Sequence[str],
    probabilities: np.ndarray,
    *,
    title: str,
    support: Mapping[str, np.ndarray] | None = None,
) -> "Figure":
    """Images with their predicted classes and probabilities, at most 60 of them.

    Args:
      path: the PNG to write.
      images: `[Q, H, W, C]`, as for `image_episode`.
      names: the predicted class of each image.
      probabilities: `[Q]` in [0, 1], of the predicted classes.
      title: one line above the plot.
      support: None, or the support images `[S, H, W, C]` of each class by name, of which the first
        is shown at the top.

    Raises:
      ValueError: there is not one name and one probability for each image.

    >>> import tempfile
    >>> figure = prediction_sheet(
    ...     Path(tempfile.mkdtemp()) / "sheet.png", np.zeros((2, 8, 8, 1)), ["apple", "pear"],
    ...     np.array([0.9, 0.6]), title="prototypical")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['apple', '90 %', 'pear', '60 %']
    """
    probabilities = np.asarray(probabilities)
    if not len(images) == len(names) == len(probabilities) or not len(names):
        raise ValueError(
            "prediction_sheet requires one name and one probability for each image; got "
            f"{len(images)} images, {len(names)} names and {len(probabilities)} probabilities."
        )
    examples = {} if support is None else dict(list(support.items())[:SHOWN_CLASSES])
    images, *firsts = _pictures(images, *(group[:1] for group in examples.values()))
    shown = min(len(images), SHOWN_PREDICTIONS)
    columns = max(min(shown, 8), min(len(examples), 8), 3)
    rows_above = -(-len(examples) // columns)
    above = 1.4 * rows_above + 0.7 if examples else 0.0
    part = f"\nthe first {shown} of {len(images)}" if shown < len(images) else ""
    figure, axes = _board(1.16 * columns, above + 1.62 * -(-shown // columns), 1.0, title + part)
    if examples:
        axes.text(0, 0.15, "support", color=GREY, fontsize=9, va="center")
        axes.text(0, above - 0.2, "predictions", color=GREY, fontsize=9, va="center")
    for index, (name, group) in enumerate(zip(examples, firsts)):
        left, top = 1.16 * (index % columns), 1.4 * (index // columns) + 0.3
        _place(axes, group[0], left, top, size=1.08)
        _caption(axes, name, left, top + 1.2)
    for index in range(shown):
        left, top = 1.16 * (index % columns), above + 1.62 * (index // columns)
        _place(axes, images[index], left, top, size=1.08)
        _caption(axes, names[index], left, top + 1.2)
        axes.plot([left, left + 0.66], [top + 1.4] * 2, color="#DDDDDD", linewidth=5, **_BUTT)
        axes.plot(
            [left, left + 0.66 * probabilities[index]],
            [top + 1.4] * 2,
            color=BLUE,
            linewidth=5,
            **_BUTT,
        )
        axes.text(
            left + 1.08,
            top + 1.4,
            percent(probabilities[index]),
            ha="right",
            va="center",
            fontsize=8,
        )
    return write(figure, path)


def _pictures(*groups: np.ndarray) -> list[np.ndarray]:
    """Images `[N, H, W, C]` as RGB floats in [0, 1], with the same scale for all groups."""
    for images in groups:
        if np.ndim(images) != 4 or np.shape(images)[-1] not in (1, 3):
            raise ValueError(
                "a plot requires images [examples, height, width, channels] with 1 or 3 channels; "
                f"got shape {np.shape(images)}."
            )
    floats = [
        images / 255 if images.dtype == np.uint8 else images.astype(float)
        for images in map(np.asarray, groups)
    ]
    low = min(0.0, *(images.min(initial=0) for images in floats))
    high = max(1.0, *(images.max(initial=1) for images in floats))
    return [
        np.broadcast_to((images - low) / (high - low), (*images.shape[:3], 3)) for images in floats
    ]


def _board(width: float, height: float, cell: float, title: str) -> tuple["Figure", "Axes"]:
    """A figure with one axes, whose unit is a cell of `cell` inches, from the top left."""
    edge, head = 0.2 / cell, (0.24 + 0.22 * (1 + title.count("\n"))) / cell
    across = max(width + 2 * edge, 6 / cell)  # wide enough for the title
    down = height + head + edge
    figure = new_figure(cell * across, cell * down, layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-edge, across - edge)
    axes.set_ylim(height + edge, -head)
    figure.text(
        edge / across,
        1 - 0.16 / (cell * down),
        title,
        va="top",
        fontsize=11,
        linespacing=1.4,
        parse_math=False,
    )
    return figure, axes


def _place(axes: "Axes", image: np.ndarray, left: float, top: float, size: float = 0.94) -> None:
    """Draw an image into the square cell at `(left, top)`, keeping its aspect ratio."""
    height, width = np.array(image.shape[:2]) * size / max(image.shape[:2])
    left, top = left + (size - width) / 2, top + (size - height) / 2
    limits = axes.axis()  # since imshow sets them to the image
    axes.imshow(image, extent=(left, left + width, top + height, top), aspect="auto")
    axes.axis(limits)


def _mark_mistake(axes: "Axes", left: float, top: float, name: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (left, top), 0.94, 0.94, fill=False, edgecolor=MISTAKE, linewidth=2, gid="mistake"
        )
    )
    axes.text(
        left + 0.47,
        top + 1.08,
        _shortened(name, 8),
        color=MISTAKE,
        ha="center",
        va="center",
        fontsize=7,
        parse_math=False,
    )


def _caption(axes: "Axes", text: str, left: float, top: float) -> None:
    axes.text(left, top, _shortened(text, 17), va="center", fontsize=8.5, parse_math=False)


def _shortened(text: str, length: int) -> str:
    """Both ends of a long text, since class names often differ only in the last letters."""
    tail, text = length // 2, shown(text)
    return text if len(text) <= length else f"{text[: length - 1 - tail]}…{text[-tail:]}"

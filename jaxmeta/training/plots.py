"""Pictures of a run: how it learned, how it adapts, what it says about one task.

Every function takes plain arrays, replaces the PNG at `path` in one step, and returns the
matplotlib figure for who wants to show it. matplotlib is imported by the first picture.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta.training import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

DPI = 130
# Okabe and Ito's palette, which the colour-blind can tell apart.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BROWN, BLACK = "#E69F00", "#56B4E9", "#7A5C2E", "#222222"
CLASS_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BROWN, BLACK)
CLASS_MARKERS = "os^Dv"  # with the colours, 40 classes that look different
MISTAKE = "#C81E1E"
GREY = "#777777"

SHOWN_CLASSES, SHOWN_SUPPORT, SHOWN_QUERIES, SHOWN_PREDICTIONS = 20, 10, 15, 60


def learning_curve(path: str | Path, rows: Sequence[Mapping[str, Any]], *, title: str) -> "Figure":
    """Loss, and accuracy where there is one, over the meta-updates; the best validation marked.

    Args:
      path: the PNG to write.
      rows: as `read_metrics` gives them: `step`, `train_loss`, and perhaps `train_accuracy`,
        `validation_loss`, `validation_accuracy`. Validation may be rarer. A loss without
        accuracies is drawn on a logarithmic axis.
      title: one line above the picture.

    Raises:
      ValueError: no row holds a finite `train_loss`.

    >>> import tempfile
    >>> rows = [{"step": step, "train_loss": 1 / step} for step in range(1, 100)]
    >>> figure = learning_curve(Path(tempfile.mkdtemp()) / "curve.png", rows, title="maml")
    >>> len(figure.axes)
    1
    """
    if not len(_series(rows, "train_loss")[0]):
        raise ValueError("learning_curve wants rows with a finite train_loss; got none.")
    names = [name for name in ("accuracy", "loss") if len(_series(rows, f"train_{name}")[0])]
    steps, values = _series(rows, f"validation_{names[0]}")
    best = np.nan  # no step
    if len(steps):
        best = steps[values.argmax() if names[0] == "accuracy" else values.argmin()]

    figure = _figure(1 + 5.2 * len(names), 4.2)
    figure.suptitle(title, fontsize=12, parse_math=False)
    for name, axes in zip(names, np.ravel(figure.subplots(1, len(names), squeeze=False))):
        _style(axes, "meta-update", name)
        _draw_learning(axes, rows, name, best)
        _count(axes.xaxis)
        axes.set_xlim(left=0)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(_percent)
        elif len(names) == 1 and _series(rows, "train_loss")[1].min() > 0:
            _logarithmic(axes)
        axes.legend(frameon=False, fontsize=9)
    return _write(figure, path)


def _draw_learning(axes: "Axes", rows: Sequence[Mapping[str, Any]], name: str, best: float) -> None:
    steps, values = _series(rows, f"train_{name}")
    marker = "o" if len(steps) < 10 else ""
    axes.plot(steps, values, color=BLUE, alpha=0.25, linewidth=1)
    axes.plot(steps, _smooth(values), color=BLUE, marker=marker, markersize=4, label="training")
    steps, values = _series(rows, f"validation_{name}")
    if not len(steps):
        return
    axes.plot(steps, values, "o-", color=ORANGE, markersize=4, linewidth=1.2, label="validation")
    for value in values[steps == best]:
        said = _percent(value) if name == "accuracy" else f"{value:.3g}"
        axes.plot(
            [best],
            [value],
            "*",
            color=VERMILION,
            markeredgecolor="white",
            markersize=15,
            linestyle="none",
            label=f"kept: {said} after {best:,.0f}",
        )


def adaptation_curve(
    path: str | Path,
    means: np.ndarray,
    half_widths: np.ndarray,
    *,
    ylabel: str,
    title: str,
    trained_steps: int,
) -> "Figure":
    """What 0, 1, 2, ... inner steps bring on test tasks, with a 95 % band.

    Args:
      path: the PNG to write.
      means: `[steps + 1]`, accuracy as a fraction or an error.
      half_widths: `[steps + 1]`, of the 95 % interval.
      ylabel: what `means` is; with the word accuracy in it the axis is in percent, else it is
        logarithmic where the means span more than a factor of 10.
      title: one line above the picture.
      trained_steps: the number of inner steps in training, marked.

    Raises:
      ValueError: `means` and `half_widths` are not vectors of one length.

    >>> import tempfile
    >>> figure = adaptation_curve(
    ...     Path(tempfile.mkdtemp()) / "adaptation.png", np.array([0.2, 0.9]),
    ...     np.array([0.01, 0.02]), ylabel="test accuracy", title="maml", trained_steps=1)
    >>> figure.axes[0].get_ylabel()
    'test accuracy'
    """
    means, half_widths = np.asarray(means, float), np.asarray(half_widths, float)
    if means.ndim != 1 or means.shape != half_widths.shape or not len(means):
        raise ValueError(
            "adaptation_curve wants one mean and one half-width for each number of steps; got "
            f"shapes {means.shape} and {half_widths.shape}."
        )
    steps = np.arange(len(means))
    figure = _figure(6.4, 4.4)
    axes = figure.subplots()
    _style(axes, "inner steps at test", ylabel)
    figure.suptitle(title, fontsize=12, parse_math=False)
    axes.fill_between(
        steps, means - half_widths, means + half_widths, color=BLUE, alpha=0.2, linewidth=0
    )
    marker = "o" if len(means) <= 30 else ""
    axes.plot(steps, means, color=BLUE, marker=marker, markersize=5, label="mean and 95 % interval")
    axes.axvline(
        trained_steps, color=ORANGE, linestyle="--", zorder=0, label=f"in training: {trained_steps}"
    )
    _count(axes.xaxis)
    if "accuracy" in ylabel:
        axes.yaxis.set_major_formatter(_percent)
    else:
        shown = means[np.isfinite(means) & (means > 0)]
        if len(shown) and shown.max() > 10 * shown.min():
            _logarithmic(axes)
            axes.set_ylim(shown.min() / 1.6, shown.max() * 1.6)
    axes.legend(frameon=False, fontsize=9)
    return _write(figure, path)


def embedding_map(
    path: str | Path,
    support: np.ndarray,
    support_labels: np.ndarray,
    query: np.ndarray,
    query_labels: np.ndarray,
    prototypes: np.ndarray | None = None,
    *,
    title: str,
) -> "Figure":
    """The embeddings of one task in the plane of their first two principal components.

    Args:
      path: the PNG to write.
      support, query: `[S, D]` and `[Q, D]`, drawn large and small.
      support_labels, query_labels: int `[S]` and `[Q]`.
      prototypes: None or `[W, D]` in the order of the labels, drawn as crosses.
      title: one line above the picture.

    Raises:
      ValueError: embeddings that are not `[examples, D]`, or labels of another length.

    >>> import tempfile
    >>> points = np.eye(4)
    >>> figure = embedding_map(
    ...     Path(tempfile.mkdtemp()) / "map.png", points[:2], np.arange(2), points[2:],
    ...     np.arange(2), title="prototypical")
    >>> len(figure.axes)
    1
    """
    support, query = np.asarray(support, float), np.asarray(query, float)
    support_labels, query_labels = np.asarray(support_labels), np.asarray(query_labels)
    if support.ndim != 2 or query.shape[1:] != support.shape[1:]:
        raise ValueError(
            "embedding_map wants embeddings [examples, D]; got shapes "
            f"{support.shape} (support) and {query.shape} (query)."
        )
    _check_labels("embedding_map", support, support_labels, query, query_labels)

    everything = np.concatenate([support, query])
    center = everything.mean(axis=0)
    _, sizes, directions_DD = np.linalg.svd(everything - center, full_matrices=False)
    shares = np.pad(sizes**2 / max((sizes**2).sum(), 1e-12), (0, 1))
    plane_2D = np.pad(directions_DD, ((0, 1), (0, 0)))[:2]

    figure = _figure(7.8, 5.6)
    axes = figure.subplots()
    _style(
        axes,
        f"first principal component ({_percent(shares[0])} of the variance)",
        f"second ({_percent(shares[1])})",
    )
    figure.suptitle(title, fontsize=12, parse_math=False)
    for label in np.unique(np.concatenate([support_labels, query_labels])):
        look: dict[str, Any] = {
            "color": CLASS_COLORS[label % len(CLASS_COLORS)],
            "marker": CLASS_MARKERS[label // len(CLASS_COLORS) % len(CLASS_MARKERS)],
        }
        small = (query[query_labels == label] - center) @ plane_2D.T
        large = (support[support_labels == label] - center) @ plane_2D.T
        axes.scatter(*small.T, s=16, alpha=0.6, linewidths=0, **look)
        axes.scatter(
            *large.T, s=130, edgecolors="white", linewidths=1.2, label=f"class {label}", **look
        )
    if prototypes is not None:
        crosses = (np.asarray(prototypes, float) - center) @ plane_2D.T
        axes.scatter(*crosses.T, s=34, marker="x", color="white", linewidths=3, zorder=3)
        axes.scatter(*crosses.T, s=28, marker="x", color="black", linewidths=1.4, zorder=3)
    keys: list[tuple[str, dict[str, Any]]] = [
        ("support", {"s": 130, "color": GREY, "edgecolors": "white"}),
        ("query", {"s": 16, "color": GREY, "alpha": 0.6}),
    ]
    if prototypes is not None:
        keys.append(("prototype", {"s": 28, "marker": "x", "color": "black"}))
    for name, look in keys:
        axes.scatter([], [], label=name, **look)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return _write(figure, path)


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
    """One task of images, a row for each class: what it learned from, what it said, what was wrong.

    A query that was taken for another class has a red frame, and that class is written below.
    Of large tasks the first 20 classes, 10 support and 15 query images of a class are shown;
    the share of right answers above the picture counts them all.

    Args:
      path: the PNG to write.
      support_images, query_images: `[S, H, W, C]` and `[Q, H, W, C]`, C = 1 or 3, uint8 or
        floats, of which [0, 1] is black to white.
      support_labels, query_labels, predicted: int `[S]`, `[Q]` and `[Q]`.
      title: one line above the picture.
      class_names: None or one name for each label.

    Raises:
      ValueError: images or labels of other shapes.

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
    _check_labels("image_episode", support_images, support_labels, query_images, query_labels)
    if predicted.shape != query_labels.shape:
        raise ValueError(
            "image_episode wants one prediction for each query label; got shapes "
            f"{predicted.shape} and {query_labels.shape}."
        )
    labels = np.unique(np.concatenate([support_labels, query_labels]))[:SHOWN_CLASSES].tolist()
    support_of = {label: np.flatnonzero(support_labels == label) for label in labels}
    query_of = {label: np.flatnonzero(query_labels == label) for label in labels}
    shots = min(max(map(len, support_of.values())), SHOWN_SUPPORT)
    queries = min(max(map(len, query_of.values())), SHOWN_QUERIES)

    def name(label: int) -> str:
        return f"class {label}" if class_names is None else class_names[label]

    margin = 1.7  # cells, for the names at the left
    query_left = margin + shots + 0.4
    right = (predicted == query_labels).sum()
    figure, axes = _board(
        query_left + queries,
        1.25 * len(labels) + 0.4,
        0.6,
        f"{title}\n{right} of {len(predicted)} queries right ({_percent(right / len(predicted))})",
    )
    for left, text in ((margin, "support"), (query_left, "query")):
        axes.text(left, 0.22, text, color=GREY, fontsize=9, va="center")
    for row, label in enumerate(labels):
        top = 1.25 * row + 0.4
        axes.text(
            margin - 0.15,
            top + 0.5,
            _shortened(name(label), 14),
            ha="right",
            va="center",
            fontsize=9,
            parse_math=False,
        )
        for column, index in enumerate(support_of[label][:shots]):
            _place(axes, support_images[index], margin + column, top)
        for column, index in enumerate(query_of[label][:queries]):
            _place(axes, query_images[index], query_left + column, top)
            if predicted[index] != label:
                _mark_mistake(axes, query_left + column, top, name(int(predicted[index])))
    return _write(figure, path)


def curve_episode(
    path: str | Path,
    x: np.ndarray,
    true_y: np.ndarray,
    support_x: np.ndarray,
    support_y: np.ndarray,
    fits: Mapping[int, np.ndarray],
    *,
    title: str,
) -> "Figure":
    """One regression task: the true curve, the points given, the fit before and after adaptation.

    Args:
      path: the PNG to write.
      x, true_y: `[points]`, the curve to be found.
      support_x, support_y: `[S]`, the points to learn from.
      fits: `[points]` for each number of inner steps shown; 0 is before adaptation.
      title: one line above the picture.

    Raises:
      ValueError: arrays that are not vectors of matching lengths.

    >>> import tempfile
    >>> x = np.linspace(-5, 5, 50)
    >>> figure = curve_episode(
    ...     Path(tempfile.mkdtemp()) / "curve.png", x, np.sin(x), x[::10], np.sin(x[::10]),
    ...     {0: 0 * x, 1: 0.9 * np.sin(x)}, title="maml")
    >>> [text.get_text() for text in figure.legends[0].get_texts()][1:]
    ['true curve', 'before adaptation', 'after 1 step']
    """
    shapes = {np.shape(values) for values in (x, true_y, *fits.values())}
    if (
        shapes != {(len(x),)}
        or np.ndim(support_x) != 1
        or np.shape(support_x) != np.shape(support_y)
    ):
        raise ValueError(
            "curve_episode wants vectors: one true value and one of every fit for each x, one y "
            f"for each support x; got curves {sorted(shapes)}, support {np.shape(support_x)} and "
            f"{np.shape(support_y)}."
        )
    figure = _figure(8.6, 4.4)
    axes = figure.subplots()
    _style(axes, "x", "y")
    figure.suptitle(title, fontsize=12, parse_math=False)
    axes.plot(
        support_x,
        support_y,
        "o",
        color=BLACK,
        markeredgecolor="white",
        markersize=9,
        zorder=4,
        label=f"support ({len(support_x)} points)",
    )
    axes.plot(x, true_y, color=BLACK, linewidth=2.4, alpha=0.8, label="true curve")
    after = iter((SKY, BLUE, GREEN, PURPLE))
    for steps, y in sorted(fits.items()):
        if steps == 0:
            axes.plot(x, y, "--", color=ORANGE, label="before adaptation")
        else:
            plural = "step" if steps == 1 else "steps"
            axes.plot(x, y, color=next(after, GREY), label=f"after {steps} {plural}", linewidth=1.6)
    # A fit that runs away must not flatten the curve.
    low, high = np.min(true_y), np.max(true_y)
    room = max(high - low, 1e-3) / 2
    shown = np.clip(np.concatenate([true_y, *fits.values()]), low - room, high + room)
    shown = np.concatenate([shown[np.isfinite(shown)], support_y])
    axes.set_ylim(shown.min() - room / 5, shown.max() + room / 5)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9
    )
    return _write(figure, path)


def prediction_sheet(
    path: str | Path,
    images: np.ndarray,
    names: Sequence[str],
    probabilities: np.ndarray,
    *,
    title: str,
    support: Mapping[str, np.ndarray] | None = None,
) -> "Figure":
    """Images with the class each was taken for and how probable that is, at most 60 of them.

    Args:
      path: the PNG to write.
      images: `[Q, H, W, C]`, as for `image_episode`.
      names: the predicted class of each.
      probabilities: `[Q]` in [0, 1], of that class.
      title: one line above the picture.
      support: None, or images `[S, H, W, C]` of each class learned from, of which the first one
        is shown at the top.

    Raises:
      ValueError: other than one name and one probability for each image.

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
            "prediction_sheet wants one name and one probability for each image; got "
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
        axes.text(0, 0.15, "learned from", color=GREY, fontsize=9, va="center")
        axes.text(0, above - 0.2, "named", color=GREY, fontsize=9, va="center")
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
            _percent(probabilities[index]),
            ha="right",
            va="center",
            fontsize=8,
        )
    return _write(figure, path)


# --- series -------------------------------------------------------------------------------


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values of the rows that have a finite one; null stands for NaN and ±inf."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    steps, values = np.array(points, float).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _smooth(values: np.ndarray) -> np.ndarray:
    """The centred mean over a twentieth of the rows; shorter at both ends."""
    window = np.ones(2 * (len(values) // 40) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")


def _percent(fraction: float, position: float = 0) -> str:
    percent = round(100 * float(fraction), 1)
    return f"{percent:g} %"


# --- images -------------------------------------------------------------------------------

_BUTT: dict[str, Any] = {"solid_capstyle": "butt"}


def _pictures(*groups: np.ndarray) -> list[np.ndarray]:
    """Images `[N, H, W, C]` as RGB floats in [0, 1], on one scale for all groups."""
    for images in groups:
        if np.ndim(images) != 4 or np.shape(images)[-1] not in (1, 3):
            raise ValueError(
                "a picture wants images [examples, height, width, channels] with 1 or 3 channels; "
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
    """A figure whose only axes count in cells of `cell` inches, from the top left."""
    edge, head = 0.2 / cell, (0.24 + 0.22 * (1 + title.count("\n"))) / cell
    across = max(width + 2 * edge, 6 / cell)  # wide enough for the title
    down = height + head + edge
    figure = _figure(cell * across, cell * down, layout="none")
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
    """Draw an image into the square cell at `(left, top)`, keeping its proportions."""
    height, width = np.array(image.shape[:2]) * size / max(image.shape[:2])
    left, top = left + (size - width) / 2, top + (size - height) / 2
    limits = axes.axis()  # imshow would fit them to the image
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
        _shortened(name, 9),
        color=MISTAKE,
        ha="center",
        va="center",
        fontsize=7,
        parse_math=False,
    )


def _caption(axes: "Axes", text: str, left: float, top: float) -> None:
    axes.text(left, top, _shortened(text, 15), va="center", fontsize=8.5, parse_math=False)


def _shortened(text: str, length: int) -> str:
    """Both ends of a long text: names of classes often differ in the last letters alone."""
    tail = length // 2
    return text if len(text) <= length else f"{text[: length - 1 - tail]}…{text[-tail:]}"


def _check_labels(
    name: str,
    support: np.ndarray,
    support_labels: np.ndarray,
    query: np.ndarray,
    query_labels: np.ndarray,
) -> None:
    for part, examples, labels in (
        ("support", support, support_labels),
        ("query", query, query_labels),
    ):
        if labels.shape != examples.shape[:1] or not len(labels):
            raise ValueError(
                f"{name} wants one label for each {part} example; got {len(examples)} examples "
                f"and labels of shape {labels.shape}."
            )


# --- figures ------------------------------------------------------------------------------


def _figure(width: float, height: float, layout: Any = "constrained") -> "Figure":
    from matplotlib.figure import Figure  # not pyplot, which keeps global state and a window

    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def _style(axes: "Axes", xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)


def _count(axis: "XAxis") -> None:
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], nbins=7))
    axis.set_major_formatter("{x:,.0f}")


def _logarithmic(axes: "Axes") -> None:
    """A logarithmic y axis with numbers as people write them."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _write(figure: "Figure", path: str | Path) -> "Figure":
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    files.write_bytes(path, buffer.getvalue())
    return figure

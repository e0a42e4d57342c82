"""The embeddings of the examples of one task by a metric learner."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmeta.plots.figures import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    check_labels,
    new_figure,
    percent,
    style,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS_COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BROWN, BLACK)
CLASS_MARKERS = "os^Dv"  # with the colours, 40 distinct classes


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
    """The embeddings of one task, projected on their first two principal components.

    Args:
      path: the PNG to write.
      support, query: embeddings `[S, D]` and `[Q, D]`, drawn as large and small markers.
      support_labels, query_labels: int `[S]` and `[Q]`.
      prototypes: None, or `[W, D]` in the order of the labels, drawn as crosses.
      title: one line above the plot.

    Raises:
      ValueError: embeddings are not `[examples, D]` or not finite; prototypes have another width;
        labels have another length.

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
            "embedding_map requires embeddings [examples, D]; got shapes "
            f"{support.shape} (support) and {query.shape} (query)."
        )
    check_labels("embedding_map", support, support_labels, query, query_labels)
    if prototypes is not None and np.shape(prototypes)[1:] != support.shape[1:]:
        raise ValueError(
            f"embedding_map requires prototypes [ways, {support.shape[1]}]; got shape "
            f"{np.shape(prototypes)}."
        )
    if not (np.isfinite(support).all() and np.isfinite(query).all()):
        raise ValueError("embedding_map cannot draw embeddings that are NaN or infinite.")

    everything = np.concatenate([support, query])
    center = everything.mean(axis=0)
    _, sizes, directions_DD = np.linalg.svd(everything - center, full_matrices=False)
    shares = np.pad(sizes**2 / max((sizes**2).sum(), 1e-12), (0, 1))
    plane_2D = np.pad(directions_DD, ((0, 1), (0, 0)))[:2]

    figure = new_figure(7.8, 5.6, title)
    axes = figure.subplots()
    style(
        axes,
        f"first principal component ({percent(shares[0])} of the variance)",
        f"second ({percent(shares[1])})",
    )
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
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    return write(figure, path)

"""The predictions of neural processes: means with standard deviations."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import BLACK, BLUE, GREEN, new_figure, style, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Band = tuple[np.ndarray, np.ndarray]  # mean and standard deviation


def process_episode(
    path: str | Path,
    x: np.ndarray,
    prediction: Band,
    context: tuple[np.ndarray, np.ndarray],
    targets: tuple[np.ndarray, np.ndarray],
    *,
    oracle: Band | None = None,
    title: str,
) -> "Figure":
    """One curve: context and target points, the prediction with ± 2 σ, and the oracle's ± 2 σ.

    Args:
      path: the PNG to write.
      x: `[points]`, in ascending order.
      prediction: mean and standard deviation, `[points]` each.
      context, targets: x and y of the context points, and of the target points.
      oracle: None, or mean and standard deviation of the exact posterior.
      title: one line above the plot.

    Raises:
      ValueError: a mean or standard deviation has another length than x.

    >>> import tempfile
    >>> x = np.linspace(-2, 2, 50)
    >>> figure = process_episode(
    ...     Path(tempfile.mkdtemp()) / "curve.png", x, (np.sin(x), 0.2 + 0 * x),
    ...     (x[::10], np.sin(x[::10])), (x[::5], np.sin(x[::5])), title="cnp")
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['mean ± 2 σ', 'targets', 'context']
    """
    bands = {"mean ± 2 σ": prediction, **({} if oracle is None else {"oracle ± 2 σ": oracle})}
    for name, band in bands.items():
        if {np.shape(values) for values in band} != {(len(x),)}:
            raise ValueError(
                f"process_episode requires a mean and a standard deviation for each of {len(x)} x; "
                f"{name} has {np.shape(band[0])} and {np.shape(band[1])}."
            )
    figure = new_figure(8.6, 4.4, title)
    axes = figure.subplots()
    style(axes, "x", "y")
    for (name, (mean, std)), colour in zip(bands.items(), (BLUE, GREEN)):
        low, high = mean - 2 * std, mean + 2 * std
        if colour == BLUE:
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, mean, color=colour, linewidth=1.8, label=name)
        else:
            axes.plot(x, low, color=colour, linewidth=1.2, linestyle="--", label=name)
            axes.plot(x, high, color=colour, linewidth=1.2, linestyle="--")
    axes.plot(*targets, ".", color="#999999", markersize=5, label="targets")
    axes.plot(*context, "o", color=BLACK, markersize=6, label="context")
    axes.legend(frameon=False, fontsize=9)
    return write(figure, path)


def completions(
    path: str | Path,
    image: np.ndarray,
    rows: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    title: str,
) -> "Figure":
    """The completion of an image from different numbers of known pixels, a row for each.

    Args:
      path: the PNG to write.
      image: `[H, W]`, from 0 to 1.
      rows: by the number of known pixels, a mask of these pixels (bool `[H, W]`), and the mean
        and standard deviation of the prediction, `[H, W]` each.
      title: one line above the plot.

    >>> import tempfile
    >>> image = np.eye(5)
    >>> figure = completions(
    ...     Path(tempfile.mkdtemp()) / "image.png", image, {3: (image > 0, image, 0 * image)},
    ...     title="cnp")
    >>> len(figure.axes)
    4
    """
    figure = new_figure(1.9 * 4, 0.8 + 1.9 * len(rows), title)
    grid = figure.subplots(len(rows), 4, squeeze=False)
    for line, (count, (known, mean, std)) in zip(grid, rows.items()):
        unknown = np.where(known, 0.0, 1.0)[..., None] * np.array([0.55, 0.65, 0.85])
        shown = np.where(known[..., None], image[..., None].repeat(3, axis=-1), unknown)
        for axes, (name, values) in zip(
            line,
            {"known": shown, "mean": mean, "std": std, "image": image}.items(),
            strict=True,
        ):
            most = None if name == "std" else 1
            axes.imshow(values, cmap="gray", vmin=0, vmax=most, interpolation="nearest")
            axes.set_axis_off()
            if axes in grid[0]:
                axes.set_title(name, fontsize=10)
        line[0].text(
            -0.08,
            0.5,
            f"{count}",
            transform=line[0].transAxes,
            ha="right",
            va="center",
            fontsize=10,
        )
    return write(figure, path)

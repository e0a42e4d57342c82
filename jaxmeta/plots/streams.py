"""Streams with switches: the belief about the present regime, and the losses after a switch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    count_ticks,
    new_figure,
    style,
    write,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (BLUE, GREEN, VERMILION, ORANGE, PURPLE, SKY, BROWN, BLACK)


def run_lengths(
    path: str | Path,
    targets: np.ndarray,
    posterior: np.ndarray,
    switches: np.ndarray | None = None,
    *,
    title: str,
) -> "Figure":
    """The targets of a stream above the belief about the run length after each of them.

    Args:
      path: the PNG to write.
      targets: `[T]`.
      posterior: `[T, R]`, the probability of each number of earlier examples of the regime.
      switches: None, or bool `[T]`, the first examples of new regimes: vertical lines, and the
        true run length.
      title: one line above the plot.

    Raises:
      ValueError: the numbers of examples differ.

    >>> import tempfile
    >>> figure = run_lengths(
    ...     Path(tempfile.mkdtemp()) / "belief.png", np.zeros(3), np.eye(3),
    ...     np.array([False, True, False]), title="moca")
    >>> len(figure.axes)
    2
    """
    steps = np.arange(len(targets))
    if len(posterior) != len(steps) or (switches is not None and len(switches) != len(steps)):
        raise ValueError(
            f"run_lengths requires a belief and a switch for each of {len(steps)} targets; got "
            f"{len(posterior)} beliefs and {None if switches is None else len(switches)} switches."
        )
    figure = new_figure(9.0, 5.2, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    style(above, "", "target")
    above.plot(steps, targets, ".", color=BLACK, markersize=5)
    style(below, "example", "run length")
    below.grid(visible=False)
    edges = np.arange(len(steps) + 1) - 0.5, np.arange(posterior.shape[1] + 1) - 0.5
    below.pcolormesh(*edges, np.sqrt(posterior).T, cmap="Blues", vmin=0, vmax=1, rasterized=True)
    if switches is not None:
        starts = np.maximum.accumulate(np.where(switches, steps, 0))
        length = (steps - starts).astype(float)
        length[switches] = np.nan  # no line from one regime to the next
        below.plot(steps, length, color=VERMILION, linewidth=1.2, label="true run length")
        for place in np.flatnonzero(switches):
            above.axvline(place - 0.5, color=VERMILION, linewidth=0.9)
        below.legend(frameon=False, fontsize=9, loc="upper left")
    likely = np.flatnonzero(posterior.max(axis=0) > 0.05)
    below.set_ylim(-0.5, max(likely.max(initial=0), 3) + 1.5)
    return write(figure, path)


def losses_since_switch(
    path: str | Path, curves: Mapping[str, Sequence[float | None]], *, title: str
) -> "Figure":
    """The mean loss at the first, second, … example after a switch, a line for each method.

    Args:
      path: the PNG to write.
      curves: the losses by method; None where there is no example.
      title: one line above the plot.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "since.png"
    >>> figure = losses_since_switch(path, {"learned": [2.0, 1.0, None]}, title="moca")
    >>> figure.axes[0].get_xlabel()
    'examples since the switch'
    """
    figure = new_figure(7.5, 4.2, title)
    axes = figure.subplots()
    style(axes, "examples since the switch", "negative log-likelihood")
    axes.set_yscale("symlog", linthresh=1.0)
    for number, (name, losses) in enumerate(curves.items()):
        values = np.array([np.nan if loss is None else loss for loss in losses])
        colour, wide = _COLOURS[number % len(_COLOURS)], number == 0
        axes.plot(values, color=colour, linewidth=2.0 if wide else 1.2, marker=".", label=name)
    count_ticks(axes.xaxis)
    axes.legend(frameon=False, fontsize=9)
    return write(figure, path)

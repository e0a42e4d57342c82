"""One sequence task: inputs, targets, outputs, and the weightings of memory heads."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import count_ticks, new_figure, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sequence_episode(
    path: str | Path,
    inputs: np.ndarray,
    targets: np.ndarray,
    outputs: np.ndarray,
    judged: np.ndarray,
    seen: Mapping[str, np.ndarray],
    *,
    title: str,
) -> "Figure":
    """One sequence over its steps: rows for input, target, output, error and the weightings.

    Args:
      path: the PNG to write.
      inputs: float `[T, D]`.
      targets: float `[T, B]`, 0 to 1.
      outputs: float `[T, B]`, probabilities.
      judged: bool `[T]`, a mask of the steps whose output counts; the others are left blank.
      seen: weightings by name, float `[T, heads, N]` or `[T, N]`; heads are summed.
      title: one line above the plot.

    Raises:
      ValueError: inputs, targets, outputs and `judged` differ in length.

    >>> import tempfile
    >>> bits = np.random.default_rng(0).integers(0, 2, (6, 3)).astype(float)
    >>> figure = sequence_episode(
    ...     Path(tempfile.mkdtemp()) / "copy.png", bits, bits, bits, np.ones(6, bool),
    ...     {"read": np.eye(6)[:, None]}, title="copy")
    >>> len(figure.axes)
    5
    """
    if not len(inputs) == len(targets) == len(outputs) == len(judged):
        raise ValueError(
            f"sequence_episode requires one input, target and output per step; got {len(inputs)}, "
            f"{len(targets)} and {len(outputs)} for {len(judged)} steps."
        )
    blank = np.where(judged[:, None], 1.0, np.nan)
    rows = {
        "input": inputs,
        "target": targets * blank,
        "output": outputs * blank,
        "error": np.abs(outputs - targets) * blank,
        **{
            f"{name} weights": weights.sum(axis=1) if weights.ndim == 3 else weights
            for name, weights in seen.items()
        },
    }
    heights = [min(max(values.shape[1] / 8, 0.7), 2.4) for values in rows.values()]
    figure = new_figure(9.0, 0.7 + sum(heights) + 0.35 * len(rows), title)
    grid = figure.subplots(len(rows), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, values) in zip(grid, rows.items()):
        of_heads = name.endswith("weights")
        most = max(float(np.nanmax(values, initial=0.0)), 1e-9) if of_heads else 1.0
        least = min(float(np.nanmin(values, initial=0.0)), 0.0) if name == "input" else 0.0
        axes.imshow(
            values.T,
            aspect="auto",
            interpolation="nearest",
            cmap="Reds" if name == "error" else "viridis" if of_heads else "Greys",
            vmin=least,
            vmax=most,
        )
        axes.set_facecolor("#F2F2F2")
        axes.set_ylabel(name.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=9)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    count_ticks(grid[-1].xaxis)
    grid[-1].set_xlabel("step")
    return write(figure, path)

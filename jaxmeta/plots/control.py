"""Trajectories of policies in the plane, the regret of bandits, and errors of dynamics models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxmeta.plots.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    logarithmic,
    mean_with_interval,
    new_figure,
    style,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def trajectories(
    path: str | Path, goals: np.ndarray, before: np.ndarray, after: np.ndarray, *, title: str
) -> "Figure":
    """Trajectories before and after the adaptation to each goal, in a panel for each task.

    Args:
      path: the PNG to write.
      goals: `[tasks, 2]`, marked by a star.
      before, after: positions `[tasks, episodes, steps, 2]`, NaN after the end of an episode.
      title: one line above the plot.

    Raises:
      ValueError: there are no tasks.

    >>> import tempfile
    >>> walks = np.cumsum(np.ones((1, 2, 5, 2)), axis=2)
    >>> path = Path(tempfile.mkdtemp()) / "trajectories.png"
    >>> figure = trajectories(path, np.full((1, 2), 5.0), walks, -walks, title="navigation")
    >>> len(figure.axes)
    1
    """
    if not len(goals):
        raise ValueError("trajectories requires at least one task.")
    columns = min(4, len(goals))
    rows = -(-len(goals) // columns)
    figure = new_figure(0.6 + 2.7 * columns, 0.8 + 2.7 * rows, title)
    places = np.ravel(figure.subplots(rows, columns, squeeze=False))
    # The same range everywhere, that of the goals and of the adapted policies.
    reach = 1.15 * np.nanmax(np.abs(np.concatenate([goals.ravel(), after.ravel()])))
    for axes, goal, *walks in zip(places, goals, before, after):
        for name, colour, own in zip(("before", "after"), (GREY, BLUE), walks):
            for number, positions in enumerate(own):
                label = name if number == 0 else None
                axes.plot(*positions.T, color=colour, alpha=0.5, linewidth=0.9, label=label)
        axes.plot(*goal, "*", color=VERMILION, markersize=13, markeredgecolor="white", zorder=3)
        axes.plot(0, 0, "o", color="black", markersize=4, zorder=3)
        style(axes, "", "")
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    places[0].legend(frameon=False, fontsize=9)
    for axes in places[len(goals) :]:
        axes.set_axis_off()
    return write(figure, path)


def frames(
    path: str | Path,
    outlines: Mapping[str, np.ndarray],
    moved: Mapping[str, np.ndarray],
    *,
    title: str,
) -> "Figure":
    """A strip of frames of a robot in the plane, one below the other for each episode.

    Args:
      path: the PNG to write.
      outlines: by the name of the episode, `[frames, segments, 2, 2]`, the ends (x, z) of the
        robot's parts in m, x relative to the robot.
      moved: by the same name, the distance along x so far at each frame, in m, `[frames]`.
      title: one line above the plot.

    Raises:
      ValueError: there are no episodes.

    >>> import tempfile
    >>> leg = np.array([[[0.0, 0.0], [0.2, 0.5]]])
    >>> path = Path(tempfile.mkdtemp()) / "frames.png"
    >>> len(frames(path, {"a": leg[None]}, {"a": np.zeros(1)}, title="a leg").axes)
    1
    """
    if not outlines:
        raise ValueError("frames requires at least one episode.")
    figure = new_figure(10.5, 0.7 + 1.35 * len(outlines), title)
    places = np.ravel(figure.subplots(len(outlines), 1, squeeze=False))
    width = 1.2 * max(float(np.ptp(own[..., 0])) for own in outlines.values())
    for axes, (name, own) in zip(places, outlines.items()):
        axes.axhline(0, color=GREY, linewidth=0.8)
        for number, (segments, distance) in enumerate(zip(own, moved[name])):
            for ends in segments:
                axes.plot(width * number + ends[:, 0], ends[:, 1], color=BLUE, linewidth=2.5)
            axes.annotate(
                f"{round(float(distance), 1) + 0.0:+.1f} m",
                (width * number, 0),
                (0, -3),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8,
            )
        axes.set_title(name, fontsize=9, loc="left")
        axes.set(aspect="equal", xlim=(-width / 2, width * (len(own) - 0.5)))
        axes.set_axis_off()
    return write(figure, path)


def regret_curves(path: str | Path, curves: Mapping[str, np.ndarray], *, title: str) -> "Figure":
    """The mean regret so far after each pull, with its 95 % interval over the bandits.

    Args:
      path: the PNG to write.
      curves: the sums of regrets of each rule by name, float `[bandits, pulls]`.
      title: one line above the plot.

    Raises:
      ValueError: there are no curves, or more than four.

    >>> import tempfile
    >>> sums = np.cumsum(np.random.default_rng(0).random((20, 10)), axis=1)
    >>> path = Path(tempfile.mkdtemp()) / "regret.png"
    >>> len(regret_curves(path, {"UCB1": sums}, title="5 arms").axes)
    1
    """
    if not 1 <= len(curves) <= 4:
        raise ValueError(f"regret_curves requires one to four curves; got {len(curves)}.")
    figure, axes = _with_intervals(curves, title)
    style(axes, "pulls", "regret so far")
    return write(figure, path)


def prediction_errors(
    path: str | Path, errors: Mapping[str, np.ndarray], *, title: str
) -> "Figure":
    """The mean error of predictions 1, 2, ... steps ahead, with 95 % intervals over the tasks.

    Args:
      path: the PNG to write.
      errors: the errors of each model by name, float `[tasks, steps]`, positive.
      title: one line above the plot.

    Raises:
      ValueError: there are no errors, or of more than four models.

    >>> import tempfile
    >>> errors = np.random.default_rng(0).random((20, 10)) + 0.1
    >>> path = Path(tempfile.mkdtemp()) / "errors.png"
    >>> len(prediction_errors(path, {"adapted": errors}, title="pendulum").axes)
    1
    """
    if not 1 <= len(errors) <= 4:
        raise ValueError(f"prediction_errors requires one to four models; got {len(errors)}.")
    figure, axes = _with_intervals(errors, title)
    logarithmic(axes)
    style(axes, "steps ahead", "error of the observation")
    return write(figure, path)


def _with_intervals(curves: Mapping[str, np.ndarray], title: str) -> tuple["Figure", "Axes"]:
    """A figure of up to four means from 1 on, with 95 % intervals over the rows, and its legend."""
    figure = new_figure(6.2, 4.2, title)
    axes = figure.subplots()
    for colour, (name, own) in zip((VERMILION, BLUE, GREEN, ORANGE), curves.items()):
        mean_with_interval(axes, np.arange(1, own.shape[1] + 1), own, colour, name)
    axes.legend(frameon=False, fontsize=9)
    return figure, axes

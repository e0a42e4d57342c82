"""Figures on whole pools against the number of support examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from jaxmeta.plots.figures import BLUE, GREY, new_figure, style, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_OTHERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*")


def figures_by_test(
    path: str | Path,
    curves: Mapping[str, Mapping[str, tuple[float, float]]],
    ylabel: str,
    *,
    title: str,
    xlabel: str = "support set",
) -> "Figure":
    """One line for each method over the tests, with 95 % intervals of the first method.

    Args:
      path: the PNG to write.
      curves: a mean and the half-width of its interval by method and test; the first method is
        the learner. A method may lack a test.
      ylabel: of the figure.
      title: one line above the plot.
      xlabel: what the tests differ in.

    Raises:
      ValueError: there are no methods.

    >>> import tempfile
    >>> curves = {"maml": {"16": (0.1, 0.01), "32": (0.2, 0.01)}, "forest": {"16": (0.1, 0.02)}}
    >>> path = Path(tempfile.mkdtemp()) / "sizes.png"
    >>> figure = figures_by_test(path, curves, "gain", title="assays")
    >>> sorted(text.get_text() for text in figure.axes[0].get_legend().get_texts())
    ['forest', 'maml']
    """
    if not curves:
        raise ValueError("figures_by_test requires at least one method.")
    figure = new_figure(7.5, 4.2, title)
    axes = figure.subplots()
    first, *others = curves
    tests = list(curves[first])
    shades = figure_colours(len(others))
    for number, (method, colour) in enumerate(zip(others, shades)):
        places = [place for place, test in enumerate(tests) if test in curves[method]]
        values = [curves[method][tests[place]][0] for place in places]
        marker = _OTHERS[number % len(_OTHERS)]
        axes.plot(
            places, values, color=colour, marker=marker, markersize=4, linewidth=0.9, label=method
        )
    means, halves = zip(*(curves[first][test] for test in tests))
    axes.errorbar(
        range(len(tests)),
        means,
        halves,
        color=BLUE,
        marker="o",
        linewidth=2,
        capsize=3,
        label=first,
    )
    axes.set_xticks(range(len(tests)), tests)
    style(axes, xlabel, ylabel)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    write(figure, path)
    return figure


def figure_colours(count: int) -> list[str]:
    """Colours of `count` methods, from a map that is safe for colour-blind readers.

    >>> len(figure_colours(3))
    3
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if count == 1:
        return [GREY]
    return [to_hex(colormaps["cividis"](number / max(1, count - 1))) for number in range(count)]

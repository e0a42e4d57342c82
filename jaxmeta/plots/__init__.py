"""Plots of a run: learning curves, adaptation, and predictions on single tasks.

Every function takes plain arrays, writes a PNG to `path`, replacing an existing file atomically,
and returns the matplotlib figure. matplotlib is imported when the first figure is made.
"""

from jaxmeta.plots.active import label_curves
from jaxmeta.plots.architectures import cell
from jaxmeta.plots.compression import size_and_result
from jaxmeta.plots.control import frames, prediction_errors, regret_curves, trajectories
from jaxmeta.plots.curves import (
    RunCurve,
    adaptation_curve,
    curve_episode,
    learning_curve,
    run_curves,
)
from jaxmeta.plots.embeddings import embedding_map
from jaxmeta.plots.generation import image_grid
from jaxmeta.plots.images import image_episode, prediction_sheet
from jaxmeta.plots.optimization import optimization_curves
from jaxmeta.plots.pools import figures_by_test, scatter_by_pool
from jaxmeta.plots.processes import completions, process_episode
from jaxmeta.plots.sequences import sequence_episode
from jaxmeta.plots.streams import losses_since_switch, run_lengths
from jaxmeta.plots.transfer import reliability_diagrams, risk_over_coverage, transfer_matrix

__all__ = [
    "RunCurve",
    "adaptation_curve",
    "cell",
    "completions",
    "curve_episode",
    "embedding_map",
    "figures_by_test",
    "frames",
    "image_episode",
    "image_grid",
    "label_curves",
    "learning_curve",
    "losses_since_switch",
    "optimization_curves",
    "prediction_errors",
    "prediction_sheet",
    "process_episode",
    "regret_curves",
    "reliability_diagrams",
    "risk_over_coverage",
    "run_curves",
    "run_lengths",
    "scatter_by_pool",
    "sequence_episode",
    "size_and_result",
    "trajectories",
    "transfer_matrix",
]

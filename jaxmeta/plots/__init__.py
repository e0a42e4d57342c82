"""Pictures of a run: how it learned, how it adapts, what it says about one task.

Every function takes plain arrays, replaces the PNG at `path` in one step, and returns the
matplotlib figure to show. matplotlib is imported by the first picture.
"""

from jaxmeta.plots.curves import adaptation_curve, curve_episode, learning_curve
from jaxmeta.plots.embeddings import embedding_map
from jaxmeta.plots.images import image_episode, prediction_sheet
from jaxmeta.plots.optimization import optimization_curves
from jaxmeta.plots.processes import completions, process_episode
from jaxmeta.plots.sequences import sequence_episode

__all__ = [
    "adaptation_curve",
    "completions",
    "curve_episode",
    "embedding_map",
    "image_episode",
    "learning_curve",
    "optimization_curves",
    "prediction_sheet",
    "process_episode",
    "sequence_episode",
]

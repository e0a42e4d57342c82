"""The pictures that are drawn for every run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmeta import plots
from jaxmeta.recipes.base import Recipe
from jaxmeta.recipes.tasks import Report, Tasks
from jaxmeta.training.logs import read_metrics


def draw_run(recipe: Recipe, tasks: Tasks, made: Report) -> None:
    """Draw the pictures that every run has, and the pictures of its domain."""
    path, results = made.folder / "learning_curve.png", made.results
    title = made.title
    if episode := results["protocol"].get("train_episode"):
        title += f"\ntrained on {_sizes_in_words(episode)}"
    if results["protocol"].get("shuffled_labels"):
        title += ", labels shuffled"
    best = None if tasks.keeps_last else results["best_step"]
    plots.learning_curve(path, read_metrics(made.folder), title=title, best=best)
    if (curve := results.get("after_inner_steps")) is not None:
        figure = next(own for own in (*tasks.figures, tasks.selection) if own.metric in curve)
        means = np.asarray(curve[figure.metric])
        if len(means) > 1:  # a test without inner steps has no curve
            plots.adaptation_curve(
                made.folder / "adaptation.png",
                means,
                np.asarray(curve[f"{figure.metric}_ci95"]),
                ylabel=f"test {figure.metric}" if figure.percent else figure.label or figure.metric,
                title=made.title,
                trained_steps=getattr(recipe, "inner_steps", None),
            )
    if tasks.draw is not None:
        tasks.draw(made)


def _sizes_in_words(sizes: Mapping[str, Any]) -> str:
    """Sizes in words, such as `5 ways, 1 shot, 15 queries` or `3 to 10 points, 50 queries`."""
    one = {"ways": "way", "shots": "shot", "queries": "query"}
    words = []
    for name, size in sizes.items():
        ends = size if isinstance(size, list | tuple) else (size,)
        words.append(f"{' to '.join(map(str, ends))} {one.get(name, name) if size == 1 else name}")
    return ", ".join(words)

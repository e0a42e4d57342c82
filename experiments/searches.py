"""Architecture searches at equal budgets, many at once: the best found against networks seen.

python -m experiments.searches          # writes experiments/results/searches
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxmeta import files, plots
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.core import MetaLearner
from jaxmeta.data.architectures import Tabulated, nasbench_201, nasbench_macro, row_of, table_space
from jaxmeta.learners import metaqnn, random_search, regularised_evolution
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.search_spaces import no_task
from jaxmeta.recipes.settings import AtLeastTwo
from jaxmeta.training import alternating_update
from jaxmeta.training.estimates import estimate

SPACES: dict[str, Callable[[], Tabulated]] = {
    "nasbench-201": nasbench_201,
    "nasbench-macro": nasbench_macro,
}
METHODS: dict[str, Callable[..., MetaLearner]] = {
    "random": random_search,
    "evolution": regularised_evolution,
    "metaqnn": metaqnn,
    # Ten times the published rate, which suits budgets of thousands of networks.
    "metaqnn, rate 0.1": partial(metaqnn, rate=0.1),
}
SHOWN = (10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Searches:
    """Compare architecture searches at equal budgets, over many seeds."""

    budget: AtLeastTwo = 500
    """Networks that every search sees."""
    searches: AtLeastTwo = 50
    """Searches per method, with other seeds."""
    seed: int = 0
    """Seed of the searches."""
    out: Path = Path("experiments/results/searches")
    """Folder for the result file and the pictures."""


def accuracies_found(
    table: Tabulated, make: Callable[..., MetaLearner], budget: int, keys: jax.Array
) -> np.ndarray:
    """The test accuracy of the best architecture so far, `[searches, budget]`."""
    init, update = alternating_update(make(table_space(table), budget=budget), optax.identity())

    def search(key: Any) -> Any:
        step = lambda state, _: update(state, no_task)  # noqa: E731
        return jax.lax.scan(step, init(key, no_task), length=budget)[0].shared.history

    history = jax.device_get(jax.jit(jax.vmap(search))(keys))
    rows = row_of(history.architectures, len(table.options))
    best = [[own[: seen + 1].argmax() for seen in range(budget)] for own in history.accuracies]
    (test, *_) = table.tests.values()
    return test[np.take_along_axis(rows, np.array(best), axis=1)]


def main() -> None:
    options = read_arguments(Searches, "python -m experiments.searches")
    options.out.mkdir(parents=True, exist_ok=True)
    keys = jax.random.split(jax.random.key(options.seed), options.searches)
    results: dict[str, Any] = {
        "experiment": "searches",
        "budget": options.budget,
        "searches": options.searches,
        "seed": options.seed,
        "spaces": {},
        **provenance(),
    }
    for name, load in SPACES.items():
        table = load()
        best = float(next(iter(table.tests.values())).max())
        space: dict[str, Any] = {"best": best, "methods": {}}
        curves = {}
        for method, make in METHODS.items():
            start = time.perf_counter()
            found = accuracies_found(table, make, options.budget, keys)
            curves[method] = plots.RunCurve(np.arange(1, options.budget + 1), found)
            seen = [count for count in SHOWN if count <= options.budget]
            at = estimate(found[:, np.array(seen) - 1])
            space["methods"][method] = {
                "networks": seen,
                "accuracy": at.mean.tolist(),
                "accuracy_ci95": at.ci95.tolist(),
                "wall_seconds": round(time.perf_counter() - start, 1),
            }
            print(f"{name}, {method}: {100 * at.mean[-1]:.2f} ± {100 * at.ci95[-1]:.2f} %")
        results["spaces"][name] = space
        plots.run_curves(
            options.out / f"{name}.png",
            curves,
            ylabel="test accuracy of the network found",
            title=f"{name}, {options.searches} searches",
            best=best,
            xlabel="networks seen",
            log_steps=True,
            # The first networks would hide the differences between later ones.
            bottom=min(float(own.values[:, 4:9].mean()) for own in curves.values()),
        )
    files.write_json(options.out / "results.json", results)


if __name__ == "__main__":
    sys.exit(guarded(main))

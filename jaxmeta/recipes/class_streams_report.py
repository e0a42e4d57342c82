"""The evaluation on streams of classes: the rate of online steps, and rivals on the features."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, MetaLearner, Model, Task
from jaxmeta.data import ClassImages
from jaxmeta.learners import prototypical
from jaxmeta.models import on_features
from jaxmeta.recipes.images import features_of
from jaxmeta.recipes.results import plain
from jaxmeta.recipes.tasks import Report
from jaxmeta.training.estimates import estimate, per_task
from jaxmeta.training.feed import Source
from jaxmeta.training.update import Trained

NEAREST_MEAN, REPLAY = "nearest class mean", "replay"


class FrozenFeatures:
    """The classes of each part with features in place of images, of the parameters last asked for.

    All tests of a run have the same parameters, so that every image is embedded once.
    """

    def __init__(self, parts: Mapping[str, ClassImages]):
        self._parts = parts
        self._params: Any = None
        self._features: dict[str, ClassImages] = {}

    def of(self, part: str, encoder: Model, trained: Trained) -> ClassImages:
        """The classes of a part, with features float32 `[total, 1, 1, D]`."""
        params = trained.meta_params.encoder
        if self._params is not params:
            self._params, self._features = params, {}
        if part not in self._features:
            self._features[part] = features_of(encoder, params, self._parts[part])
        return self._features[part]


def rate_chooser(
    recipe: Any, learner: MetaLearner, rates: tuple[float, ...], streams: int
) -> Callable[[Trained, Source, Key], Array]:
    """`choose(trained, source, key)`: the rate with the highest mean accuracy on these streams."""

    def judge(key: Key, trained: Trained, task: Task) -> tuple[Array, dict[str, Array]]:
        def accuracy(rate: Array) -> Array:
            own = recipe.at_rate(trained, rate).meta_params
            return learner.loss(key, own, task)[1].metrics["accuracy"]

        found = jax.vmap(accuracy)(jnp.asarray(rates))
        return -found.max(), {"accuracy": found}

    evaluate = per_task(judge, streams)

    def choose(trained: Trained, source: Source, key: Key) -> Array:
        means = np.nan_to_num(evaluate(trained, source, key)["accuracy"].mean(axis=0))
        return jnp.asarray(rates[int(means.argmax())])

    return choose


def compared(
    made: Report,
    streams_of: Callable[[str, str], tuple[Source, int]],
    rates: tuple[float, ...],
    streams: int,
    replay: int,
) -> dict[str, Any]:
    """Other ways to learn the same streams from the frozen features of the run.

    The nearest class mean never forgets, and replay repeats `replay` earlier examples at each step,
    from a memory of the whole stream, at a rate that is chosen on validation streams.
    `learned_minus_this` is the mean over streams of the learner's accuracy minus the rival's, with
    the 95 % interval of the paired differences. Only for a recipe that freezes its features.

    Args:
      made: the evaluated run.
      streams_of: `streams_of(part, test)`, streams of features of a part, as long as in that test
        or with all of its classes, and their number of classes.
      rates: the candidates.
      streams: validation streams by which a rate is chosen.
      replay: see above.
    """
    recipe = made.recipe
    if not recipe.freezes_features:
        return {}
    rows: dict[str, dict[str, Any]] = {}
    for name, test in made.tests.items():
        problem: Any = test.problem
        learned, (source, _) = made.values[name]["accuracy"], streams_of("test", name)
        means = prototypical(on_features(), problem.objective, problem.ways)
        replaying = recipe.at_test(problem, replay=replay)
        validation, ways = streams_of("validation", name)
        shorter = recipe.at_test(problem._replace(ways=ways), replay=replay)
        given = recipe.for_test(made.trained)
        choose = rate_chooser(recipe, shorter, rates, streams)
        rate = choose(given, validation, jax.random.fold_in(made.key, 1))

        def nearest(key: Key, trained: Trained, task: Task, means=means) -> Any:
            loss, info = means.loss(key, {"encoder": ()}, task)
            return loss, info.metrics

        def replayed(key: Key, trained: Trained, task: Task, replaying=replaying) -> Any:
            loss, info = replaying.loss(key, trained.meta_params, task)
            return loss, info.metrics

        given, rows[name] = recipe.at_rate(given, rate), {}
        for rival, judge in {NEAREST_MEAN: nearest, REPLAY: replayed}.items():
            values = per_task(judge, len(learned))(given, source, made.key)["accuracy"]
            rows[name][rival] = {
                **plain({"accuracy": estimate(values)}),
                **plain({"learned_minus_this": estimate(learned - values)}),
            }
        rows[name][REPLAY]["rate"] = float(rate)
    return {"rivals": rows}


def rival_lines(results: Mapping[str, Any]) -> list[str]:
    """A line for each rival of each test."""
    return [
        f"{test}, {rival}: {100 * row['accuracy']:.1f} %, learned minus this "
        f"{100 * row['learned_minus_this']:+.1f} ± {100 * row['learned_minus_this_ci95']:.1f}"
        for test, rivals in results.get("rivals", {}).items()
        for rival, row in rivals.items()
    ]


def draw_accuracies(made: Report) -> None:
    """Draw the accuracy on all classes of a stream against their number."""
    from jaxmeta import plots

    names = list(made.tests)
    curves = {made.recipe.name: made.results.get("tests", {names[0]: made.results})}
    for test, rivals in made.results.get("rivals", {}).items():
        for rival, row in rivals.items():
            curves.setdefault(f"{rival}, same features", {})[test] = row
    plots.figures_by_test(
        made.folder / "classes.png",
        {
            method: {
                test: (100 * row["accuracy"], 100 * row["accuracy_ci95"])
                for test, row in rows.items()
            }
            for method, rows in curves.items()
        },
        "accuracy on all classes seen (%)",
        xlabel="length of the stream",
        title=made.title,
    )

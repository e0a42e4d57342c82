"""The evaluation on streams of classes: the rate of online steps, and rivals on the features."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Key, MetaLearner, Task
from jaxmeta.learners import prototypical
from jaxmeta.models import on_features
from jaxmeta.recipes.results import plain
from jaxmeta.recipes.tasks import Report
from jaxmeta.training.estimates import estimate, per_task
from jaxmeta.training.feed import Source
from jaxmeta.training.update import Trained

NEAREST_MEAN, REPLAY = "nearest class mean", "replay"
_CURVE = "classes.png"


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
    validation: Callable[[str], Source],
    rates: tuple[float, ...],
    streams: int,
    replay: int,
) -> dict[str, Any]:
    """Other ways to learn the same streams from the frozen features of the run.

    The nearest class mean never forgets, and replay repeats `replay` earlier examples at each step,
    from a memory of the whole stream, at a rate that is chosen on `validation(test)`.
    `learned_minus_this` is the mean over streams of the learner's accuracy minus the rival's, with
    the 95 % interval of the paired differences. Only for a recipe with `replaying`.
    """
    if not hasattr(made.recipe, "replaying"):
        return {}
    rows: dict[str, dict[str, Any]] = {}
    for name, test in made.tests.items():
        problem: Any = test.problem
        learned = made.values[name]["accuracy"]
        encoder = made.recipe.encoder(problem)
        learner = made.recipe.replaying(problem, replay)
        means = prototypical(on_features(), problem.objective, problem.ways)

        def judge(key: Key, trained: Trained, task: Task, encoder=encoder, means=means) -> Any:
            embed = lambda batch: batch._replace(  # noqa: E731
                inputs=encoder.apply(trained.meta_params.encoder, batch.inputs)
            )
            task = Task(embed(task.support), embed(task.query))
            loss, info = means.loss(key, {"encoder": ()}, task)
            return loss, info.metrics

        rivals = {NEAREST_MEAN: (judge, made.trained)}
        if learner is not None:
            choose = rate_chooser(made.recipe, learner, rates, streams)
            rate = choose(made.trained, validation(name), jax.random.fold_in(made.key, 1))

            def replayed(key: Key, trained: Trained, task: Task, learner=learner) -> Any:
                loss, info = learner.loss(key, trained.meta_params, task)
                return loss, info.metrics

            rivals[REPLAY] = (replayed, made.recipe.at_rate(made.trained, rate))
        rows[name] = {}
        for rival, (own_judge, given) in rivals.items():
            values = per_task(own_judge, len(learned))(given, test.source, made.key)["accuracy"]
            rows[name][rival] = {
                **plain({"accuracy": estimate(values)}),
                **plain({"learned_minus_this": estimate(learned - values)}),
            }
            if rival == REPLAY:
                rows[name][rival]["rate"] = float(given.meta_params.rate)
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

    curves = {made.recipe.name: made.results.get("tests", {"": made.results})}
    for test, rivals in made.results.get("rivals", {}).items():
        for rival, row in rivals.items():
            curves.setdefault(f"{rival}, same features", {})[test] = row
    plots.figures_by_test(
        made.folder / _CURVE,
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

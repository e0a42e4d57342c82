"""Which examples to label: `active RUN`, the main figure of a run over the number of labels.

Each test task of the run is a pool of examples. Every rule asks for labels one after another, on
the same tasks with the same keys, so that differences to random choices are taken task by task.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmeta import files, plots
from jaxmeta.active import RULES
from jaxmeta.commands.experiment import Modules
from jaxmeta.commands.guard import RunPath, read_arguments, recipes_named
from jaxmeta.files import shown
from jaxmeta.recipes import registry
from jaxmeta.recipes.acquiring import Member, Pools, Sizes, on_pools, rule_of_policy
from jaxmeta.recipes.base import Labelling, Training
from jaxmeta.recipes.folders import IDENTITY, read_config, read_identity
from jaxmeta.recipes.loading import describe, load
from jaxmeta.recipes.outputs import MADE_FROM, digest_of, is_made_from, result_file, result_path
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.restoring import restore_as
from jaxmeta.recipes.results import (
    PerTask,
    provenance,
    read_per_task,
    tasks_digest,
    write_per_task,
)
from jaxmeta.recipes.seen import is_same
from jaxmeta.recipes.settings import AtLeastTwo, Count, Natural, Positive
from jaxmeta.recipes.shipped import find_run
from jaxmeta.training.estimates import estimate

RuleName = Literal["random", "entropy", "margin", "k-centre", "greedy", "bald", "learned"]
BASELINE = next(iter(RULES))
LEARNED, NEEDS_COMMITTEE, TWO_CLASSES_ONLY = "learned", "bald", "greedy"


@dataclass(frozen=True)
class Active:
    """Choose which examples to label, by several rules; measure the figure over the labels."""

    run_dir: RunPath
    """The run folder, or the name of a trained learner that ships with the package."""
    rules: tuple[RuleName, ...] | None = None
    """How examples are chosen. Random choices are always measured. Defaults to all that the options
    allow.
    entropy: highest entropy of the prediction;
    margin: smallest difference of the two largest probabilities;
    k-centre: largest distance to the labelled examples, between embeddings if the run has any,
    otherwise between predictions;
    greedy: highest probability of class 1, of two classes;
    bald: largest disagreement of a committee, see --committee and --samples;
    learned: a policy trained for the gain in the main figure, on validation classes or pools."""
    ways: AtLeastTwo | None = None
    """Classes of a task. Defaults to the run's."""
    pool: Count | None = None
    """Examples per class in the pool. Defaults to 10. Of an assay, or another pool of examples,
    that many times the number of classes, but at most half of it; there it defaults to 64."""
    queries: Count | None = None
    """Query examples per class, on which the figure is measured. Defaults to 5; of an assay, or
    another pool of examples, to 64."""
    labels: Count = 20
    """Labels that are asked for, one after another."""
    start: Natural = 0
    """Labels per class before the first choice, drawn at random."""
    eval_tasks: AtLeastTwo = 300
    """Number of test tasks; of assays, or other pools of examples, at most all."""
    committee: tuple[Path, ...] = ()
    """Further runs or names on the same data, such as other seeds, for bald."""
    samples: Natural = 0
    """Predictions with different keys that form a committee for bald, for networks with dropout."""
    steps: Count = 100
    """Meta-updates of the learned rule."""
    task_batch: Count = 4
    """Tasks per meta-update of the learned rule; each is solved eight times."""
    outer_rate: Positive = 3e-3
    """Learning rate of the learned rule."""
    out: Path | None = None
    """JSON file for the result. Defaults to active.json in the run folder; for a learner that ships
    with the package, NAME-active.json in the working folder."""
    recipes: Modules = ()
    """Python modules with your own learners or tasks, such as my_module, separated by commas."""


class Curve(NamedTuple):
    """A rule's figures over the labels.

    Attributes:
      row: the entry of the result.
      values: of every task, `[tasks]`: the `area` of the main figure, `area_METRIC` of others, and
        every metric after the last label.
    """

    row: dict[str, Any]
    values: dict[str, np.ndarray]


def command(arguments: list[str], prog: str) -> None:
    """Measure every rule, write the result, print a table, draw a picture."""
    registry.load(recipes_named(arguments))
    label_run(read_arguments(Active, prog, arguments))


def label_run(options: Active) -> dict[str, Any]:
    """As `command`, with parsed options; the result.

    A result with the same settings that was cut short is continued.

    Raises:
      ValueError, OSError: a run that does not support pools, or a file that holds another result.
      ArithmeticError: the training of the learned rule diverged.
    """
    rules = _rules(options)
    run = find_run(options.run_dir)
    if options.out is not None:
        files.check_writable(options.out)
    identity = read_identity(run)
    members = [_member(find_run(own), options) for own in (options.run_dir, *options.committee)]
    loaded = members[0].loaded
    experiment = loaded.experiment
    for own, name in zip(members[1:], options.committee):
        if not is_same(own.loaded.data, loaded.data):
            raise ValueError(f"--committee {shown(name)} was trained on other data than the run.")
    sizes = Sizes(options.labels, options.start)
    pools = Pools(members, sizes, options.samples, options.eval_tasks)
    if NEEDS_COMMITTEE in rules and options.samples and not pools.varies():
        raise ValueError(
            f"--samples {options.samples}: predictions of this run do not depend on the key, since "
            "its network has no dropout; give --committee RUN."
        )
    settings = dataclasses.asdict(options)
    settings = {n: settings[n] for n in settings.keys() - {"run_dir", "out", "recipes", "rules"}}
    settings["committee"] = [read_identity(find_run(own)) for own in options.committee]
    made_from = digest_of(identity, settings, loaded.data)
    own_run = run == options.run_dir
    where, stem = (run, "active") if own_run else (Path(), f"{options.run_dir}-active")
    path = options.out or result_path(where, stem, {}, made_from, ".npz")
    ways, metric = pools.ways, pools.metric
    if ways != 2 and TWO_CLASSES_ONLY in rules:
        if options.rules is not None:
            raise ValueError(
                f"--rules {TWO_CLASSES_ONLY} requires two classes; the run's tasks have {ways}."
            )
        rules.remove(TWO_CLASSES_ONLY)
    first = options.start * ways
    results: dict[str, Any] = {
        **describe(loaded),
        "run": run.name,
        IDENTITY: identity,
        MADE_FROM: made_from,
        "seed": experiment.training.seed,
        "settings": settings,
        **provenance(pools.mesh),
        "num_tasks": pools.count,
        "figure": "area",
        "metric": metric,
        "pool": pools.size,
        "labels": list(range(first, first + options.labels + 1)),
    }
    digest = tasks_digest(pools.test.identity, pools.key, pools.count)
    title = shown(f"{experiment.learner.name} · {loaded.tasks.title.split(' · ')[0]} · {ways}-way")
    with result_file(path, is_made_from(made_from), ".npz"):
        curves = _finished(path, identity)
        rules += [name for name in curves if name not in rules]
        print(f"{title} · pools of {pools.size} · {pools.count} held-out tasks")
        print(_header(results["labels"]))
        for name in [*RULES, LEARNED]:
            if name not in rules:
                continue
            if name not in curves:
                values = _measure(name, pools, options)
                curves[name] = _curve(name, values, metric, curves.get(BASELINE))
                # After every rule, since later ones may take long. The values first: without them
                # a rule is measured again.
                tests = {own: PerTask(digest, curve.values) for own, curve in curves.items()}
                write_per_task(path.with_suffix(".npz"), tests, identity)
                results["rows"] = [curve.row for curve in curves.values()]
                files.write_json(path, results)
            print(_line(curves[name].row, metric), flush=True)
        results["rows"] = [curve.row for curve in curves.values()]
        _draw(path.with_suffix(".png"), results["labels"], curves, metric, title)
    print(f"result: {path}")
    return results


def _rules(options: Active) -> list[str]:
    """The rules to measure, the baseline first."""
    has_committee = bool(options.committee or options.samples)
    if options.committee and options.samples:
        raise ValueError("give --committee or --samples, not both.")
    if options.rules is None:
        return [own for own in [*RULES, LEARNED] if own != NEEDS_COMMITTEE or has_committee]
    if NEEDS_COMMITTEE in options.rules and not has_committee:
        raise ValueError(
            "--rules bald requires a committee: give --committee RUN, or --samples for a network "
            "with dropout."
        )
    return [BASELINE, *(own for own in options.rules if own != BASELINE)]


def _member(run: Path, options: Active) -> Member:
    """A run with its test tasks as pools."""
    experiment, data = read_config(run)
    own = (options.ways, options.pool, options.queries, options.start, options.labels)
    experiment = on_pools(experiment, Labelling(*own))
    restored = restore_as(run, experiment, data)
    loaded = load(experiment)
    if not is_same(loaded.data, data):
        raise ValueError(f"{shown(run)} was trained on other data; provide the same data.")
    return Member(loaded, restored.trained)


def _measure(name: str, pools: Pools, options: Active) -> Mapping[str, np.ndarray]:
    """The values of a rule on every test task, by name."""
    if name == LEARNED:
        training = Training(
            steps=options.steps,
            task_batch=options.task_batch,
            tasks_at_once=1,
            outer_rate=options.outer_rate,
            chunk=5,
        )
        return pools.curves(rule_of_policy, pools.trained_rule(training, Progress()))
    by_samples = name == NEEDS_COMMITTEE and options.samples > 0
    return pools.curves(lambda params: RULES[name], sampled=by_samples)


def _curve(
    name: str, values: Mapping[str, np.ndarray], metric: str, baseline: Curve | None
) -> Curve:
    """The figures of a rule: the main one first, then the other metrics of the objective."""
    row: dict[str, Any] = {"name": name}
    kept: dict[str, np.ndarray] = {}
    others = sorted(own for own in values if f"area_{own}" in values and own != metric)
    for own in (metric, *others):
        suffix = "" if own == metric else f"_{own}"
        area = f"area{suffix}"
        areas = kept[area] = values[f"area_{own}"].astype(np.float64)
        leads = areas - (areas if baseline is None else baseline.values[area])
        for entry, found in (
            (area, estimate(areas)),
            (f"difference{suffix}", estimate(leads)),
            (own, estimate(values[own])),
        ):
            row |= {entry: found.mean.tolist(), f"{entry}_ci95": found.ci95.tolist()}
        kept[own] = values[own][:, -1]
    return Curve(row, kept)


def _finished(path: Path, identity: str) -> dict[str, Curve]:
    """The rules of an earlier result with the same settings."""
    if not path.exists() or not path.with_suffix(".npz").exists():
        return {}
    rows = files.read_json(path).get("rows", [])
    values = read_per_task(path.with_suffix(".npz"), identity)
    return {
        row["name"]: Curve(row, dict(own.values))
        for row in rows
        if (own := values.get(row["name"])) is not None
    }


def _shown_points(labels: list[int]) -> list[int]:
    """The points in the table: the start, a quarter, half and all of the labels."""
    last = len(labels) - 1
    return sorted({0, last // 4, last // 2, last})


def _header(labels: list[int]) -> str:
    points = "".join(f"{labels[point]:>6} labels" for point in _shown_points(labels))
    return f"{'':10}{points}  {'area':14} difference to {BASELINE}"


def _line(row: Mapping[str, Any], metric: str) -> str:
    """A line such as `entropy  81.2 ± 0.5 …  70.1 ± 0.3  +1.20 ± 0.10`."""

    def shown_value(value: float, ci95: float) -> str:
        return f"{100 * value:.1f} ± {100 * ci95:.1f}"

    points = "".join(
        f"{shown_value(row[metric][point], row[f'{metric}_ci95'][point]):>13}"
        for point in _shown_points(row[metric])
    )
    area = shown_value(row["area"], row["area_ci95"])
    difference = "–"
    if row["name"] != BASELINE:
        difference = f"{100 * row['difference']:+.2f} ± {100 * row['difference_ci95']:.2f}"
    return f"{row['name']:10}{points}  {area:14} {difference}"


def _draw(
    path: Path, labels: list[int], curves: Mapping[str, Curve], metric: str, title: str
) -> None:
    plots.label_curves(
        path,
        np.asarray(labels),
        {
            name: (np.asarray(own.row[metric]), np.asarray(own.row[f"{metric}_ci95"]))
            for name, own in curves.items()
        },
        ylabel=f"test {metric.replace('_', ' ')}",
        title=title,
    )

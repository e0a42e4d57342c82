"""Meta-train an optimizer and compare it with tuned ones: `python -m experiments.optimizers`.

    python -m experiments.optimizers [lstm|mlp] --family digits --training truncated

The comparison is on problems of the family that training has not seen, on runs five times as
long, on networks twice as wide, with another activation, and on another data set, as far as the
family has these. Adam, momentum and RMSprop are each tuned on those very problems.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np
import tyro

from experiments.command_line import guarded, read_arguments
from experiments.comparison import Course, Curve, compare, summary
from experiments.folders import fields_of, prepare_settings, run_folder
from experiments.progress import Progress
from experiments.run import circumstances, run_keys, train_in
from jaxmeta import files, plots
from jaxmeta.core import MetaLearner
from jaxmeta.data import ClassImages, load
from jaxmeta.data.images.digits import digits
from jaxmeta.data.synthetic.optimization import ACTIVATIONS, Family, classifiers, quadratics
from jaxmeta.learners.evolution import evolve, persistent_es
from jaxmeta.learners.optimizers import (
    LearnedOptimizer,
    lstm_optimizer,
    mlp_optimizer,
    optimizer_learner,
    windows,
)
from jaxmeta.learners.truncation import truncated_backpropagation
from jaxmeta.models import pack
from jaxmeta.training import build, checkpoints, evaluation
from jaxmeta.training import config as configs
from jaxmeta.training.config import Experiment
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.parallel import mesh_for, on_first_process

Images = Literal["digits", "glyphs", "omniglot"]


@dataclass(frozen=True)
class Optimizers(Experiment):
    """Meta-train an optimizer on a family of problems and compare it with tuned ones."""

    experiment: ClassVar[str] = "optimizers"
    rule: tyro.conf.Positional[Literal["lstm", "mlp"]] = "lstm"
    """lstm: coordinate-wise, of two layers (Andrychowicz et al. 2016). mlp: a perceptron that reads
    momenta, sizes and time (Metz et al. 2019)."""
    family: Literal["quadratics", "digits", "glyphs", "omniglot"] = "quadratics"
    """Random quadratics, or perceptrons of random width, activation and scale on images."""
    training: Literal["truncated", "full", "evolution", "persistent"] = "truncated"
    """By backpropagation through windows or whole runs, by evolution strategies on whole runs, or
    by persistent ones on windows."""
    steps: int = 2000
    """Meta-updates."""
    task_batch: int = 16
    """Problems of a meta-update."""
    horizon: int = 100
    """Steps of a run in training."""
    window: int = 20
    """Steps of a window, where training goes by windows."""
    deviation: float = 0.01
    """Of the perturbations, where training is by evolution."""
    pairs: int = 8
    """Antithetic pairs of perturbations a problem."""
    hidden: int | None = None
    """Width of the rule; None: 20 of the lstm, 16 of the mlp."""
    scale: float = 0.01
    """Of the rule's output."""
    outer_schedule: Literal["constant", "linear", "cosine", "halving"] = "cosine"
    """The outer rate over the run."""
    clip_norm: float | None = 1.0
    """Scale the meta-gradient down to this norm where it is larger; None: not at all."""
    eval_tasks: int = 1000
    """Problems of each comparison."""
    tuning_tasks: int = 200
    """The first so many of these choose the rates of Adam and the others."""
    dimensions: int = 10
    """Of the quadratics."""
    widths: tuple[int, int] = (8, 32)
    """Least and largest width of the perceptrons."""
    activations: tuple[str, ...] = ("relu", "tanh", "sigmoid")
    """Their activations, of relu, tanh, sigmoid and elu."""
    scales: tuple[float, float] = (0.5, 2.0)
    """Least and largest factor to the deviation of their first weights."""
    problem_batch: int = 64
    """Images a step."""
    out: Path | None = None
    """Run folder; None: under runs/, named after the run: a new one, with --resume the newest."""
    resume: bool = False
    """Go on from the newest checkpoint of the run folder."""
    overwrite: bool = False
    """Delete the run that the folder holds and start anew."""


_EXAMPLES = {"digits": (100, 20), "glyphs": (7, 3), "omniglot": (15, 5)}  # shots, queries
_OTHER_SET: dict[str, Images] = {"digits": "glyphs", "glyphs": "digits", "omniglot": "digits"}


def check(settings: Optimizers) -> None:
    """Refuse numbers that no run can use.

    Raises:
      ValueError: which option has which value, and what it may be.
    """
    configs.check(settings)
    sizes = ("horizon", "window", "pairs", "hidden", "dimensions", "problem_batch", "tuning_tasks")
    for name in sizes:
        configs.require(settings, name, lambda value: value >= 1, "at least 1")
    for name in ("deviation", "scale"):
        configs.require(settings, name, lambda value: 0 < value < np.inf, "positive and finite")


def family_of(settings: Optimizers, part: str, **changes: Any) -> Family:
    """The problems of training, validation or test; `changes` replace settings."""
    changed = dataclasses.replace(settings, **changes)
    if changed.family == "quadratics":
        return quadratics(changed.dimensions)
    shots, queries = _EXAMPLES[changed.family]
    return classifiers(
        _classes(changed.family, part, changed.seed),
        ways=10,
        shots=shots,
        queries=queries,
        widths=changed.widths,
        activations=changed.activations,
        scales=changed.scales,
        problem_batch=changed.problem_batch,
    )


def _classes(name: Images, part: str, seed: int) -> ClassImages:
    """Digits are the same ten classes in all parts: there the networks alone are unseen."""
    return digits() if name == "digits" else getattr(load(name, seed=seed), part)


def rule_of(settings: Optimizers) -> LearnedOptimizer:
    """The update rule whose parameters are learned."""
    if settings.rule == "lstm":
        return lstm_optimizer(hidden=settings.hidden or 20, scale=settings.scale)
    return mlp_optimizer(hidden=settings.hidden or 16, scale=settings.scale)


def learner_of(settings: Optimizers, family: Family, *, training: str) -> MetaLearner:
    """The learner of the rule on these problems, with that way of training."""
    problem, rule = (family.model, family.objective), rule_of(settings)
    learner = optimizer_learner(*problem, rule, settings.horizon, problem_batch=family.problem_batch)
    if training == "full":
        return learner
    noise = {"std": settings.deviation, "pairs": settings.pairs}
    if training == "evolution":
        return evolve(learner, **noise)
    parts = windows(*problem, rule, settings.horizon, settings.window, problem_batch=family.problem_batch)
    if training == "truncated":
        return truncated_backpropagation(learner, parts)
    return persistent_es(learner, parts, **noise)


def courses(settings: Optimizers) -> dict[str, Course]:
    """What the optimizers are compared on."""
    unseen = family_of(settings, "test")
    found = {
        "unseen problems": Course(unseen, settings.horizon),
        f"{5 * settings.horizon} steps": Course(unseen, 5 * settings.horizon),
    }
    if settings.family == "quadratics":
        wide = family_of(settings, "test", dimensions=2 * settings.dimensions)
        return found | {"twice the dimensions": Course(wide, settings.horizon)}
    low, high = settings.widths
    unseen_activations = [name for name in ACTIVATIONS if name not in settings.activations]
    changes: dict[str, dict[str, Any]] = {
        "twice the width": {"widths": (2 * low, 2 * high)},
        **{f"activation {other}": {"activations": (other,)} for other in unseen_activations[:1]},
        f"on {_OTHER_SET[settings.family]}": {"family": _OTHER_SET[settings.family]},
    }
    return found | {
        name: Course(family_of(settings, "test", **change), settings.horizon)
        for name, change in changes.items()
    }


def run(settings: Optimizers, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train, compare, draw, write `results.json`; return it.

    Raises:
      ValueError, OSError: with one plain line for the command line to show.
    """
    fields = fields_of(settings)
    check(settings)
    mesh = mesh_for(settings.task_batch, tasks_at_once=settings.tasks_at_once)
    family = family_of(settings, "train")
    learner = learner_of(settings, family, training=settings.training)
    update = build.update_for(learner, settings, mesh, at_once=settings.tasks_at_once)
    compared_on = courses(settings)
    on_first_process(lambda: prepare_settings(settings, folder, fields))
    train_key, validation_key, test_key = run_keys(settings.seed)
    held_out = family_of(settings, "validation").sample
    validate = evaluation(
        learner_of(settings, family, training="full"),
        settings.validation_tasks,
        tasks_at_once=32,
    )
    outcome = train_in(
        folder,
        settings,
        update,
        family.sample,
        train_key,
        # The loss alone decides, also where there is an accuracy.
        lambda params: {"loss": validate(params, held_out, validation_key)["loss"]},
        name=f"{settings.rule} optimizer",
        mesh=mesh,
        resume=settings.resume,
        progress=progress,
    )
    learned = rule_of(settings).transformation(jax.device_get(outcome.best.meta_params))
    curves: dict[str, dict[str, Curve]] = {}
    for name, course in compared_on.items():
        progress.say(f"comparing: {name}.")
        curves[name] = compare(
            course, learned, test_key, settings.eval_tasks, settings.tuning_tasks
        )
    results = {
        "rule": settings.rule,
        "settings": fields,
        "protocol": {
            "problems": settings.eval_tasks,
            "tuned": f"each on the first {settings.tuning_tasks} of these problems, by the mean "
            "loss after the last step",
            "selected_on": f"validation loss, {settings.validation_tasks} problems every "
            f"{settings.checkpoint_every} steps",
        },
        "comparison": {name: summary(found) for name, found in curves.items()},
        "best_step": outcome.best_step,
        "wall_seconds": round(outcome.wall_seconds, 1),
        **circumstances(mesh),
        "parameters_sha256": checkpoints.parameters_sha256(outcome.best.meta_params),
    }

    def keep() -> None:
        files.write_json(folder / "results.json", results)
        title = f"{settings.rule} optimizer · {settings.family}"
        plots.learning_curve(folder / "learning_curve.png", read_metrics(folder), title=title)
        plots.optimization_curves(
            folder / "comparison.png",
            {
                name: {optimizer: curve.losses for optimizer, curve in found.items()}
                for name, found in curves.items()
            },
            title=title,
        )
        files.write_bytes(folder / "rule.npz", pack(outcome.best.meta_params))

    on_first_process(keep)
    return results


def table(results: dict[str, Any]) -> str:
    """The comparison as lines of text."""
    lines = []
    for name, rows in results["comparison"].items():
        cells = [
            f"{optimizer} {row['final_loss']:.4g} ± {row['final_loss_ci95']:.2g}"
            for optimizer, row in rows.items()
        ]
        lines.append(f"{name}: {', '.join(cells)}")
    return "\n".join(lines)


def main(settings: Optimizers) -> None:
    name = f"{settings.rule}-{settings.family}"
    folder = settings.out or run_folder(name, settings.resume)
    print(table(run(settings, folder, Progress())))
    print(f"results, curves and the rule's weights: {folder}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(read_arguments(Optimizers, "optimizers"))))

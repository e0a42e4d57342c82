"""What a run is made of, by name: recipes of learners, domains of tasks, and one runner.

    from jaxmeta.recipes import restore, run, start

A *recipe* is a learner with its settings (`jaxmeta/recipes/learners/`). A *domain* is a
distribution of tasks with its metrics and pictures (`jaxmeta/recipes/domains/`). Each is one file.
"""

from jaxmeta.recipes.base import Domain, Engine, Preset, Recipe, Training, UserTask
from jaxmeta.recipes.experiment import Experiment, from_json, start, to_json
from jaxmeta.recipes.registry import (
    domain,
    find_domain,
    find_learner,
    known_domains,
    known_learners,
    recipe,
)
from jaxmeta.recipes.restoring import TrainedRun, restore
from jaxmeta.recipes.runner import run
from jaxmeta.recipes.shipped import pretrained
from jaxmeta.recipes.tasks import ACCURACY, LOSS, Figure, HeldOut, Needs, Problem, Report, Tasks

__all__ = [
    "ACCURACY",
    "LOSS",
    "Domain",
    "Engine",
    "Experiment",
    "Figure",
    "HeldOut",
    "Needs",
    "Preset",
    "Problem",
    "Recipe",
    "Report",
    "Tasks",
    "TrainedRun",
    "Training",
    "UserTask",
    "domain",
    "find_domain",
    "find_learner",
    "from_json",
    "known_domains",
    "known_learners",
    "pretrained",
    "recipe",
    "restore",
    "run",
    "start",
    "to_json",
]

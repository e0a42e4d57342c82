"""The committed results are read by this version, and their commands give their settings."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from jaxmeta import files
from jaxmeta.commands import evaluate
from jaxmeta.commands.baselines import Baselines
from jaxmeta.commands.experiment import parse
from jaxmeta.commands.guard import read_arguments
from jaxmeta.recipes import find_domain, to_json
from jaxmeta.recipes.folders import read_config

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
CONFIGS = sorted(RESULTS.rglob("config.json"))
RUNS = sorted({path.relative_to(RESULTS).parts[0] for path in CONFIGS})
EVALUATIONS = sorted(path for path in RESULTS.rglob("evaluation-*.json"))


def name_of(path: Path) -> str:
    return str(path.relative_to(RESULTS))


def arguments_of(results: dict[str, Any], module: str) -> list[str]:
    python, option, called, *arguments = shlex.split(results["command"])
    assert (python, option, called) == ("python", "-m", f"experiments.{module}")
    return arguments


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_configuration_is_read_with_every_setting(path):
    experiment, data = read_config(path.parent)
    experiment.check()
    fields = json.loads(path.read_bytes())
    fields.pop("data_sha256", None)  # not a setting; read_config has checked it
    now = files.plain({**to_json(experiment.resolved()), "data": data})
    assert _as_far_as(fields, now) == fields


def _as_far_as(then: Any, now: Any) -> Any:
    """The settings that were there when a configuration was written; later ones have defaults."""
    if not isinstance(then, dict):
        return now
    return {name: _as_far_as(own, now[name]) for name, own in then.items() if name in now}


@pytest.mark.full
@pytest.mark.parametrize("run", RUNS)
def test_the_command_of_a_run_gives_its_settings(run):
    results = json.loads((RESULTS / run / "results.json").read_bytes())
    domain = find_domain(results["experiment"])
    options, experiment = parse(domain, arguments_of(results, domain.name.replace("-", "_")))
    experiment = experiment.resolved()
    assert (results["experiment"], results["learner"]) == (domain.name, experiment.learner.name)
    if options.seeds is None:
        seeds = {RESULTS / run: experiment.training.seed}
    else:
        seeds = {RESULTS / run / f"seed_{seed}": seed for seed in options.seeds}
        assert results["seeds"] == list(options.seeds)
    for folder, seed in seeds.items():
        training = dataclasses.replace(experiment.training, seed=seed)
        given = dataclasses.replace(experiment, training=training)
        assert to_json(read_config(folder).experiment) == to_json(given)


@pytest.mark.parametrize("path", EVALUATIONS, ids=name_of)
def test_the_command_of_an_evaluation_changes_what_it_says(path):
    results = json.loads(path.read_bytes())
    _, *arguments = arguments_of(results, "evaluate")
    arguments = [str(path.parent), *arguments]
    _, changes = evaluate._parse(arguments, read_config(path.parent), "evaluate")
    assert changes or "--ways" in arguments  # of as many ways as in the run
    experiment = read_config(path.parent).experiment.changed(**changes)
    own = dataclasses.asdict(experiment.learner)
    for name in changes.keys() & own.keys():
        assert results["protocol"]["inner"][name] == own[name]
    episode: Any = dataclasses.asdict(experiment.domain).get("episode")
    if episode is None:  # of a domain without classes
        return
    for name in ("ways", "shots", "queries"):
        assert results[name] == episode[name]
    assert results["protocol"]["shuffled_labels"] == episode["shuffle_labels"]


def test_the_command_of_the_baselines_is_understood():
    results = json.loads((RESULTS / "pretrained-grocery" / "baselines.json").read_bytes())
    read_arguments(Baselines, "baselines", arguments_of(results, "baselines"))


@pytest.mark.parametrize("run", RUNS)
def test_results_are_in_the_form_of_the_runner(run):
    results = json.loads((RESULTS / run / "results.json").read_bytes())
    if "tests" in results:
        first = next(iter(results["tests"].values()))
        assert first.items() <= results.items()
    folder = RESULTS / run if "seeds" not in results else RESULTS / run / "seed_0"
    own = dataclasses.asdict(read_config(folder).experiment.learner)
    inner = results["protocol"]["inner"]
    assert inner.items() <= files.plain(own).items()

"""An experiment: the settings of a domain, a learner and training, by preset or from JSON."""

import dataclasses
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.base import Domain, Preset, Recipe, Training


@dataclass(frozen=True)
class Experiment:
    """The domain, the learner and the training settings of a run; see `start`.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> experiment = Experiment(find_domain("regression")(), find_learner("maml")())
    >>> experiment.changed(steps=100, inner_rate=0.01).training.steps
    100
    """

    domain: Domain
    learner: Recipe
    training: Training = field(default_factory=Training)

    def check(self) -> None:
        """Check that the learner supports the domain's tasks, and that setting names are unique.

        Raises:
          ValueError: it does not, with the learners that do; two settings have the same name.
        """
        kind = self.domain.task_kind()
        if kind not in self.learner.kinds:
            fitting = ", ".join(registry.known_learners(kind))
            raise ValueError(
                f"{self.learner.name} does not support tasks of {self.domain.name} (kind "
                f"{kind}); these learners do: {fitting}."
            )
        parts = [settings.names(part) for part in (self.domain, self.learner, self.training)]
        if twice := (parts[0] & parts[1]) | (parts[2] & (parts[0] | parts[1])):
            raise ValueError(
                f"{self.learner.name} on {self.domain.name}: two settings are named "
                f"{min(twice)!r}; rename one."
            )

    def resolved(self) -> "Experiment":
        """The experiment with every default of the domain filled in."""
        return dataclasses.replace(self, domain=self.domain.resolved())

    def replaced(self, domain: Domain) -> "Experiment":
        """The experiment on another domain."""
        return dataclasses.replace(self, domain=domain)

    def changed(self, **changes: Any) -> "Experiment":
        """The experiment with other values of some settings, by name.

        Raises:
          ValueError: an unknown setting.
        """
        unknown = changes.keys() - settings.names(self)
        if unknown:
            name = min(unknown)
            raise ValueError(
                f"{settings.option(name, changes[name])}: {self.learner.name} on "
                f"{self.domain.name} has no such setting."
            )
        return settings.changed(self, changes)


def start(domain: type[Domain], learner: type[Recipe], preset: str = "default") -> Experiment:
    """The experiment of a preset: the domain's settings for it, then the learner's.

    Raises:
      ValueError: an unknown preset, with the nearest names.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> start(find_domain("few-shot"), find_learner("maml"), "omniglot-5w1s").training.steps
    60000
    """
    registry.check_known("preset", preset, [own.pattern for own in domain.presets])
    experiment = Experiment(domain(), learner())
    for own in presets_for(domain, learner, preset):
        experiment = experiment.changed(**own.settings)
    return experiment


def presets_for(domain: type[Domain], learner: type[Recipe], preset: str) -> list[Preset]:
    """The presets of that name: the domain's, then the learner's."""
    names = (f"{domain.name}/{preset}", f"{domain.kind}/{preset}")
    chosen = [own for own in domain.presets if own.pattern == preset]
    return chosen + [
        own for own in learner.presets if any(fnmatchcase(name, own.pattern) for name in names)
    ]


def to_json(experiment: Experiment) -> dict[str, Any]:
    """The experiment as a dictionary of JSON values; `from_json` is the inverse.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> to_json(start(find_domain("sequence"), find_learner("lstm")))["learner"]
    {'name': 'lstm', 'width': 256, 'layers': 1}
    """
    return {
        "experiment": experiment.domain.name,
        "learner": {"name": experiment.learner.name, **dataclasses.asdict(experiment.learner)},
        "tasks": dataclasses.asdict(experiment.domain),
        "training": dataclasses.asdict(experiment.training),
    }


def from_json(fields: Any) -> Experiment:
    """The experiment from the result of `to_json`, checked.

    Raises:
      ValueError: an unknown domain, learner or setting, or a value of the wrong type.

    >>> from jaxmeta.recipes import find_domain, find_learner
    >>> experiment = start(find_domain("sequence"), find_learner("lstm"))
    >>> from_json(to_json(experiment)) == experiment
    True
    """
    if not isinstance(fields, dict) or not isinstance(fields.get("learner"), dict):
        raise ValueError("it does not hold the settings of an experiment")
    entries = {"experiment", "learner", "tasks", "training"}
    if unknown := fields.keys() - entries:
        raise ValueError(f"it has the unknown entry {min(unknown)!r}")
    learner_fields = dict(fields["learner"])
    kind = registry.find_domain(str(fields.get("experiment")))
    learner = registry.find_learner(str(learner_fields.pop("name", None)))
    if missing := entries - fields.keys():
        raise ValueError(f"it has no entry {min(missing)!r}")
    experiment = Experiment(
        settings.from_json(kind, fields["tasks"]),
        settings.from_json(learner, learner_fields),
        settings.from_json(Training, fields["training"]),
    )
    settings.check(experiment)
    return experiment

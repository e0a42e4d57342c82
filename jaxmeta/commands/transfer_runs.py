"""Trained runs as classifiers of any image set, for `transfer`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmeta.calibration import temperature
from jaxmeta.commands.baselines import choose, prototypes, whole_networks
from jaxmeta.core import Key, MetaLearner, PyTree, Task
from jaxmeta.data import ClassImages, Dataset, episodes
from jaxmeta.data.cache import cached_arrays, digest
from jaxmeta.data.identity import Seen
from jaxmeta.data.images.dataset import classes_of
from jaxmeta.data.samplers import as_argument
from jaxmeta.data.stream import TaskStream
from jaxmeta.data.transformed import in_random_order
from jaxmeta.files import shown
from jaxmeta.recipes.domains.pretrain import features_of
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.folders import read_config, read_identity
from jaxmeta.recipes.images import Images, data_identity
from jaxmeta.recipes.loading import problems, run_keys
from jaxmeta.recipes.outputs import digest_of
from jaxmeta.recipes.predictions import Predict, Predictions, predicting
from jaxmeta.recipes.restoring import restore, restore_as
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.seen import is_same
from jaxmeta.training.state import Trained, draw_keys


class Sizes(NamedTuple):
    """The sizes of a task."""

    ways: int
    shots: int
    queries: int


class Counts(NamedTuple):
    """Numbers of tasks: of the test, to fit temperatures, and to choose the rate of fine-tuning."""

    test: int
    calibration: int
    choosing: int


class Drawn:
    """The tasks of a sampler as a sequence, drawn a few at a time.

    A learner's program then depends on the shapes of the tasks only, not on the number of images
    of a set, and is compiled once for all sets.
    """

    def __init__(self, sample: Any, key: Key, count: int):
        self._sample = as_argument(sample)
        self._keys = jax.vmap(draw_keys)(jax.random.split(key, count))[:, 0]
        self._first, self._tasks = -1, None

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Task:
        first = index - index % _DRAWN
        if first != self._first:
            rows = np.minimum(np.arange(first, first + _DRAWN), len(self) - 1)
            self._tasks = jax.device_get(_draw(self._sample, self._keys[rows]))
            self._first = first
        return jax.tree.map(lambda leaf: leaf[index - first], self._tasks)


_DRAWN = 25
_draw = jax.jit(lambda sample, keys: jax.vmap(lambda key: sample(key))(keys))
_temperature = jax.jit(temperature)


def _unchanged(task: Task) -> Task:
    return task


def _enumerated(sample: Any, key: Key, count: int) -> TaskStream:
    return TaskStream(Drawn(sample, key, count), jax.tree_util.Partial(_unchanged))


class Own(NamedTuple):
    """A run with the images that it was trained on.

    Attributes:
      folder: the run folder.
      experiment, data: its settings, and what identifies its data.
      dataset: its images.
      seen: the classes that it was trained and validated on.
    """

    folder: Path
    experiment: Experiment
    data: dict[str, Any]
    dataset: Dataset
    seen: Seen

    @property
    def images(self) -> Images:
        """The settings of its images."""
        domain: Any = self.experiment.domain
        return domain.images

    @property
    def statistics(self) -> str:
        """Whose statistics normalise a query."""
        domain: Any = self.experiment.domain
        return getattr(domain.image_network, "query_statistics", "none")


class Entrant(NamedTuple):
    """A learner that takes part: a meta-learned run, or a baseline on a pre-trained one.

    Attributes:
      name: of its rows.
      learner: the learner, or the baseline.
      own: the run.
      predict: `predict(classes, sizes, count, key)`: the predictions on tasks of these classes.
      chosen: `chosen(sizes)`: the settings that were chosen on validation tasks; empty if none.
    """

    name: str
    learner: str
    own: Own
    predict: Callable[[ClassImages, Sizes, int, Key], Predictions]
    chosen: Callable[[Sizes], str] = lambda sizes: ""


def fitting(sizes: Sizes, classes: ClassImages) -> Sizes:
    """The sizes with fewer classes or queries, where the classes have too few.

    Raises:
      ValueError: fewer than two classes, or too few images for one query.
    """
    ways, smallest = min(sizes.ways, len(classes.names)), int(classes.counts.min())
    queries = min(sizes.queries, smallest - sizes.shots)
    if ways < 2 or queries < 1:
        raise ValueError(
            f"a set of {len(classes.names)} classes, the smallest with {smallest} images, is too "
            f"small for tasks of at least 2 classes, {sizes.shots} --shots and a query."
        )
    return Sizes(ways, sizes.shots, queries)


def read_own(folder: Path) -> Own:
    """A run with its images.

    Raises:
      ValueError: it is not a run of few-shot classification or pre-training on images, or its data
        has changed.
      OSError: the run or its data can't be read.
    """
    experiment, data = read_config(folder)
    domain: Any = experiment.domain
    if domain.kind not in ("classification", "supervised") or not hasattr(domain, "image_network"):
        raise ValueError(
            f"{shown(folder)} is a run of {domain.name}; transfer requires runs of few-shot or "
            "pretrain on images."
        )
    dataset = domain.images.load(experiment.training.seed)
    if not is_same(data_identity(dataset), data):
        raise ValueError(
            f"{shown(folder)} was trained on other images than {shown(domain.images.dataset)} now "
            "holds, so that its test classes are unknown; provide the same images."
        )
    seen = Seen(
        dataset.protocol["images_sha256"],
        (classes_of(dataset, "train"), classes_of(dataset, "validation")),
    )
    return Own(folder, experiment, data, dataset, seen)


def entrants_of(own: Own, counts: Counts) -> list[Entrant]:
    """The learners of a run: one, or two baselines of a pre-trained network."""
    name = own.folder.name
    if own.experiment.domain.kind == "supervised":
        frozen, chosen_frozen = _frozen_features(own, counts)
        tuned, chosen_tuned = _fine_tuned(own, counts)
        return [
            Entrant(f"{name}, frozen features", "frozen features", own, frozen, chosen_frozen),
            Entrant(f"{name}, fine-tuned", "fine-tuning", own, tuned, chosen_tuned),
        ]
    return [Entrant(name, own.experiment.learner.name, own, _meta_learned(own))]


def _at_once() -> int:
    return 1 if jax.default_backend() == "cpu" else 100


def _meta_learned(own: Own) -> Callable[[ClassImages, Sizes, int, Key], Predictions]:
    recipe, needs = own.experiment.learner, own.experiment.learner.needs
    trained_ways = problems(own.experiment, own.data, ())[0].trained_ways

    @functools.cache
    def restored(sizes: Sizes, count: int) -> tuple[Predict, Trained]:
        if not needs.any_ways and sizes.ways > trained_ways:
            raise ValueError(
                f"{shown(own.folder.name)} has one output for each of {trained_ways} classes; give "
                f"--ways {trained_ways} or fewer."
            )
        # With fewer classes than outputs, the other outputs are ignored.
        ways = sizes.ways if needs.any_ways else trained_ways
        changed = own.experiment.changed(**sizes._replace(ways=ways)._asdict())
        run = restore_as(own.folder, changed, own.data)
        constants = changed.domain.constants(own.data)
        _, problem = problems(changed, own.data, constants)
        predict = predicting(
            lambda constants: recipe.build(problem._replace(constants=constants)),
            sizes.ways,
            count,
            probabilities=recipe.probabilities,
            constants=constants,
            at_once=_at_once(),
        )
        return predict, run.trained

    def predict(classes: ClassImages, sizes: Sizes, count: int, key: Key) -> Predictions:
        of_sizes, trained = restored(sizes, count)
        sample = episodes(classes, **sizes._asdict())
        sample = in_random_order(sample) if needs.in_order else sample
        return of_sizes(trained, _enumerated(sample, key, count), key)

    return predict


def _frozen_features(own: Own, counts: Counts) -> tuple[Callable[..., Predictions], Any]:
    """Nearest class means of the frozen features, with the distance chosen in validation."""
    network, params = _pretrained(own)
    encoder = network.build(None)

    @functools.cache
    def chosen(sizes: Sizes) -> tuple[str, Any]:
        features = features_of(encoder, params, own.dataset.validation)
        small = fitting(sizes, features)
        source, key = episodes(features, **small._asdict()), _validation_key(own)
        name = choose(prototypes(small.ways, source(key)), source, key, counts.calibration).name
        learner, start = prototypes(sizes.ways, source(key))[name]
        return name, _counted(learner, start, sizes.ways)

    def predict(classes: ClassImages, sizes: Sizes, count: int, key: Key) -> Predictions:
        sample = episodes(features_of(encoder, params, classes), **sizes._asdict())
        return chosen(sizes)[1](count)(_enumerated(sample, key, count), key)

    return predict, lambda sizes: f"{chosen(sizes)[0]} distance"


def _fine_tuned(own: Own, counts: Counts) -> tuple[Callable[..., Predictions], Any]:
    """The whole network with a new head, fine-tuned at a rate chosen in validation."""
    network, params = _pretrained(own)

    @functools.cache
    def chosen(sizes: Sizes) -> tuple[str, Any]:
        classes = own.dataset.validation
        small = fitting(sizes, classes)
        source, key = episodes(classes, **small._asdict()), _validation_key(own)
        whole = network.build(small.ways, frozen=True)
        candidates = whole_networks(whole, params, source(key))
        name = choose(candidates, source, key, counts.choosing).name
        whole = network.build(sizes.ways, frozen=True)
        learner, start = whole_networks(whole, params, source(key))[name]
        return name, _counted(learner, start, sizes.ways)

    def predict(classes: ClassImages, sizes: Sizes, count: int, key: Key) -> Predictions:
        sample = episodes(classes, **sizes._asdict())
        return chosen(sizes)[1](count)(_enumerated(sample, key, count), key)

    return predict, lambda sizes: chosen(sizes)[0]


def _counted(learner: MetaLearner, start: PyTree, ways: int) -> Callable[[int], Any]:
    """`counted(count)(source, key)`: the predictions of a baseline on `count` tasks."""

    @functools.cache
    def counted(count: int) -> Any:
        predict = predicting(lambda _: learner, ways, count, at_once=_at_once())
        return functools.partial(predict, Trained(start))

    return counted


def _pretrained(own: Own) -> tuple[Any, Any]:
    domain: Any = own.experiment.domain
    return domain.image_network, restore(own.folder).meta_params


def _validation_key(own: Own) -> Key:
    return run_keys(own.experiment.training.seed)[1]


class Found(NamedTuple):
    """The predictions of an entrant, and the settings that were chosen for it."""

    predictions: Predictions
    chosen: str


def found_by(
    entrant: Entrant, classes: ClassImages, sizes: Sizes, count: int, key: Key, counts: Counts
) -> Found:
    """The predictions of an entrant on tasks of these classes, from the cache if they are there.

    They are cached only by a committed state of the source, so that they are never stale.
    """

    def measure() -> dict[str, np.ndarray]:
        found = entrant.predict(classes, sizes, count, key)
        chosen = np.array(entrant.chosen(sizes))
        return {"logarithms": found[0], "targets": found[1], "chosen": chosen}

    state = _commit()
    if state is None or state.endswith("-dirty"):
        arrays = measure()
    else:
        images = digest({"images": classes.images, "counts": classes.counts})
        run = (read_identity(entrant.own.folder), entrant.learner)
        drawn = (images, sizes, count, counts, np.asarray(jax.random.key_data(key)).tolist())
        arrays = cached_arrays(f"transfer-{digest_of(state, run, drawn)}", measure)
    predictions = Predictions(arrays["logarithms"], arrays["targets"])
    return Found(predictions, str(arrays["chosen"]))


@functools.cache
def _commit() -> str | None:
    return provenance()["commit"]


def fitted_temperature(entrant: Entrant, sizes: Sizes, counts: Counts) -> float:
    """The temperature fitted on tasks of the validation classes of the entrant's own set."""
    classes = entrant.own.dataset.validation
    small, key = fitting(sizes, classes), _validation_key(entrant.own)
    logarithms, targets = found_by(
        entrant, classes, small, counts.calibration, key, counts
    ).predictions
    rows = logarithms.reshape(-1, logarithms.shape[-1])
    return float(_temperature(rows, targets.reshape(-1)))


def counts_of(classes: ClassImages) -> list[list[Any]]:
    """What identifies the classes whatever the size of their images: names and numbers."""
    return [[*row] for row in zip(classes.names, np.asarray(classes.counts).tolist(), strict=True)]

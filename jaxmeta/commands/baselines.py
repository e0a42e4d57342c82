"""Few-shot baselines of a pre-trained network without meta-learning: `baselines RUN`.

On the test classes of a pre-training run: prototypes of its frozen features, a new head on the
frozen features, and the whole network fine-tuned with a new head for 10 steps. Hyperparameters
(the distance; rate and steps of the head; rate of fine-tuning) are chosen on validation tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from jaxmeta import files
from jaxmeta.commands.guard import RunPath, read_arguments
from jaxmeta.core import Key, MetaLearner, Model, PyTree, cross_entropy
from jaxmeta.data import episodes
from jaxmeta.inner import first_order
from jaxmeta.learners import maml, prototypical
from jaxmeta.models import from_linen, on_features
from jaxmeta.recipes.domains.pretrain import features_of
from jaxmeta.recipes.folders import IDENTITY, read_identity
from jaxmeta.recipes.images import data_identity
from jaxmeta.recipes.loading import run_keys
from jaxmeta.recipes.outputs import MADE_FROM, digest_of, is_made_from, result_file, result_path
from jaxmeta.recipes.restoring import restore
from jaxmeta.recipes.results import plain, provenance
from jaxmeta.recipes.seen import is_same
from jaxmeta.recipes.settings import AtLeastTwo, Count
from jaxmeta.training.estimates import evaluation
from jaxmeta.training.state import Sample


@dataclass(frozen=True)
class Baselines:
    """Evaluate a pre-trained network on few-shot tasks, without meta-learning."""

    run_dir: RunPath
    """A run folder of `experiments.pretrain`.
    baselines.json is written there, or baselines-DIGEST.json if that has other settings."""
    ways: AtLeastTwo = 5
    """Classes per task."""
    shots: tuple[Count, ...] = (1, 5)
    """Support examples per class; each number is evaluated separately."""
    queries: Count = 15
    """Query examples per class."""
    eval_tasks: AtLeastTwo = 1000
    """Number of test tasks for the baselines on frozen features."""
    tuned_tasks: AtLeastTwo = 200
    """Number of test tasks for fine-tuning, each of which takes seconds on a CPU."""
    choosing_tasks: AtLeastTwo = 200
    """Number of validation tasks that choose hyperparameters on frozen features."""
    tuned_choosing_tasks: AtLeastTwo = 20
    """Number of validation tasks that choose the rate of fine-tuning."""


class Candidate(NamedTuple):
    """A learner with its hyperparameters, and the parameters that it starts from."""

    learner: MetaLearner
    start: PyTree


def prototypes(ways: int, task: Any) -> dict[str, Candidate]:
    """Nearest class means of the features, by distance."""
    found = {}
    for distance in ("euclidean", "cosine"):
        learner = prototypical(on_features(), cross_entropy, ways, distance=distance)
        found[distance] = Candidate(learner, learner.init(jax.random.key(0), task))
    return found


def new_heads(ways: int, task: Any) -> dict[str, Candidate]:
    """A linear head on the features, trained from zero by gradient descent."""
    dense = from_linen(nn.Dense(ways, kernel_init=nn.initializers.zeros))
    flat = on_features().apply
    head = Model(
        lambda key, inputs: dense.init(key, flat((), inputs)),
        lambda params, inputs, **options: dense.apply(params, flat((), inputs)),
    )
    start = head.init(jax.random.key(0), task.support.inputs)
    return {
        f"{steps} steps of sgd {rate:g}": Candidate(
            maml(head, cross_entropy, optax.sgd(rate), steps, differentiation=first_order), start
        )
        for rate in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
        for steps in (20, 100)
    }


def whole_networks(network: Model, backbone: PyTree, task: Any) -> dict[str, Candidate]:
    """All parameters fine-tuned by Adam, with a head that starts from zero."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), task.support.inputs)["head"]
    head = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    start = {**backbone, "head": head}
    return {
        f"{steps} steps of adam {rate:g}": Candidate(
            maml(network, cross_entropy, optax.adam(rate), steps, differentiation=first_order),
            start,
        )
        for rate in (1e-4, 3e-4, 1e-3, 3e-3)
        for steps in (10,)
    }


class Choice(NamedTuple):
    """The candidate with the highest validation accuracy.

    Attributes:
      name, candidate: the chosen one.
      accuracies: the validation accuracy of every candidate.
    """

    name: str
    candidate: Candidate
    accuracies: dict[str, float]


def choose(candidates: Mapping[str, Candidate], validation: Sample, key: Key, count: int) -> Choice:
    """The best candidate on `count` validation tasks."""
    found = {
        name: float(evaluation(own.learner, count)(own.start, validation, key)["accuracy"].mean)
        for name, own in candidates.items()
    }
    name = max(found, key=lambda name: found[name])
    return Choice(name, candidates[name], found)


def best(
    candidates: Mapping[str, Candidate],
    tasks: Sequence[Sample],
    keys: tuple[Key, Key],
    counts: tuple[int, int],
) -> dict[str, Any]:
    """The candidate with the highest validation accuracy, with its estimates on test tasks."""
    validation_tasks, test_tasks = tasks
    validation_key, test_key = keys
    chosen = choose(candidates, validation_tasks, validation_key, counts[0])
    learner, start = chosen.candidate
    estimates = evaluation(learner, counts[1])(start, test_tasks, test_key)
    return {
        **plain(estimates),
        "num_tasks": counts[1],
        "chosen": chosen.name,
        "validation_accuracies": chosen.accuracies,
        "validation_tasks": counts[0],
    }


def command(arguments: list[str], prog: str) -> None:
    """Evaluate, print a line per baseline, write `baselines.json` into the run folder."""
    options = read_arguments(Baselines, prog, arguments)
    _, path = _written(options)
    print(f"results: {path}")


def run(options: Baselines) -> dict[str, Any]:
    """Evaluate the baselines, write them into the run folder and return them.

    Raises:
      ValueError, OSError: with a message of one line for the command line.
    """
    results, _ = _written(options)
    return results


def _written(options: Baselines) -> tuple[dict[str, Any], Path]:
    """The results, and the file that holds them."""
    identity = read_identity(options.run_dir)
    given = {name: value for name, value in vars(options).items() if name != "run_dir"}
    made_from = digest_of(identity, given)
    path = result_path(options.run_dir, "baselines", {}, made_from)
    with result_file(path, is_made_from(made_from)):
        results = {**_evaluated(options), IDENTITY: identity, MADE_FROM: made_from}
        files.write_json(path, results)
    return results, path


def _evaluated(options: Baselines) -> dict[str, Any]:
    pretrained = restore(options.run_dir)
    domain: Any = pretrained.experiment.domain
    training = pretrained.experiment.training
    if domain.kind != "supervised":
        raise ValueError(f"{options.run_dir} is a run of {domain.name}; give a run of pretrain.")
    backbone, network = pretrained.meta_params, domain.image_network
    dataset = domain.images.load(training.seed)
    if not is_same(data_identity(dataset), pretrained.data):
        raise ValueError(
            f"{options.run_dir} was trained on other images than {domain.images.dataset} now "
            "holds, so the test classes may include classes of its training; provide the same "
            "images."
        )
    encoder, whole = network.build(None), network.build(options.ways, frozen=True)
    frozen = [features_of(encoder, backbone, part) for part in (dataset.validation, dataset.test)]
    keys = run_keys(training.seed)[1:]
    found = {}
    for shots in options.shots:
        tasks = partial(episodes, ways=options.ways, shots=shots, queries=options.queries)
        of_features = [tasks(part) for part in frozen]
        of_images = [tasks(part) for part in (dataset.validation, dataset.test)]
        counts = (options.choosing_tasks, options.eval_tasks)
        tuned_counts = (options.tuned_choosing_tasks, options.tuned_tasks)
        task, image_task = of_features[0](keys[0]), of_images[0](keys[0])
        found[f"{options.ways}w{shots}s"] = rows = {
            "prototypes of frozen features": best(
                prototypes(options.ways, task), of_features, keys, counts
            ),
            "new head on frozen features": best(
                new_heads(options.ways, task), of_features, keys, counts
            ),
            "whole network": best(
                whole_networks(whole, backbone, image_task), of_images, keys, tuned_counts
            ),
        }
        for name, row in rows.items():
            print(_line(f"{options.ways}-way {shots}-shot · {name}", row), flush=True)
    return {
        "baselines": found,
        "protocol": {
            **dataset.protocol,
            "queries": options.queries,
            "network": f"{network.network}, width {network.width}",
            "query_statistics": "none",
            "selected_on": "validation accuracy",
            "seed": training.seed,
        },
        **provenance(),
    }


def _line(name: str, row: Mapping[str, Any]) -> str:
    value, interval = 100 * row["accuracy"], 100 * row["accuracy_ci95"]
    return f"{name} · {value:.1f} ± {interval:.1f} % on {row['num_tasks']} tasks ({row['chosen']})"

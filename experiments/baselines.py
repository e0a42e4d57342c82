"""What a pre-trained network does without meta-learning: `python -m experiments.baselines RUN`.

On the test classes of a run of `experiments.pretrain`: prototypes of its frozen features, a new
head on these, and the whole network fine-tuned with a new head for 10 steps. What they leave open
(the distance; rate and steps of the head; the network's rate) is chosen on validation tasks.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import linen as nn

from experiments.command_line import guarded, read_arguments
from experiments.pretrain import BACKBONE, Pretrain, features_of, few_shot_of, on_features
from experiments.run import circumstances, load_dataset, plain, run_keys
from jaxmeta import files
from jaxmeta.core import Key, MetaLearner, Model, PyTree, cross_entropy
from jaxmeta.data import Dataset, episodes
from jaxmeta.inner import first_order
from jaxmeta.learners import maml, prototypical
from jaxmeta.models import from_linen, unpack
from jaxmeta.training import evaluation
from jaxmeta.training.build_learner import network_of
from jaxmeta.training.config import FewShot
from jaxmeta.training.estimates import Estimate
from jaxmeta.training.state import Sample


@dataclass(frozen=True)
class Baselines:
    """Evaluate a pre-trained network on few-shot tasks, without meta-learning."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The run folder of `experiments.pretrain`; baselines.json is written there."""
    ways: int = 5
    """Classes of a task."""
    shots: tuple[int, ...] = (1, 5)
    """Support examples a class, each by itself."""
    queries: int = 15
    """Query examples a class."""
    eval_tasks: int = 1000
    """Test tasks of frozen features."""
    tuned_tasks: int = 200
    """Test tasks of the whole network, of which each takes seconds on a CPU."""
    choosing_tasks: int = 200
    """Validation tasks that choose distance, rate and steps, of frozen features."""
    tuned_choosing_tasks: int = 20
    """Validation tasks that choose them for the whole network."""


class Candidate(NamedTuple):
    """A way to adapt, with the parameters to start from."""

    learner: MetaLearner
    start: PyTree


def prototypes(ways: int, task: Any) -> dict[str, Candidate]:
    """Class means of the features, by their distance."""
    found = {}
    for distance in ("euclidean", "cosine"):
        learner = prototypical(on_features(), cross_entropy, ways, distance=distance)
        found[distance] = Candidate(learner, learner.init(jax.random.key(0), task))
    return found


def new_heads(ways: int, task: Any) -> dict[str, Candidate]:
    """A linear head on the features, from zero, by gradient descent."""
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


def whole_networks(config: FewShot, backbone: PyTree, task: Any) -> dict[str, Candidate]:
    """All parameters, a head from zero among them, by Adam."""
    network = network_of(config, config.ways)
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


def best(
    candidates: Mapping[str, Candidate], tasks: Sequence[Sample], keys: Key, counts: tuple[int, int]
) -> dict[str, Any]:
    """The candidate of the highest validation accuracy, and its estimates on test tasks."""
    validation_tasks, test_tasks = tasks
    validation_key, test_key = keys

    def judged(candidate: Candidate, source: Any, key: Any, count: int) -> dict[str, Estimate]:
        return evaluation(candidate.learner, count)(candidate.start, source, key)

    validated = {
        name: float(judged(candidate, validation_tasks, validation_key, counts[0])["accuracy"].mean)
        for name, candidate in candidates.items()
    }
    chosen = max(validated, key=lambda name: validated[name])
    estimates = judged(candidates[chosen], test_tasks, test_key, counts[1])
    return {
        **plain(estimates),
        "num_tasks": counts[1],
        "chosen": chosen,
        "validation_accuracies": validated,
        "validation_tasks": counts[0],
    }


def run(options: Baselines) -> dict[str, Any]:
    """Evaluate, write `baselines.json`; return it.

    Raises:
      ValueError, OSError: with one plain line for the command line to show.
    """
    pretrained, backbone = _read(options.run_dir)
    few_shot = few_shot_of(pretrained, ways=options.ways)
    dataset = load_dataset(few_shot)
    assert dataset is not None
    encoder = network_of(few_shot, None)
    frozen = [features_of(encoder, backbone, part) for part in (dataset.validation, dataset.test)]
    keys = run_keys(pretrained.seed)[1:]
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
                whole_networks(few_shot, backbone, image_task), of_images, keys, tuned_counts
            ),
        }
        for name, row in rows.items():
            print(_line(f"{options.ways}-way {shots}-shot · {name}", row), flush=True)
    results = {
        "baselines": found,
        "protocol": _protocol(dataset, options, pretrained),
        **circumstances(),
    }
    files.write_json(options.run_dir / "baselines.json", results)
    return results


def _read(folder: Path) -> tuple[Pretrain, PyTree]:
    path = folder / "config.json"
    try:
        fields = json.loads(path.read_text())["config"]
        backbone = unpack((folder / BACKBONE).read_bytes())["network"]
        names = {field.name for field in dataclasses.fields(Pretrain)}
        settings = Pretrain(**{name: fields[name] for name in names & fields.keys()})
    except OSError as error:
        raise type(error)(
            f"{folder} holds no pre-trained network ({error}); run python -m experiments.pretrain "
            "to its end."
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be read ({error}); pre-train anew.") from error
    return settings, backbone


def _protocol(dataset: Dataset, options: Baselines, pretrained: Pretrain) -> dict[str, Any]:
    return dataset.protocol | {
        "queries": options.queries,
        "network": f"{pretrained.network}, width {pretrained.width}",
        "query_statistics": "none",
        "selected_on": "validation accuracy",
        "seed": pretrained.seed,
    }


def _line(name: str, row: Mapping[str, Any]) -> str:
    value, interval = 100 * row["accuracy"], 100 * row["accuracy_ci95"]
    return f"{name} · {value:.1f} ± {interval:.1f} % on {row['num_tasks']} tasks ({row['chosen']})"


def main(options: Baselines) -> None:
    run(options)
    print(f"results: {options.run_dir / 'baselines.json'}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(read_arguments(Baselines, "baselines"))))

"""From a configuration to the learner, the update and the samplers that it describes."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta.core import Batch, MetaLearner, Task, valid_mask
from jaxmeta.data import Dataset, episodes, sinusoids
from jaxmeta.data.completion import image_completion
from jaxmeta.data.images.dataset import PARTS
from jaxmeta.data.stream import task_stream
from jaxmeta.data.synthetic.gaussian_processes import gaussian_curves
from jaxmeta.data.transformed import distorted, in_random_order, with_unlabelled
from jaxmeta.learners import MetaTransferParams
from jaxmeta.training.aggregation import aggregate_of
from jaxmeta.training.build_learner import learner_of
from jaxmeta.training.config import AnyExperiment, Experiment, FewShot
from jaxmeta.training.feed import Source
from jaxmeta.training.hard_tasks import hard_task_update
from jaxmeta.training.options import Mann, Matching, MetaTransfer, Snail
from jaxmeta.training.update import MetaUpdate, meta_update

Part = Literal["train", "validation", "test"]


def tasks_at_once(config: AnyExperiment) -> int | None:
    """How many tasks to map together, None for all: as configured, else the fastest known here."""
    if config.tasks_at_once is not None:
        return config.tasks_at_once
    return fastest_at_once(isinstance(config, FewShot))


def fastest_at_once(images: bool) -> int | None:
    """How many tasks to map together, None for all, where they are of images or of curves.

    On a CPU the working set of one convolutional task fits the cache, that of 32 does not
    (0.23 s against 0.39 s a step); small perceptrons and accelerators want all at once.
    """
    return 1 if images and jax.default_backend() == "cpu" else None


def update_of(config: AnyExperiment, mesh: Mesh | None = None) -> MetaUpdate:
    """The meta-update: the learner's gradient, averaged over the mesh, and the outer optimizer."""
    hard = isinstance(config, FewShot) and config.hard_tasks
    make = hard_task_update if hard else meta_update
    learner = learner_of(config, train=True)
    return update_for(learner, config, mesh, at_once=tasks_at_once(config), make=make)


def update_for(
    learner: MetaLearner,
    settings: Experiment,
    mesh: Mesh | None,
    *,
    at_once: int | None,
    make: Callable[..., MetaUpdate] = meta_update,
) -> MetaUpdate:
    """The update of any learner with an experiment's optimizer, task batch and aggregation."""
    return make(
        learner,
        outer_optimizer_of(settings),
        task_batch=settings.task_batch,
        tasks_at_once=at_once,
        aggregate=aggregate_of(settings.aggregate, settings.aggregate_norm),
        mesh=mesh,
    )


def outer_optimizer_of(config: Experiment) -> optax.GradientTransformation:
    """The optimizer of the meta-parameters, its schedule and what it clips."""
    schedule = {
        "constant": optax.constant_schedule(config.outer_rate),
        "linear": optax.linear_schedule(config.outer_rate, 0.0, config.steps),
        "cosine": optax.cosine_decay_schedule(config.outer_rate, config.steps),
        "halving": optax.exponential_decay(
            config.outer_rate, config.halve_every, 0.5, staircase=True
        ),
    }[config.outer_schedule]
    optimizer = {"adam": optax.adam, "sgd": optax.sgd}[config.outer_optimizer](schedule)
    learner = getattr(config, "learner", None)
    if isinstance(learner, MetaTransfer):
        filters = MetaTransferParams(frozen=False, scales=True, shifts=True, head=False)
        slower = optax.scale(learner.filter_rate / config.outer_rate)
        optimizer = optax.chain(optimizer, optax.masked(slower, filters))
    if config.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    if config.clip is not None:
        optimizer = optax.chain(optax.clip(config.clip), optimizer)
    return optimizer


def source_of(config: AnyExperiment, dataset: Dataset | None, part: Part) -> Source:
    """The training, validation or test tasks; no two parts share a class.

    Raises:
      ValueError: an episode asks for more classes or images than that part of the set has.
    """
    sizes = config.episode(part == "train")
    if isinstance(config, FewShot):
        assert dataset is not None
        classes = getattr(dataset, part)
        drawn = {
            "rotations": config.rotations,
            "shuffle_labels": config.shuffle_labels,
            "ways": sizes["ways"] + config.distractors,
            "shots": sizes["shots"] + config.unlabelled,
            "queries": sizes["queries"],
        }
        learner = config.learner
        in_order = isinstance(learner, Mann | Snail) or (
            isinstance(learner, Matching) and learner.full_context
        )
        if pipeline_of(config, dataset) == "stream":
            if config.distortions or in_order:
                raise ValueError(
                    "distortions, and the random order of the support that this learner wants, are "
                    "drawn on the device, which these images don't fit: give --pipeline device or "
                    "a larger --device-budget."
                )
            stream = task_stream(classes, **drawn, seed=(config.seed, PARTS.index(part)))
            return stream._replace(prepare=_with_unlabelled(config, sizes, stream.prepare))
        try:
            sample = episodes(classes, **drawn)
        except ValueError as error:
            if not config.unlabelled:
                raise
            raise ValueError(
                f"{error}. Of these ways {config.distractors} are --distractors, of these shots "
                f"{config.unlabelled} are --unlabelled."
            ) from error
        sample = _with_unlabelled(config, sizes, sample)
        sample = in_random_order(sample) if in_order else sample
        return distorted(sample) if config.distortions and part == "train" else sample
    if config.task == "gp":
        return gaussian_curves(
            kernel=config.kernel,
            points=config.points,
            queries=sizes["queries"],
            kernel_length=config.kernel_length,
            kernel_scale=config.kernel_scale,
            kernel_period=config.kernel_period,
            noise=config.noise,
        )
    if config.task == "images":
        assert dataset is not None
        # All pixels are judged at test, some in training.
        targets = sizes["queries"] if part == "train" else None
        return image_completion(getattr(dataset, part), points=config.points, queries=targets)
    return sinusoids(
        **sizes,
        amplitude=config.amplitude,
        phase=config.phase,
        frequency=config.frequency,
        domain=config.domain,
    )


def _with_unlabelled(config: FewShot, sizes: dict[str, int], sample: Any) -> Any:
    if not config.unlabelled:
        return sample
    return with_unlabelled(
        sample,
        ways=sizes["ways"],
        shots=sizes["shots"],
        unlabelled=config.unlabelled,
        distractors=config.distractors,
    )


def pipeline_of(config: AnyExperiment, dataset: Dataset | None) -> Literal["device", "stream"]:
    """As configured, else the device if the images of all parts fit the budget there."""
    if not isinstance(config, FewShot) or dataset is None:
        return "device"  # curves are drawn where they are learned from
    if config.pipeline != "auto":
        return config.pipeline
    size = sum(getattr(dataset, part).images.nbytes for part in PARTS)
    return "device" if size <= config.device_budget * 2**30 else "stream"


def example_task(config: AnyExperiment, image_shape: tuple[int, ...] | None) -> Task:
    """A task of zeros of the training shapes: what `init` needs where there is no data at hand."""
    sizes = config.episode(True)
    if isinstance(config, FewShot):
        assert image_shape is not None

        def batch(examples: int) -> Batch:
            rows = sizes["ways"] * examples
            return Batch(jnp.zeros((rows, *image_shape)), jnp.zeros((rows,), jnp.int32))
    else:
        places, values = (2, image_shape[-1]) if image_shape is not None else (1, 1)

        def batch(examples: int) -> Batch:
            return Batch(jnp.zeros((examples, places)), jnp.zeros((examples, values)))

        if config.task != "sinusoids":
            known = config.points[1]
            support = batch(known)._replace(mask=valid_mask(None, known))
            return Task(support, batch(sizes["queries"]))

    return Task(batch(sizes["shots"]), batch(sizes["queries"]))

"""From a configuration to the learner, the update and the samplers that it describes."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxmeta.core import Batch, MetaLearner, Model, Objective, Task, cross_entropy, squared_error
from jaxmeta.data import Dataset, episodes, sinusoids
from jaxmeta.data.sources import PARTS
from jaxmeta.data.stream import task_stream
from jaxmeta.inner import DIFFERENTIATIONS, Differentiation, adam, truncated
from jaxmeta.learners import anil, first_order_maml, maml, meta_sgd, prototypical, reptile
from jaxmeta.models import computed_in, conv4, mlp, resnet12
from jaxmeta.training.config import (
    Anil,
    AnyExperiment,
    FewShot,
    FirstOrderMaml,
    Maml,
    MetaSgd,
    Prototypical,
    Reptile,
)
from jaxmeta.training.feed import Source
from jaxmeta.training.update import MetaUpdate, meta_update

Part = Literal["train", "validation", "test"]


def objective_of(config: AnyExperiment) -> Objective:
    """Cross-entropy for images, squared error for curves."""
    return cross_entropy if isinstance(config, FewShot) else squared_error


def learner_of(config: AnyExperiment, *, train: bool) -> MetaLearner:
    """The learner, with the ways and the inner steps of training or of evaluation.

    Raises:
      ValueError: a learner with a head of its own is trained and tested with different ways.
    """
    options, objective = config.learner, objective_of(config)
    if isinstance(options, Prototypical):
        assert isinstance(config, FewShot)
        encoder, ways = network_of(config, None), config.episode(train)["ways"]
        return prototypical(encoder, objective, ways, distance=options.distance)

    model = _model(config)
    steps = options.inner_steps if train else options.eval_inner_steps
    if isinstance(options, MetaSgd):
        return meta_sgd(
            model,
            objective,
            steps,
            initial_rate=options.initial_rate,
            differentiation=_differentiation(options),
        )
    sizes = config.episode(train)
    batch_size = options.inner_batch
    if batch_size is not None and batch_size >= sizes.get("ways", 1) * sizes["shots"]:
        batch_size = None
    if isinstance(options, Reptile):
        return _reptile(config, options, model, objective, steps, batch_size)
    optimizer = {"sgd": optax.sgd, "adam": adam}[options.inner_optimizer](options.inner_rate)
    if isinstance(options, FirstOrderMaml):
        return first_order_maml(model, objective, optimizer, steps, batch_size=batch_size)
    return (anil if isinstance(options, Anil) else maml)(
        model,
        objective,
        optimizer,
        steps,
        differentiation=_differentiation(options),
        batch_size=batch_size,
    )


def _reptile(
    config: AnyExperiment,
    options: Reptile,
    model: Model,
    objective: Objective,
    steps: int,
    batch_size: int | None,
) -> MetaLearner:
    carried = options.inner_optimizer == "rmsprop"
    if carried and (config.outer_optimizer != "sgd" or config.outer_rate > 1):
        raise ValueError(
            f"--outer-optimizer {config.outer_optimizer} --outer-rate {config.outer_rate:g}: the "
            "second moments that --inner-optimizer rmsprop carries from task to task stay positive "
            "under sgd with a rate of at most 1 alone; give these, or --inner-optimizer adam."
        )
    optimizer = {
        "sgd": optax.sgd,
        "adam": partial(adam, b1=0.0),
        # Second moments start well above those of gradients, so that the first steps are small.
        "rmsprop": partial(optax.rmsprop, decay=0.999, initial_scale=1e-4, eps_in_sqrt=False),
    }[options.inner_optimizer](options.inner_rate)
    return reptile(
        model,
        objective,
        optimizer,
        steps,
        batch_size=batch_size,
        carry_optimizer_state=carried,
    )


def _model(config: AnyExperiment) -> Model:
    """The network of a learner with a head, which fixes the number of ways."""
    if not isinstance(config, FewShot):
        return mlp(config.hidden, 1)
    ways, trained_ways = (config.episode(train)["ways"] for train in (False, True))
    if ways != trained_ways:
        raise ValueError(
            f"{config.learner.name} has an output for each of the {trained_ways} classes that it "
            f"is trained with and cannot tell {ways}; only prototypical can. Give both the same."
        )
    return network_of(config, ways)


def _differentiation(options: Maml | Anil | MetaSgd) -> Differentiation:
    way = DIFFERENTIATIONS[options.differentiate]
    return way if options.truncate is None else truncated(options.truncate, way)


def network_of(config: FewShot, outputs: int | None) -> Model:
    """The image network; without `outputs` the encoder, which has no head."""
    network = _float32_network(config, outputs)
    return network if config.precision == "float32" else computed_in(network, jnp.bfloat16)


def _float32_network(config: FewShot, outputs: int | None) -> Model:
    if config.network == "mlp":  # the one of Finn et al. 2017, section 5.2
        hidden = (256, 128, 64) if outputs is None else (256, 128, 64, 64)
        return mlp(hidden, outputs or 64, normalisation=config.query_statistics)
    if config.network == "resnet12":
        return resnet12(outputs, width=config.width, normalisation=config.query_statistics)
    downsampling = "stride" if config.network == "conv4-stride" else "pool"
    return conv4(
        outputs,
        width=config.width,
        downsampling=downsampling,
        normalisation=config.query_statistics,
    )


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
    schedule = {
        "constant": optax.constant_schedule(config.outer_rate),
        "linear": optax.linear_schedule(config.outer_rate, 0.0, config.steps),
        "cosine": optax.cosine_decay_schedule(config.outer_rate, config.steps),
        "halving": optax.exponential_decay(
            config.outer_rate, config.halve_every, 0.5, staircase=True
        ),
    }[config.outer_schedule]
    optimizer = {"adam": optax.adam, "sgd": optax.sgd}[config.outer_optimizer](schedule)
    if config.clip is not None:
        optimizer = optax.chain(optax.clip(config.clip), optimizer)
    return meta_update(
        learner_of(config, train=True),
        optimizer,
        task_batch=config.task_batch,
        tasks_at_once=tasks_at_once(config),
        mesh=mesh,
    )


def source_of(config: AnyExperiment, dataset: Dataset | None, part: Part) -> Source:
    """The training, validation or test tasks; no two parts share a class.

    Raises:
      ValueError: an episode asks for more classes or images than that part of the set has.
    """
    sizes = config.episode(part == "train")
    if isinstance(config, FewShot):
        assert dataset is not None
        classes = getattr(dataset, part)
        how = {"rotations": config.rotations, "shuffle_labels": config.shuffle_labels}
        if pipeline_of(config, dataset) == "device":
            return episodes(classes, **sizes, **how)
        return task_stream(classes, **sizes, **how, seed=(config.seed, PARTS.index(part)))
    return sinusoids(
        **sizes,
        amplitude=config.amplitude,
        phase=config.phase,
        frequency=config.frequency,
        domain=config.domain,
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

        def batch(examples: int) -> Batch:
            return Batch(jnp.zeros((examples, 1)), jnp.zeros((examples, 1)))

    return Task(batch(sizes["shots"]), batch(sizes["queries"]))

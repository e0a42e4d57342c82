"""Every learner in a small setting, in one list: the next learner is one more line.

`case` runs a test over all of them, `differentiable` over those that take a way of
differentiating, `prepare` makes one ready, `assert_gradient` is the judge of derivatives.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Carry, MetaLearner, Objective, Task, cross_entropy, squared_error
from jaxmeta.data import sinusoids
from jaxmeta.inner import adam
from jaxmeta.learners import anil, first_order_maml, maml, meta_sgd, prototypical, reptile
from jaxmeta.models import conv4, mlp


def patterns(ways: int = 3, shots: int = 2, queries: int = 2, size: int = 8):
    """Tasks of noisy images: a class is a coarse 2×2 pattern, so there is something to learn."""

    def sample(key) -> Task:
        pattern_key, noise_key = jax.random.split(key)
        coarse = jax.random.normal(pattern_key, (ways, 2, 2, 1))
        classes = jnp.repeat(jnp.repeat(coarse, size // 2, axis=1), size // 2, axis=2)
        labels = jnp.tile(jnp.arange(ways, dtype=jnp.int32), shots + queries)
        noise = jax.random.normal(noise_key, (labels.shape[0], size, size, 1))
        images, support = classes[labels] + noise, ways * shots
        return Task(
            Batch(images[:support], labels[:support]), Batch(images[support:], labels[support:])
        )

    return sample


class Case(NamedTuple):
    """A learner in a small setting.

    Attributes:
      name: as the tests show it.
      build: `build() -> MetaLearner`; `build(steps=1)` and the like override the setting.
      objective: what the learner was built with.
      sample: `sample(key) -> Task`.
      outer: the outer optimizer under which it learns.
    """

    name: str
    build: Callable[..., MetaLearner]
    objective: Objective
    sample: Callable[[jax.Array], Task]
    outer: optax.GradientTransformation = optax.adam(1e-2)


CURVES = sinusoids(shots=6, queries=5, amplitude=(1.0, 3.0))
IMAGES = patterns()
CURVE = mlp((16, 16), 1)
CLASSIFIER = partial(mlp, (8,), 3)
EMBEDDING = conv4(width=4, downsampling="stride", normalisation="layer")


def case_of(name, learner, *arguments, objective=squared_error, sample=CURVES, outer=None, **rest):
    build = partial(learner, arguments[0], objective, *arguments[1:], **rest)
    return Case(name, build, objective, sample, outer or optax.adam(1e-2))


image_case = partial(case_of, objective=cross_entropy, sample=IMAGES)

CASES = [
    case_of("maml", maml, CURVE, optax.sgd(0.02), steps=3),
    image_case("maml-batch", maml, CLASSIFIER(normalisation="batch"), optax.sgd(0.3), steps=2),
    image_case("maml-support", maml, CLASSIFIER(normalisation="support"), optax.sgd(0.3), steps=2),
    case_of("first-order-maml", first_order_maml, CURVE, optax.sgd(0.02), steps=3),
    image_case("anil", anil, CLASSIFIER(normalisation="layer"), optax.sgd(0.3), steps=3),
    case_of("meta-sgd", meta_sgd, CURVE, steps=2, initial_rate=(0.005, 0.02)),
    case_of("reptile", reptile, CURVE, adam(0.01, b1=0.0), steps=5, outer=optax.sgd(0.5)),
    case_of(
        "reptile-minibatches",
        reptile,
        CURVE,
        adam(0.01, b1=0.0),
        steps=5,
        batch_size=4,
        outer=optax.sgd(0.5),
    ),
    image_case("prototypical", prototypical, EMBEDDING, ways=3),
    image_case("prototypical-cosine", prototypical, mlp((8,), 4), ways=3, distance="cosine"),
]


def takes(case: Case, argument: str) -> bool:
    return argument in inspect.signature(case.build).parameters


def named(cases: list[Case]) -> dict:
    return {"params": cases, "ids": [case.name for case in cases]}


@pytest.fixture(**named(CASES))
def case(request) -> Case:
    return request.param


@pytest.fixture(**named([case for case in CASES if takes(case, "differentiation")]))
def differentiable(request) -> Case:
    return request.param


class Setting(NamedTuple):
    """A learner, and what its functions take."""

    learner: MetaLearner
    key: jax.Array
    meta_params: Any
    task: Task
    carry: Carry


@functools.cache
def setting(case: Case, seed: int, x64: bool, overrides: tuple) -> Setting:
    learner = built(case, overrides)
    init_key, task_key, key = jax.random.split(jax.random.key(seed), 3)
    task = draw(case.sample)(task_key)
    meta_params = initialise(learner)(init_key, task)
    ...


@pytest.fixture
def prepare():
    """`prepare(case, seed=0, **overrides)`: a setting, in float64 where the test asks for x64."""

@pytest.fixture
def assert_gradient(x64):
    """`assert_gradient(grads, function, at)`: what central differences say, leaf by leaf."""

    def slopes(function, at, directions, step=1e-6):
        leaves, treedef = jax.tree.flatten(at)

        def along(index, distance):
            return [
                leaf + distance * direction if here == index else leaf
                for here, (leaf, direction) in enumerate(zip(leaves, directions, strict=True))
            ]

        moved = [along(index, sign) for index in range(len(leaves)) for sign in (step, -step)]
        stacked = [jnp.stack(versions) for versions in zip(*moved, strict=True)]
        values = jax.jit(jax.vmap(function))(treedef.unflatten(stacked)).reshape(-1, 2)
        return (values[:, 0] - values[:, 1]) / (2 * step)

    def assert_gradient(grads, function, at):
        keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(at)))
        directions = [
            jax.random.normal(key, leaf.shape, jnp.float64)
            for key, leaf in zip(keys, jax.tree.leaves(at), strict=True)
        ]
        expected = slopes(function, at, directions)
        found = [jnp.vdot(*pair) for pair in zip(jax.tree.leaves(grads), directions, strict=True)]
        np.testing.assert_allclose(np.array(found), expected, rtol=1e-6, atol=1e-8)
        assert np.abs(expected).max() > 1e-3  # else the comparison says nothing

    return assert_gradient

"""Every learner in a small setting, in one list: the next learner is one more line.

The fixture `case` runs a test over all of them, `differentiable` over those that take a way of
differentiating; `prepare` makes one ready; `assert_gradient` is the judge of derivatives.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import (
    Batch,
    Carry,
    MetaLearner,
    Model,
    Objective,
    Task,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
)
from jaxmeta.core import GradientOf
from jaxmeta.data import sequences, sinusoids, with_unlabelled
from jaxmeta.data.control import bandits, tabular
from jaxmeta.environment import Environment
from jaxmeta.inner import conjugate_gradients, only, second_order
from jaxmeta.learners import (
    active_one_shot,
    anil,
    anml,
    augmented,
    boil,
    cavia,
    decision_pretrained,
    distribution_calibration,
    evolve,
    first_order_maml,
    gan_augmented,
    imaml,
    maml,
    maml_plus_plus,
    maml_rl,
    matching,
    meta_curvature,
    meta_lstm,
    meta_sgd,
    meta_transfer,
    multi_task,
    noise_augmented,
    oml,
    one_hot_squared_error,
    online,
    persistent_es,
    promp,
    proto_maml,
    prototypical,
    r2d2,
    relation,
    reptile,
    rl_squared,
    semi_supervised_prototypical,
    siamese,
    snail,
    sparse_maml,
    supervised,
    truncated_backpropagation,
    vae,
    vae_augmented,
)
from jaxmeta.learners.control import PolicyGradient
from jaxmeta.learners.generative import CriticState
from jaxmeta.learners.memory import (
    as_model,
    dnc,
    lstm_machine,
    mann,
    memory_classifier,
    ntm,
    sequence_learner,
)
from jaxmeta.learners.optimizers import LearnedOptimizer, optimizer_learner, windows
from jaxmeta.learners.process import (
    alpaca,
    bayesian_last_layer,
    class_by_class,
    conditional_neural_process,
    conditional_neural_process_classifier,
    gaussian_likelihood,
    mixture_likelihood,
    moca,
    neural_process,
    prior_fitted,
    sliding_window,
    transformer_neural_process,
)
from jaxmeta.models import conv4, image_decoder, image_generator, mlp, pair_critic, pairwise


class Case(NamedTuple):
    """A learner in a small setting.

    Attributes:
      name: as the tests show it.
      build: `build() -> MetaLearner`; `build(inner_steps=1)` and the like override the setting.
      objective: what the learner was built with.
      sample: `sample(key) -> Task`.
      outer: the outer optimizer under which it learns.
      without_zero: whether the loss may be negative: a likelihood, or a return.
    """

    name: str
    build: partial[MetaLearner]
    objective: Objective
    sample: Callable[[jax.Array], Task]
    outer: optax.GradientTransformation
    without_zero: bool = False


def patterns(
    ways: int = 3,
    shots: int = 2,
    queries: int = 2,
    size: int = 8,
    by_class: bool = False,
    alike: bool = False,
):
    """Tasks of noisy images: a class is a coarse 2×2 pattern, so there is something to learn.

    With `alike`, all tasks have the same classes.
    """
    order = np.tile(np.arange(ways), shots + queries)
    if by_class:
        order = np.concatenate([np.repeat(np.arange(ways), count) for count in (shots, queries)])

    def sample(key: jax.Array) -> Task:
        pattern_key, noise_key = jax.random.split(key)
        pattern_key = jax.random.key(0) if alike else pattern_key
        coarse = jax.random.normal(pattern_key, (ways, 2, 2, 1))
        classes = jnp.repeat(jnp.repeat(coarse, size // 2, axis=1), size // 2, axis=2)
        labels = jnp.asarray(order, jnp.int32)
        noise = jax.random.normal(noise_key, (labels.shape[0], size, size, 1))
        images, support = classes[labels] + noise, ways * shots
        return Task(
            Batch(images[:support], labels[:support]), Batch(images[support:], labels[support:])
        )

    return jax.tree_util.Partial(sample)


def of_curves(name, learner, model, *rest, **options) -> Case:
    build = partial(learner, model, squared_error, *rest, **options)
    sample = sinusoids(shots=6, queries=5, amplitude=(1.0, 3.0))
    return Case(name, build, squared_error, sample, optax.adam(2e-2))


def of_images(name, learner, model, *rest, outer=None, **options) -> Case:
    build = partial(learner, model, cross_entropy, *rest, **options)
    return Case(name, build, cross_entropy, patterns(), outer or optax.adam(1e-2))


def of_processes(name, learner, *rest, **options) -> Case:
    sample = sinusoids(shots=6, queries=5, amplitude=(1.0, 3.0))
    build = partial(learner, *rest, **options)
    return Case(name, build, gaussian_likelihood, sample, optax.adam(1e-2), without_zero=True)


def of_sequences(name, machine) -> Case:
    build = partial(sequence_learner, as_model(machine), binary_cross_entropy)
    sample = sequences.copy(bits=2, lengths=(1, 2))
    return Case(name, build, binary_cross_entropy, sample, optax.adam(1e-2))


def asking(outputs, targets, mask=None):
    """The loss is the learner's own; these are the names of its metrics."""
    zero = jnp.zeros((), outputs.dtype)
    return zero, {"reward": zero, "requests": zero, "accuracy": zero}


def tables(ways: int = 3, rows: int = 6):
    """Points of a few classes in four columns."""

    def sample(key: jax.Array) -> Task:
        centre_key, noise_key = jax.random.split(key)
        targets = jnp.arange(2 * rows) % ways
        points = jax.random.normal(centre_key, (ways, 4))[targets]
        points += 0.3 * jax.random.normal(noise_key, points.shape)
        parts = (Batch(points[own::2], targets[own::2]) for own in (0, 1))
        return Task(*parts)

    return jax.tree_util.Partial(sample)


def streams(ways: int = 3, instances: int = 4):
    """Points of a few classes in random order, each with the label of the one before."""

    def sample(key: jax.Array) -> Task:
        centre_key, order_key, noise_key = jax.random.split(key, 3)
        targets = jax.random.permutation(order_key, jnp.arange(ways * instances) % ways)
        points = jax.random.normal(centre_key, (ways, 4))[targets]
        points += 0.1 * jax.random.normal(noise_key, points.shape)
        told = jnp.roll(jax.nn.one_hot(targets, ways), 1, axis=0).at[0].set(0)
        return Task((), Batch(jnp.concatenate([points, told], axis=1), targets))

    return jax.tree_util.Partial(sample)


def evolved(model, objective, inner_steps):
    return evolve(maml(model, objective, optax.sgd(0.02), inner_steps), std=0.1, pairs=4)


def sparse(model, objective, inner_optimizer, inner_steps):
    given = (model, objective, inner_optimizer, inner_steps)
    return sparse_maml(*given, differentiation=second_order)


def of_rules(name, transform) -> Case:
    """A learner of the smallest rule there is, SGD with a learned rate and momentum.

    It is `transform(whole, in_windows)`, of runs of three steps as a whole and in windows of one.
    The curves are constants, which three steps can learn.
    """
    rule = LearnedOptimizer(
        lambda key: {
            "log_rate": 0.1 * jax.random.normal(key) - 5,
            "momentum": jnp.array(0.5, jnp.float32),
        },
        lambda phi: optax.sgd(jnp.exp(phi["log_rate"]), phi["momentum"]),
    )

    def learner(model, objective, inner_steps):
        # The networks that it trains are in float64, too, where the test is.
        init = lambda *given: jax.tree.map(lambda p: p.astype(float), model.init(*given))  # noqa: E731
        given = (Model(init, model.apply), objective, rule, inner_steps)
        whole = optimizer_learner(*given, differentiation=second_order)
        return transform(whole, windows(*given, 1, differentiation=second_order))

    case = of_curves(name, learner, CURVE, inner_steps=3)
    constants = {"frequency": (0.0, 0.0), "phase": (0.5, 2.5), "domain": (-1.0, 1.0)}
    return case._replace(sample=sinusoids(shots=6, queries=5, **constants))


def no_loss(outputs, targets, mask=None):
    """Policies are judged by their episodes; these are the names of the metrics."""
    zero = jnp.zeros((), outputs.dtype)
    return zero, {"return": zero, "return_before": zero}


def of_features(name, learner, **options) -> Case:
    """A head on the points of a table, and on samples of a generator."""
    build = partial(learner, cross_entropy, 3, optax.sgd(10.0), inner_steps=3, count=4, **options)
    # Much smaller than the noise at first, which is to be learned.
    sample = jax.tree_util.Partial(lambda key: scaled_down(tables()(key)))
    return Case(name, build, cross_entropy, sample, optax.adam(1e-1))


def scaled_down(task: Task) -> Task:
    smaller = lambda batch: batch._replace(inputs=0.2 * batch.inputs)  # noqa: E731
    return Task(smaller(task.support), smaller(task.query))


def noisy_prototypes(model, objective, ways):
    noisy = lambda key, image: image + jax.random.normal(key, image.shape)  # noqa: E731
    return augmented(prototypical(model, objective, ways), noisy, 2)


def bound(outputs, targets, mask=None):
    """The loss is the learner's own; these are the names of its metrics."""
    zero = jnp.zeros((), jnp.float32)
    return zero, {"bound": zero, "log_likelihood": zero, "divergence": zero}


def wasserstein(outputs, targets, mask=None):
    zero = jnp.zeros((), jnp.float32)
    return zero, {"wasserstein": zero}


def against_a_fixed_critic(generator, critic) -> MetaLearner:
    """The generator's side of the game; `test_gan_augmented` has the critic's."""
    steep = critic._replace(apply=lambda params, pair: 10 * critic.apply(params, pair))
    learner = gan_augmented(generator, steep, optax.sgd(0.1), latent=3, critic_steps=2)

    def loss(key, params, task):
        assert learner.shared is not None
        of_critic = coarse(learner.shared(jax.random.key(7), params, task).params)
        return learner.loss(key, params, task, **{"shared": CriticState(of_critic, ())})

    return learner._replace(loss=loss, grad=GradientOf(loss), shared=None)


def of_policies(name, make, environment: Environment, outer=None, objective=no_loss, **options):
    """A policy on tasks whose query are the observations that `predict` is asked about."""
    here = lambda task: Task(task.support, task.support)  # noqa: E731

    def build(**given) -> MetaLearner:
        learner = make(environment, **given)
        loss = lambda key, params, task: learner.loss(key, params, here(task))  # noqa: E731
        grad: Any = GradientOf(loss)
        if isinstance(learner.grad, PolicyGradient):
            gather = learner.grad.gather
            grad = dataclasses.replace(
                learner.grad, gather=lambda key, params, task: gather(key, params, here(task))
            )
        init = lambda key, task: learner.init(key, here(task))  # noqa: E731
        return learner._replace(init=init, loss=loss, grad=grad)

    def sample(key: jax.Array) -> Task:
        observations = jnp.eye(*environment.observations.shape)
        query = Batch(observations, jnp.zeros(len(observations)))
        return Task(environment.sample_task(key), query)

    return Case(
        name,
        partial(build, **options),
        objective,
        jax.tree_util.Partial(sample),
        optax.adam(3e-2) if outer is None else outer,
        without_zero=objective is no_loss,
    )


def best_arm(outputs, targets, mask=None):
    zero = jnp.zeros((), outputs.dtype)
    return zero, {"best_arm": zero}


def of_new_tasks(model, objective, inner_steps, **options):
    return multi_task(model, objective, 3, 4, optax.sgd(0.3), inner_steps, **options)


def siamese_of_patterns(model, objective, ways):
    """Its loss is its own, its metrics are the objective's."""
    return siamese(model, ways)


def anml_of_patterns(model, objective, classes, **options):
    return anml(model, EMBEDDING(), objective, classes, **options)


def mann_classifier(model, objective, ways):
    machine = mann(ways, slots=8, slot_width=4, controller_width=16, read_heads=2)
    return memory_classifier(machine, model, objective, ways)


CURVE = mlp((16,), 1)
ASKING_MACHINE = lstm_machine(8, 3 + 1)
TWO_STATES = tabular(2, 2, horizon=3, noise=0.1)
CLASSES = partial(mlp, (8,), 3)
EMBEDDING = partial(mlp, (8,), 4)


def contributed() -> dict[str, Any]:
    """What the learner of CONTRIBUTING.md defines: the skeleton that people copy."""
    page = Path(__file__).parents[2] / "CONTRIBUTING.md"
    block, *_ = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "contributing"}
    exec(compile(block, page.name, "exec"), names)
    return names


CASES = [
    of_curves("skeleton", contributed()["tethered"], CURVE, optax.sgd(0.02), inner_steps=2),
    of_images(
        "skeleton-of-images",
        contributed()["tethered"],
        CLASSES(query_statistics="support"),
        optax.sgd(0.3),
        inner_steps=2,
    ),
    of_curves("maml", maml, CURVE, optax.sgd(0.02), inner_steps=3),
    of_images(
        "first-order-maml",
        first_order_maml,
        CLASSES(query_statistics="batch"),
        optax.sgd(0.3),
        inner_steps=2,
    ),
    of_images("anil", anil, CLASSES(query_statistics="support"), optax.sgd(0.3), inner_steps=3),
    of_curves("meta-sgd", meta_sgd, CURVE, inner_steps=2, initial_rate=(0.005, 0.02)),
    of_images(
        "reptile",
        reptile,
        CLASSES(query_statistics="layer"),
        optax.sgd(0.1),
        inner_steps=5,
        inner_batch=4,
        outer=optax.sgd(1.0),
    ),
    of_images("boil", boil, CLASSES(), optax.sgd(0.3), inner_steps=2),
    of_curves(
        "imaml",
        imaml,
        CURVE,
        optax.sgd(0.005),  # the meta-gradient doesn't see, and so doesn't avoid, a step too long
        inner_steps=5,
        strength=5.0,
        solver=conjugate_gradients(60),
    ),
    of_images(
        "maml-plus-plus",
        maml_plus_plus,
        CLASSES(query_statistics="batch"),
        inner_steps=2,
        inner_rate=0.3,
        multi_step_loss_until=1000,
    ),
    of_curves(
        "cavia",
        cavia,
        CURVE,
        optax.sgd(0.1),
        inner_steps=2,
        context=3,
        conditions=only("hidden_0/bias"),
    ),
    of_curves("supervised", supervised, CURVE)._replace(
        sample=sinusoids(shots=6, queries=5, amplitude=(2.0, 2.5), phase=(0.0, 0.3))  # alike
    ),
    of_curves("evolve", evolved, CURVE, inner_steps=2),
    of_rules("optimizer-learner", lambda whole, in_windows: whole),
    of_rules("truncated-backpropagation", truncated_backpropagation),
    of_rules("persistent-es", partial(persistent_es, std=0.1, pairs=4)),
    of_curves("meta-curvature", meta_curvature, CURVE, optax.sgd(0.02), inner_steps=2),
    # As published it takes inner gradients as constants; `test_meta_lstm` has that.
    of_images(
        "meta-lstm", meta_lstm, CLASSES(), inner_steps=2, lstm_width=4, differentiation=second_order
    ),
    of_images(
        "meta-transfer",
        meta_transfer,
        conv4(width=8, downsampling="stride", query_statistics="none"),
        3,
        optax.sgd(0.5),
        inner_steps=3,
    ),
    of_curves("sparse-maml", sparse, CURVE, optax.sgd(0.02), inner_steps=2),
    # New tasks; `test_multi_task` has the training tasks.
    of_images("multi-task", of_new_tasks, EMBEDDING(), inner_steps=2),
    # In training, where the loss of `online` is the supervised one.
    of_images("oml", oml, EMBEDDING(), classes=3, rate=0.1),
    of_images("anml", anml_of_patterns, EMBEDDING(), classes=3, rate=0.3),
    of_images("online", online, EMBEDDING(), classes=3)._replace(sample=patterns(alike=True)),
    of_images("r2d2", r2d2, EMBEDDING(), ways=3),
    of_images("proto-maml", proto_maml, EMBEDDING(), 3, optax.sgd(0.05), inner_steps=2),
    of_images("prototypical", prototypical, EMBEDDING(query_statistics="support"), ways=3),
    of_images("prototypical-cosine", prototypical, EMBEDDING(), ways=3, distance="cosine"),
    of_images(
        "prototypical-mahalanobis", prototypical, EMBEDDING(), ways=3, distance="mahalanobis"
    ),
    of_images("matching", matching, EMBEDDING(), ways=3),
    of_images("matching-full-context", matching, EMBEDDING(), ways=3, full_context=True, reads=2),
    of_images("siamese", siamese_of_patterns, EMBEDDING(), ways=3),
    of_images("mann", mann_classifier, EMBEDDING(), ways=3),
    of_sequences("ntm", ntm(2, slots=4, slot_width=3, controller_width=8)),
    of_sequences("dnc", dnc(2, slots=4, slot_width=3, controller_width=8, read_heads=2)),
    of_sequences("lstm", lstm_machine(8, 2)),
    Case(
        "active-one-shot",
        partial(active_one_shot, ASKING_MACHINE, 3, exploration=0.0),
        asking,
        streams(),
        optax.adam(1e-2),
        without_zero=True,
    ),
    of_images("snail", snail, EMBEDDING(), ways=3, steps=7, filters=8, outer=optax.adam(3e-3)),
    of_processes(
        "conditional-neural-process", conditional_neural_process, mlp((16,), 8), mlp((16,), 2)
    ),
    of_processes(
        "neural-process", neural_process, mlp((16,), 8), mlp((16,), 2), latent_width=4, samples=2
    ),
    of_processes(
        "attentive-neural-process",
        neural_process,
        mlp((16,), 8),
        mlp((16,), 2),
        latent_width=4,
        samples=2,
        encoder=mlp((16,), 8),
        attention="multi-head",
        heads=2,
    ),
    of_processes(
        "transformer-neural-process", transformer_neural_process, width=8, layers=1, heads=2
    ),
    Case(
        "prior-fitted",
        partial(prior_fitted, classes=3, width=8, layers=1, heads=2),
        cross_entropy,
        tables(),
        optax.adam(3e-3),
    ),
    of_processes("alpaca", alpaca, mlp((16,), 6)),
    of_processes("moca", moca, mlp((16,), 6))._replace(objective=mixture_likelihood),
    of_processes("sliding-window", sliding_window, alpaca(mlp((16,), 6)), 4),
    of_processes("bayesian-last-layer", bayesian_last_layer, mlp((16,), 6)),
    of_images(
        "bayesian-last-layer-classifier",
        bayesian_last_layer,
        EMBEDDING(),
        ways=3,
        feature_kernel="rbf",
        training_loss="marginal",
    ),
    of_images(
        "conditional-neural-process-classifier",
        lambda model, objective, ways: conditional_neural_process_classifier(
            model, class_by_class(mlp((16,), 1), ways), objective, ways
        ),
        EMBEDDING(),
        ways=3,
    ),
    Case(
        "relation",
        partial(relation, EMBEDDING(), pairwise(mlp((8,), 1)), one_hot_squared_error, ways=3),
        one_hot_squared_error,
        patterns(),
        optax.adam(1e-2),
    ),
    Case(
        "semi-supervised-prototypical",
        partial(
            semi_supervised_prototypical,
            EMBEDDING(),
            cross_entropy,
            ways=3,
            refinements=2,
            distractor_cluster=True,
        ),
        cross_entropy,
        with_unlabelled(
            patterns(ways=4, shots=4, by_class=True), ways=3, shots=2, unlabelled=2, distractors=1
        ),
        optax.adam(1e-2),
    ),
    of_images("augmented", noisy_prototypes, EMBEDDING(), ways=3),
    of_features(
        "distribution-calibration",
        distribution_calibration,
        base_classes=4,
        base_examples=5,
        nearest=1,
    ),
    of_features("noise-augmented", noise_augmented),
    Case(
        "vae-augmented",
        partial(vae_augmented, mlp((16,), 8), mlp((16,), 4), cross_entropy, 3, optax.sgd(0.1), 2),
        bound,
        tables(),
        optax.adam(1e-2),
        without_zero=True,
    ),
    Case(
        "vae",
        partial(vae, mlp((16,), 8), image_decoder((8, 8, 1), width=4)),
        bound,
        patterns(),
        optax.adam(1e-2),
        without_zero=True,
    ),
    Case(
        "gan-augmented",
        partial(against_a_fixed_critic, image_generator(4), pair_critic(4)),
        wasserstein,
        patterns(),
        optax.adam(1e-2),
        without_zero=True,
    ),
    of_policies(
        "maml-rl",
        maml_rl,
        TWO_STATES,
        policy=mlp((8,), 2),
        inner_optimizer=optax.sgd(0.2),
        inner_steps=2,
        episodes=8,
    ),
    of_policies(
        "promp",
        promp,
        TWO_STATES,
        policy=mlp((8,), 2),
        inner_optimizer=optax.sgd(0.2),
        inner_steps=2,
        episodes=8,
        inner_divergence=0.1,
    ),
    of_policies("rl-squared", rl_squared, TWO_STATES, episodes=4, width=8),
    of_policies(
        "decision-pretrained",
        decision_pretrained,
        bandits(2, horizon=16),
        outer=optax.adam(1e-2),
        objective=best_arm,
        width=16,
        layers=1,
    ),
]


def name_of(case: Case) -> str:
    return case.name


# Another setting of a learner that stands in the list.
VARIANTS = (
    "prototypical-cosine",
    "matching-full-context",
    "attentive-neural-process",
)


@pytest.fixture(
    params=[pytest.param(c, marks=pytest.mark.full) if c.name in VARIANTS else c for c in CASES],
    ids=[c.name for c in CASES],
)
def case(request) -> Case:
    return request.param


# Whole programs take long to compile: those of other learners are left to `pytest -m full`.
QUICK = ("maml", "prototypical")


@pytest.fixture(
    scope="module",  # all tests of one learner, then the next: its programs are not needed again
    params=[c if c.name in QUICK else pytest.param(c, marks=pytest.mark.full) for c in CASES],
    ids=[c.name for c in CASES],
)
def long_case(request) -> Case:
    return request.param


DIFFERENTIABLE = [c for c in CASES if "differentiation" in inspect.signature(c.build).parameters]


@pytest.fixture(
    params=[
        c if c.name in ("maml", "anil", "meta-sgd") else pytest.param(c, marks=pytest.mark.slow)
        for c in DIFFERENTIABLE
    ],
    ids=[c.name for c in DIFFERENTIABLE],
)
def differentiable(request) -> Case:
    return request.param


@pytest.fixture(params=[c for c in CASES if c.name in ("maml", "anil", "meta-sgd")], ids=name_of)
def of_initialisation(request) -> Case:
    """Those whose meta-parameters are an initialisation, and perhaps rates: see the surrogates."""
    return request.param


class Setting(NamedTuple):
    """A learner, and what its functions take."""

    learner: MetaLearner
    key: jax.Array
    meta_params: Any
    task: Task
    carry: Carry


def coarse(tree):
    """In the default float type, rounded to 2⁻¹²: a float32 draw may differ in its last digit
    where it is compiled as part of another program."""

    def round_off(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.round(leaf.astype(float) * 2**12) / 2**12

    return jax.tree.map(round_off, tree)


@functools.cache  # of one learner, and so of what it compiles, per case
def starter(case: Case) -> Callable[[jax.Array], Setting]:
    learner = case.build()

    @jax.jit
    def start(key: jax.Array):
        init_key, task_key, key = jax.random.split(key, 3)
        task = case.sample(task_key)
        meta_params, task = coarse((learner.init(init_key, task), task))
        carry = Carry(jnp.zeros((), jnp.int32))
        if learner.slot is not None:
            carry = carry._replace(slot=learner.slot(init_key, meta_params, task))
        return key, meta_params, task, carry

    return lambda key: Setting(learner, *start(key))


@pytest.fixture
def prepare():
    """`prepare(case, seed=0) -> Setting`, in float64 where the test asks for `x64`."""
    return lambda case, seed=0: starter(case)(jax.random.key(seed))


@pytest.fixture
def assert_gradient(x64):
    """`assert_gradient(grads, function, at)`: as central differences say, leaf by leaf."""

    def assert_gradient(grads, function, at, step=1e-6):
        leaves, treedef = jax.tree.flatten(at)
        random = np.random.default_rng(0)
        directions = [random.standard_normal(leaf.shape) for leaf in leaves]
        moved = [
            [
                leaf + sign * step * (there == here) * direction
                for here in range(len(leaves))
                for sign in (1, -1)
            ]
            for there, (leaf, direction) in enumerate(zip(leaves, directions, strict=True))
        ]
        points = treedef.unflatten([np.stack(versions) for versions in moved])
        values = np.asarray(jax.jit(jax.vmap(function))(points))
        expected = (values[0::2] - values[1::2]) / (2 * step)
        found = [np.vdot(*pair) for pair in zip(jax.tree.leaves(grads), directions, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
        assert np.abs(expected).max() > 1e-3  # else the comparison says nothing

    return assert_gradient


@pytest.fixture
def lstm():
    """`lstm(params, (cells, hidden), inputs)`: Flax' LSTM cell in NumPy."""

    def step(params, state, inputs):
        cells, hidden = state
        gate = {
            name: inputs @ params[f"i{name}"]["kernel"]
            + hidden @ params[f"h{name}"]["kernel"]
            + params[f"h{name}"]["bias"]
            for name in "ifgo"
        }
        forget, write, show = (1 / (1 + np.exp(-gate[name])) for name in "fio")
        cells = forget * cells + write * np.tanh(gate["g"])
        return cells, show * np.tanh(cells)

    return step

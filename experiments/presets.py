"""Settings worth a name: the embedded default of every learner, and the published ones.

A preset is a function that returns a whole configuration; options given on the command line
override it. `python -m experiments.few_shot LEARNER --preset omniglot-5w1s` uses one.

The published runs are long on a CPU. Wall times below are for CPU cores; `--steps` shortens
a run, and `experiments/results/` holds what the shortened ones reached.
"""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

from experiments.regression_presets import CURVES, sinusoid_default
from jaxmeta.training import config as configs
from jaxmeta.training.config import AnyExperiment, FewShot, Regression
from jaxmeta.training.options import (
    Anil,
    Boil,
    ConditionalNeuralProcess,
    FirstOrderMaml,
    Imaml,
    Maml,
    MamlPlusPlus,
    Mann,
    Matching,
    MetaCurvature,
    MetaLstm,
    MetaTransfer,
    ProtoMaml,
    Prototypical,
    R2d2,
    Relation,
    Reptile,
    SemiSupervisedPrototypical,
    Siamese,
    Snail,
)

PROTOTYPICAL_WAYS = 60  # as published, where the set has the classes: see `run.fit_train_ways`


def learners(experiment: type[AnyExperiment]) -> tuple[type, ...]:
    """The learners of an experiment, the default one first."""
    return configs.LEARNERS if experiment is FewShot else configs.REGRESSORS


def find(experiment: type[AnyExperiment], learner: type, preset: str | None) -> AnyExperiment:
    """The configuration of a preset; without a name, the learner's default.

    Raises:
      ValueError: no preset of that name for this learner, with the nearest names.
    """
    if preset is None:
        return _glyphs(learner) if experiment is FewShot else sinusoid_default(learner)
    known = PRESETS[experiment]
    check_known("preset", preset, list(known))
    return known[preset](learner)


def check_known(what: str, name: str, known: list[str]) -> None:
    """Raises ValueError where the name is not known, with the nearest that are."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
        raise ValueError(f"unknown {what} {name!r}; the nearest are {', '.join(near)}.")


def _glyphs(learner: type) -> FewShot:
    """`python -m experiments.few_shot [LEARNER]`: the embedded letters, about 3 minutes.

    MAML's network and settings with fewer tasks and more queries a step, so that three
    minutes of a 2-core CPU suffice; expected: 90 % and more for MAML, 5-way 1-shot.
    """
    base = FewShot(
        steps=2000,
        task_batch=8,
        train_queries=5,
        checkpoint_every=250,
        outer_schedule="cosine",
        learner=learner(),
    )
    if learner is Reptile:
        return dataclasses.replace(_reptile(base), steps=1500)
    if learner is Prototypical:
        return dataclasses.replace(_prototypical(base), steps=300, checkpoint_every=50, chunk=10)
    if learner is MamlPlusPlus:
        return dataclasses.replace(base, steps=600, checkpoint_every=100)
    if learner is Imaml:
        return dataclasses.replace(base, steps=400, checkpoint_every=100)
    if learner is MetaLstm:
        return dataclasses.replace(_meta_lstm(base), steps=1200, checkpoint_every=200)
    if learner is MetaTransfer:
        return dataclasses.replace(_meta_transfer(base), steps=400, checkpoint_every=100)
    if learner in _COMPARING:
        return _comparing(base, learner)
    if learner in _READING:
        return _reading(base, learner)
    return base


def _meta_lstm(base: FewShot) -> FewShot:
    """What Meta-LSTM changes: one task a step, 32 filters, gradients of a norm of 0.25 at most."""
    return dataclasses.replace(
        base, learner=MetaLstm(), task_batch=1, train_queries=15, width=32, clip_norm=0.25
    )


_COMPARING = (Matching, Relation, SemiSupervisedPrototypical, Siamese)


def _comparing(base: FewShot, learner: type) -> FewShot:
    """What learned comparison changes: each example is judged by itself, 20-way training."""
    return dataclasses.replace(
        base,
        learner=learner(),
        train_ways=20,
        train_queries=5,
        task_batch=2,
        network="conv-maps" if learner is Relation else "conv4-stride",
        query_statistics="group",
        distortions=learner is Siamese,
        # Of 20 images of a class, 1 or 5 shots and 5 without a label leave 10.
        unlabelled=5 if learner is SemiSupervisedPrototypical else 0,
        queries=10 if learner is SemiSupervisedPrototypical else base.queries,
    )


_READING = (ConditionalNeuralProcess, Mann, Snail)


def _reading(base: FewShot, learner: type) -> FewShot:
    """What reading the support set changes: each example is judged by itself, more tasks a step."""
    return dataclasses.replace(
        base, learner=learner(), train_queries=5, task_batch=16, query_statistics="group"
    )


def _meta_transfer(base: FewShot) -> FewShot:
    """What meta-transfer learning changes: no statistics, hard tasks."""
    return dataclasses.replace(
        base, learner=MetaTransfer(), query_statistics="none", hard_tasks=True
    )


def _reptile(base: FewShot) -> FewShot:
    """What Reptile changes: 10 training shots, outer SGD with a rate of 1 falling to 0."""
    return dataclasses.replace(
        base,
        learner=Reptile(),
        train_shots=10,
        train_queries=1,
        task_batch=5,
        outer_optimizer="sgd",
        outer_rate=1.0,
        outer_schedule="linear",
    )


def _prototypical(base: FewShot) -> FewShot:
    """What prototypical networks change: 60-way training, max-pooling, no transduction."""
    return dataclasses.replace(
        base,
        learner=Prototypical(),
        train_ways=PROTOTYPICAL_WAYS,
        train_queries=5,
        task_batch=1,
        network="conv4-pool",
        query_statistics="group",
        outer_schedule="halving",
    )


def omniglot(ways: int, shots: int) -> Callable[[type], FewShot]:
    """The published settings for Omniglot, `--preset omniglot-{ways}w{shots}s`.

    Command: `python -m experiments.few_shot LEARNER --preset omniglot-5w1s`.

    | learner | setting | expected, 5w1s / 5w5s / 20w1s / 20w5s | 5w1s takes |
    |---|---|---|---|
    | maml | 60,000 × 32 (16) tasks, rate 0.4 (0.1), 1 (5) steps | 98.7 / 99.9 / 95.8 / 98.9 | 3 h |
    | first-order-maml | the same | 98.3 / 99.2 / 89.4 / 97.9 | 2 h |
    | anil | the same, the head adapted | – / – / 96.2 / 98.0 | 3 h |
    | meta-sgd | the same, learned rates, 1 step | 99.53 / 99.93 / 95.93 / 98.97 | 4 h |
    | reptile | 100,000 × 5 tasks, linear to 0 | 97.68 / 99.48 / 89.43 / 97.12 | 3 h |
    | prototypical | 60-way, 5 queries, 1e-3 halved every 2000 | 98.8 / 99.7 / 96.0 / 98.9 | 2 h |
    | boil, meta-curvature | as maml | – | 3 h, 5 h |
    | maml-plus-plus | 50,000 × 8 tasks, 5 steps, pooling | 99.47 / 99.93 / 97.65 / 99.33 | 15 h |
    | imaml | 20,000 × 32 tasks, 16 (25) steps of 0.1 | 99.50 / 99.74 / 96.18 / 99.14 | 12 h |
    | cavia | as maml, 2 steps of 1.0 on 100 numbers | – | 2 h |
    | r2d2 | as maml, an encoder without a head; 15 queries | – | 20 h |
    | proto-maml | as maml, an encoder without a head; 15 queries | – | 15 h |
    | meta-lstm | 50,000 × 1, 12 (5) steps, 15 queries, norms of 0.25 at most | – | 6 h |
    | meta-transfer | as maml, a pre-trained encoder, hard tasks | – | see grocery |
    | matching | 60,000 × 2 tasks, 20-way, 5 queries | 98.1 / 98.9 / 93.8 / 98.5 | 1.5 h |
    | siamese | the same, distorted images | 97.3 / 98.4 / 88.2 / 97.0 | 2.5 h |
    | relation | the same, compared maps | 99.6 / 99.8 / 97.6 / 99.1 | 20 h |
    | semi-supervised-prototypical | the same, 5 more without a label, 10 queries | – | 2.5 h |
    | mann | 60,000 × 16 tasks, 5 queries | – | 5 h |
    | snail | the same | 99.07 / 99.78 / 97.64 / 99.36 | 6 h |
    | conditional-neural-process | the same | 95.3 / 98.5 / 89.9 / 96.8 | 3 h |

    Figures in brackets are for 20 ways (Meta-LSTM's for 5 shots); times are estimates for one CPU
    core, from the speed of shorter runs. MAML's family normalises with the query's own statistics
    and draws rotations per task; the learners that compare or read (from prototypical on, and the
    last seven) take rotations as classes and judge each example by itself, by `group`. Published
    ones mostly normalise with running statistics, which are not kept here. The table of MANN's
    authors is for streams of examples: `python -m experiments.sequence mann --task labels`.
    Test tasks have 15 queries a class.
    """

    def preset(learner: type) -> FewShot:
        twenty = ways >= 20
        base = FewShot(
            learner=learner(),
            dataset="omniglot",
            rotations="per-task",
            ways=ways,
            shots=shots,
            train_queries=shots,
            steps=60_000,
            task_batch=16 if twenty else 32,
        )
        if learner in (Maml, FirstOrderMaml, Anil, Boil, MetaCurvature):
            rate, steps, test_steps = (0.1, 5, 5) if twenty else (0.4, 1, 3)
            options = learner(inner_rate=rate, inner_steps=steps, eval_inner_steps=test_steps)
            return dataclasses.replace(base, learner=options)
        if learner is MamlPlusPlus:
            return dataclasses.replace(
                base,
                task_batch=8,
                steps=50_000,
                network="conv4-pool",
                outer_schedule="cosine",
            )
        if learner is Imaml:
            steps = 25 if twenty else 16
            # The paper's λ is 2. Its authors' code takes plain steps and one towards the start, and
            # solves with I + H/24: a weak λ and a strong damping.
            options = Imaml(inner_steps=steps, eval_inner_steps=steps, strength=0.05, damping=24.0)
            return dataclasses.replace(base, learner=options, steps=20_000)
        if learner in (R2d2, ProtoMaml):
            return dataclasses.replace(base, train_queries=15)
        if learner in _COMPARING:
            return dataclasses.replace(
                _comparing(base, learner), rotations="as-classes", train_shots=shots
            )
        if learner in _READING:
            return dataclasses.replace(_reading(base, learner), rotations="as-classes")
        if learner is MetaTransfer:
            return _meta_transfer(base)
        if learner is MetaLstm:
            steps = 12 if shots == 1 else 5
            options = MetaLstm(inner_steps=steps, eval_inner_steps=steps)
            return dataclasses.replace(
                _meta_lstm(base), learner=options, network="conv4-pool", steps=50_000
            )
        if learner is Reptile:
            options = Reptile(
                inner_rate=5e-4 if twenty else 1e-3,
                inner_steps=10 if twenty else 5,
                inner_batch=20 if twenty else 10,
            )
            return dataclasses.replace(
                _reptile(base),
                learner=options,
                rotations="as-classes",
                steps=200_000 if twenty else 100_000,
                chunk=40,
            )
        if learner is Prototypical:
            return dataclasses.replace(
                _prototypical(base),
                rotations="as-classes",
                train_shots=shots,
                steps=10_000,
                checkpoint_every=200,
                chunk=10,
            )
        return base

    return preset


def grocery(shots: int) -> Callable[[type], FewShot]:
    """Photographs of groceries, 5-way, `--preset grocery-5w{shots}s`: 50 classes to train on.

    Commands: `python -m experiments.pretrain --out runs/pretrained`, and then
    `python -m experiments.few_shot meta-transfer --preset grocery-5w1s` with
    `--pretrained runs/pretrained`.

    A resnet12 of width 16 and 84×84 pixels; 300 updates of 4 tasks with 5 queries a class. Takes
    about 25 minutes on 2 CPU cores, half of it the 1000 test tasks. Not published for these data:
    what to expect is what the learner reached before, in `experiments/results/`.
    """

    def preset(learner: type) -> FewShot:
        base = FewShot(
            learner=learner(),
            dataset="grocery",
            shots=shots,
            train_queries=5,
            network="conv-maps" if learner is Relation else "resnet12",
            width=16,
            steps=300,
            task_batch=4,
            outer_schedule="cosine",
            validation_tasks=100,
            checkpoint_every=50,
            chunk=5,
        )
        if learner in _COMPARING:
            own = _comparing(base, learner)
            return dataclasses.replace(own, network=base.network, train_ways=None, task_batch=4)
        if learner in _READING:
            return dataclasses.replace(_reading(base, learner), task_batch=4)
        return _meta_transfer(base) if learner is MetaTransfer else base

    return preset


PRESETS: dict[type, dict[str, Callable[[type], Any]]] = {
    FewShot: {
        **{
            f"omniglot-{ways}w{shots}s": omniglot(ways, shots)
            for ways in (5, 20)
            for shots in (1, 5)
        },
        **{f"grocery-5w{shots}s": grocery(shots) for shots in (1, 5)},
    },
    Regression: CURVES,
}

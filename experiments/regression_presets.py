"""Settings of `experiments.regression` worth a name, as in `experiments.presets`."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxmeta.training.config import Regression
from jaxmeta.training.options import (
    Anil,
    Boil,
    Cavia,
    FirstOrderMaml,
    Imaml,
    Maml,
    MamlPlusPlus,
    MetaCurvature,
    MetaLstm,
    Reptile,
)


def sinusoid_default(learner: type) -> Regression:
    """`python -m experiments.regression [LEARNER]`: a minute of MAML's sinusoids, K = 10."""
    config = sinusoid(learner)
    return dataclasses.replace(config, steps=20_000)


def sinusoid(learner: type) -> Regression:
    """`python -m experiments.regression LEARNER --preset sinusoid`: MAML's sinusoids.

    70,000 steps of 25 tasks, K = 10 in training, one inner step of rate 1e-3 (as in the
    authors' code), tested at K = 5 with up to 10 steps; Adam 1e-3, MLP 40-40. About a minute
    on 2 CPU cores. Expected for MAML: 0.67 / 0.38 / 0.35 or less after 1 / 5 / 10 steps.
    """
    options = _of_curves(learner)
    if learner in (Maml, FirstOrderMaml, Anil, Boil, MetaCurvature):
        options = learner(inner_rate=1e-3, inner_steps=1, eval_inner_steps=10)
    base = Regression(
        learner=options,
        steps=70_000,
        task_batch=25,
        shots=5,
        train_shots=10,
        train_queries=10,
        checkpoint_every=5000,
        chunk=500,
    )
    if learner is not Reptile:
        return base
    return dataclasses.replace(
        base,
        learner=Reptile(inner_rate=0.02, inner_steps=8, inner_optimizer="sgd", eval_inner_steps=32),
        task_batch=5,
        outer_optimizer="sgd",
        outer_rate=1.0,
        outer_schedule="linear",
    )


def _of_curves(learner: type) -> Any:
    """A learner's options where its defaults are for images."""
    return {
        # The perceptron has no normalisation.
        MamlPlusPlus: MamlPlusPlus(inner_rate=1e-3, normalisation_per_step=False),
        Imaml: Imaml(inner_rate=1e-2, strength=1.0, damping=0.0),
        # Zintgraf et al. 2019, section 5.1.
        Cavia: Cavia(context=5, inner_steps=1, eval_inner_steps=1),
        MetaLstm: MetaLstm(inner_steps=5, eval_inner_steps=5),
    }.get(learner, learner())


def gp(learner: type) -> Regression:
    """`python -m experiments.regression conditional-neural-process --preset gp`: CNP's curves.

    Curves of a Gaussian process with an RBF kernel of length 0.4 and noise 0.02, 3 to 10 context
    points, 64 curves a step (Garnelo et al. 2018, section 4.1: 200,000 steps of Adam 1e-4; here
    20,000 of 1e-3, on a CPU core about 10 minutes, 40 for an attentive one). No number is
    published; expected is the order of log-likelihoods CNP, ANP, oracle, in nats a target.
    """
    return Regression(
        learner=_of_curves(learner),
        task="gp",
        steps=20_000,
        task_batch=64,
        queries=50,
        outer_schedule="cosine",
        checkpoint_every=2000,
        chunk=100,
    )


def gp_random(learner: type) -> Regression:
    """`python -m experiments.regression attentive-neural-process --preset gp-random`: ANP's curves.

    As `gp` with a length from 0.1 to 0.6 and a deviation from 0.1 to 1 for each curve, and 3 to 50
    context points, 16 curves a step (Kim et al. 2019, section 4.1: 100,000 steps). No number is
    published; expected is a higher log-likelihood than that of a neural process. On a CPU about as
    long as `gp`.
    """
    return dataclasses.replace(
        gp(learner),
        kernel_length=(0.1, 0.6),
        kernel_scale=(0.1, 1.0),
        points=(3, 50),
        task_batch=16,
    )


def completion(learner: type) -> Regression:
    """`python -m experiments.regression conditional-neural-process --preset completion`: images.

    Letters from 10 to 300 of their 784 pixels, each a function from place to brightness (Garnelo et
    al. 2018, section 4.2); `--dataset omniglot` for characters. No number is published; expected
    are sharper images the more pixels are known. On a CPU about as long as `gp`.
    """
    return dataclasses.replace(
        gp(learner),
        task="images",
        points=(10, 300),
        train_queries=200,
        task_batch=16,
        steps=5000,
        checkpoint_every=500,
        chunk=50,
    )


def sinusoid_frequency(learner: type) -> Regression:
    """`python -m experiments.regression meta-sgd --preset sinusoid-frequency`: Meta-SGD's.

    Amplitude U[0.1, 5], frequency U[0.8, 1.2], phase U[0, π], 5 shots, one inner step at
    test too (Li et al. 2017, section 4.1). About a minute on 2 CPU cores. Expected after one
    step: 0.90 for Meta-SGD against 1.13 for MAML.
    """
    options = _of_curves(learner)
    if learner in (Maml, FirstOrderMaml, Anil, Boil, MetaCurvature):
        options = learner(inner_rate=1e-2, inner_steps=1, eval_inner_steps=1)
    return dataclasses.replace(
        sinusoid(learner),
        learner=options,
        frequency=(0.8, 1.2),
        train_shots=5,
        train_queries=5,
        steps=60_000,
    )


OF_TASK = {"gp": "gp", "images": "completion"}  # where a task is asked for without a preset

CURVES: dict[str, Callable[[type], Regression]] = {
    "sinusoid": sinusoid,
    "sinusoid-frequency": sinusoid_frequency,
    "gp": gp,
    "gp-random": gp_random,
    "completion": completion,
}

"""From a configuration to the learner and the network that it describes."""

from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax

from jaxmeta import learners
from jaxmeta.core import MetaLearner, Model, Objective, PyTree, cross_entropy, squared_error
from jaxmeta.inner import (
    DIFFERENTIATIONS,
    Solver,
    adam,
    conjugate_gradients,
    neumann_series,
    only,
    truncated,
)
from jaxmeta.learners.gradient._maml_plus_plus import in_normalisation
from jaxmeta.learners.memory import mann
from jaxmeta.learners.process import (
    class_by_class,
    conditional_neural_process,
    conditional_neural_process_classifier,
    gaussian_likelihood,
    neural_process,
    transformer_neural_process,
)
from jaxmeta.models import comparator, computed_in, conv4, conv_maps, mlp, resnet12, unpack
from jaxmeta.training import options as kinds
from jaxmeta.training.config import AnyExperiment, FewShot
from jaxmeta.training.hard_tasks import cross_entropy_and_worst_class


def objective_of(config: AnyExperiment, *, train: bool = False) -> Objective:
    """Cross-entropy of classes, squared error of curves, the likelihood for processes.

    Hard tasks want the worst class told.
    """
    if not isinstance(config, FewShot):
        return gaussian_likelihood if isinstance(config.learner, kinds.Process) else squared_error
    if isinstance(config.learner, kinds.Relation):
        return learners.one_hot_squared_error
    if train and config.hard_tasks:
        return cross_entropy_and_worst_class(config.episode(train)["ways"])
    return cross_entropy


def learner_of(config: AnyExperiment, *, train: bool) -> MetaLearner:
    """The learner, with the ways and the inner steps of training or of evaluation.

    A pre-trained network is read for training alone: a trained run has all its parameters.

    Raises:
      ValueError: a learner with a head of its own is trained and tested with different ways; a
        pre-trained network is not named, or its file is no such file.
      OSError: that file can't be read.
    """
    options, objective = config.learner, objective_of(config, train=train)
    if isinstance(options, kinds.Process) and not isinstance(config, FewShot):
        return _process(options, train)
    inner = _inner_loop(config, train)
    if isinstance(options, kinds.MetaTransfer):
        assert isinstance(config, FewShot)
        return learners.meta_transfer(
            _frozen_encoder(config),
            objective,
            _same_ways(config),
            pretrained=backbone_of(config)["network"] if train else None,
            **inner,
        )
    if isinstance(options, _OF_FEATURES):
        assert isinstance(config, FewShot)
        return _learner_of_features(
            config, options, objective, config.episode(train)["ways"], inner
        )

    if isinstance(options, _OF_SEQUENCES):
        assert isinstance(config, FewShot)
        return _learner_of_sequences(config, options, objective, config.episode(train)["ways"])

    model = _model_with_head(config)
    match options:
        case kinds.Maml():
            return learners.maml(model, objective, **inner)
        case kinds.FirstOrderMaml():
            return learners.first_order_maml(model, objective, **inner)
        case kinds.Anil():
            return learners.anil(model, objective, **inner)
        case kinds.Boil():
            return learners.boil(model, objective, **inner)
        case kinds.MetaSgd():
            return learners.meta_sgd(model, objective, initial_rate=options.initial_rate, **inner)
        case kinds.MetaCurvature():
            return learners.meta_curvature(model, objective, **inner)
        case kinds.MamlPlusPlus():
            return learners.maml_plus_plus(
                model,
                objective,
                inner_rate=options.inner_rate,
                learned_rates=options.learned_rates,
                normalisation_per_step=(
                    in_normalisation if options.normalisation_per_step else None
                ),
                multi_step_loss_until=round(options.every_step_part * config.steps),
                first_order_until=round(options.first_order_part * config.steps),
                trained_inner_steps=max(options.inner_steps, 1),
                **inner,
            )
        case kinds.Imaml():
            return learners.imaml(
                model,
                objective,
                strength=options.strength,
                damping=options.damping,
                solver=_solver(options),
                **inner,
            )
        case kinds.Cavia():
            conditions = only(options.conditions or _conditioned_layer(config))
            return learners.cavia(
                model, objective, context=options.context, conditions=conditions, **inner
            )
        case kinds.MetaLstm():
            return learners.meta_lstm(
                model, objective, lstm_width=options.lstm_width, inner_rate=options.inner_rate, **inner
            )
        case kinds.Reptile():
            return _reptile(config, options, model, objective, **inner)
        case _:
            raise TypeError(f"no learner is built from {options!r}.")


_OF_FEATURES = (
    kinds.Prototypical
    | kinds.R2d2
    | kinds.ProtoMaml
    | kinds.SemiSupervisedPrototypical
    | kinds.Matching
    | kinds.Siamese
    | kinds.Relation
)


def _learner_of_features(
    config: FewShot, options: _OF_FEATURES, objective: Objective, ways: int, inner: dict[str, Any]
) -> MetaLearner:
    """Those that have no head of a fixed number of ways."""
    encoder = network_of(config, None)
    match options:
        case kinds.R2d2():
            return learners.r2d2(encoder, objective, ways)
        case kinds.ProtoMaml():
            return learners.proto_maml(encoder, objective, ways, **inner)
        case kinds.Prototypical():
            return learners.prototypical(encoder, objective, ways, distance=options.distance)
        case kinds.SemiSupervisedPrototypical():
            return learners.semi_supervised_prototypical(
                encoder,
                objective,
                ways,
                refinements=options.refinements,
                distractor_cluster=options.distractor_cluster,
            )
        case kinds.Matching():
            return learners.matching(
                encoder, objective, ways, full_context=options.full_context, reads=options.reads
            )
        case kinds.Siamese():
            return learners.siamese(network_of(config, options.features), ways)
        case kinds.Relation():
            compare = comparator(width=config.width, query_statistics=config.query_statistics)
            return learners.relation(encoder, compare, objective, ways)


def _process(options: kinds.Process, train: bool) -> MetaLearner:
    """A learner of functions with one number at each place."""
    if isinstance(options, kinds.TransformerNeuralProcess):
        return transformer_neural_process(
            width=options.width, layers=options.layers, heads=options.heads
        )
    size = options.representation
    encoder, decoder = mlp((size,) * 3, size), mlp((size,) * 2, 2)
    if isinstance(options, kinds.ConditionalNeuralProcess):
        return conditional_neural_process(encoder, decoder)
    attentive = {}
    if isinstance(options, kinds.AttentiveNeuralProcess):
        attentive = {"encoder": encoder, "attention": options.attention, "heads": options.heads}
    samples = 1 if train else options.samples
    return neural_process(encoder, decoder, latent_width=size, samples=samples, **attentive)


_OF_SEQUENCES = kinds.Mann | kinds.Snail | kinds.ConditionalNeuralProcess


def _learner_of_sequences(
    config: FewShot, options: _OF_SEQUENCES, objective: Objective, ways: int
) -> MetaLearner:
    """Those that read the support set; most have an output for each class."""
    encoder = network_of(config, None)
    by_class = isinstance(options, kinds.ConditionalNeuralProcess) and (
        options.decoder == "class-by-class"
    )
    ways = ways if by_class else _same_ways(config)
    match options:
        case kinds.Mann():
            machine = mann(
                ways,
                slots=options.slots,
                slot_width=options.slot_width,
                controller_width=options.controller_width,
                read_heads=options.heads,
                strength=options.strength,
            )
            return learners.memory_classifier(machine, encoder, objective, ways)
        case kinds.Snail():
            encoder = network_of(config, options.features)
            steps = ways * config.episode(True)["shots"] + 1
            return learners.snail(encoder, objective, ways, steps, filters=options.filters)
        case kinds.ConditionalNeuralProcess():
            hidden = (options.representation,) * 2
            decoder = class_by_class(mlp(hidden, 1), ways) if by_class else mlp(hidden, ways)
            return conditional_neural_process_classifier(encoder, decoder, objective, ways)


def _inner_loop(config: AnyExperiment, train: bool) -> dict[str, Any]:
    """What the learner's options say of its inner loop, by the names of the learners' arguments."""
    options: Any = config.learner
    inner: dict[str, Any] = {}
    if hasattr(options, "inner_steps"):
        inner["inner_steps"] = options.inner_steps if train else options.eval_inner_steps
    if hasattr(options, "inner_batch"):
        # A support set that is not larger is taken whole.
        sizes = config.episode(train)
        small = sizes.get("ways", 1) * sizes["shots"] <= (options.inner_batch or 0)
        inner["inner_batch"] = None if small else options.inner_batch
    if hasattr(options, "differentiate"):
        way = DIFFERENTIATIONS[options.differentiate]
        inner["differentiation"] = (
            way if options.truncate is None else truncated(options.truncate, way)
        )
    if hasattr(options, "inner_optimizer") and not isinstance(options, kinds.Reptile):
        make = {"sgd": optax.sgd, "adam": adam}[options.inner_optimizer]
        inner["inner_optimizer"] = make(options.inner_rate)
    return inner


def _reptile(
    config: AnyExperiment,
    options: kinds.Reptile,
    model: Model,
    objective: Objective,
    *,
    inner_steps: int,
    inner_batch: int | None,
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
    return learners.reptile(
        model,
        objective,
        optimizer,
        inner_steps,
        inner_batch=inner_batch,
        carry_optimizer_state=carried,
    )


def _solver(options: kinds.Imaml) -> Solver:
    if options.solver == "neumann":
        return neumann_series(options.solver_steps, 1 / (options.strength + options.damping))
    return conjugate_gradients(options.solver_steps)


def _conditioned_layer(config: AnyExperiment) -> str:
    """Where CAVIA's context enters, unless told: see `options.Cavia`."""
    if not isinstance(config, FewShot):
        return "hidden_0/bias"
    return {"mlp": "norm_0", "resnet12": "block_2/norm_2"}.get(config.network, "norm_2")


# --- networks -----------------------------------------------------------------------------


def _model_with_head(config: AnyExperiment) -> Model:
    """The network of a learner with a head, which fixes the number of ways."""
    if not isinstance(config, FewShot):
        return mlp(config.hidden, 1)
    return network_of(config, _same_ways(config))


def _same_ways(config: FewShot) -> int:
    ways, trained_ways = (config.episode(train)["ways"] for train in (False, True))
    if ways != trained_ways:
        raise ValueError(
            f"{config.learner.name} has an output for each of the {trained_ways} classes that it "
            f"is trained with and cannot tell {ways}; those that compare features (prototypical, "
            "matching, siamese, relation, r2d2, proto-maml, conditional-neural-process with "
            "--decoder class-by-class) can. Give both the same."
        )
    return ways


def _frozen_encoder(config: FewShot) -> Model:
    if config.query_statistics != "none":
        raise ValueError(
            f"--query-statistics {config.query_statistics}: a pre-trained network has the "
            "statistics of its training in its scales and shifts; give none."
        )
    return network_of(config, None)


def backbone_of(config: FewShot) -> PyTree:
    """The pre-trained `network`, and `images_sha256` of the set and split that it was trained on.

    Raises:
      ValueError: none is named, or its file is no such file.
      OSError: it can't be read.
    """
    options = config.learner
    assert isinstance(options, kinds.MetaTransfer)
    if options.pretrained is None:
        raise ValueError(
            "meta-transfer starts from a pre-trained network: run python -m experiments.pretrain "
            f"--dataset {config.dataset} --network {config.network} --width {config.width} --out "
            "FOLDER, then give --pretrained FOLDER."
        )
    path = Path(options.pretrained)
    path = path / "backbone.npz" if path.is_dir() else path
    try:
        found = unpack(path.read_bytes())
        if found.keys() != {"network", "images_sha256"}:
            raise ValueError("not what experiments.pretrain wrote")
        return found
    except OSError as error:
        raise type(error)(
            f"can't read the pre-trained network {path} ({error.strerror}); run python -m "
            "experiments.pretrain, or go on until it has ended."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error


def network_of(config: FewShot, outputs: int | None) -> Model:
    """The image network; without `outputs` the encoder, which has no head."""
    network = _float32_network(config, outputs)
    return network if config.precision == "float32" else computed_in(network, jnp.bfloat16)


def _float32_network(config: FewShot, outputs: int | None) -> Model:
    if config.network == "mlp":  # the one of Finn et al. 2017, section 5.2
        hidden = (256, 128, 64) if outputs is None else (256, 128, 64, 64)
        return mlp(hidden, outputs or 64, query_statistics=config.query_statistics)
    if config.network == "resnet12":
        return resnet12(outputs, width=config.width, query_statistics=config.query_statistics)
    if config.network == "conv-maps":
        return conv_maps(width=config.width, query_statistics=config.query_statistics)
    downsampling = "stride" if config.network == "conv4-stride" else "pool"
    return conv4(
        outputs,
        width=config.width,
        downsampling=downsampling,
        query_statistics=config.query_statistics,
    )

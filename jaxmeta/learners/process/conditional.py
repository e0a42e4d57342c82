"""Conditional neural processes: a function is represented by the mean of its encoded points."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.keys import split_key
from jaxmeta.learners.metric._prototypical import class_means, known_classes
from jaxmeta.learners.process.gaussian import Gaussian, gaussian_likelihood, gaussian_of
from jaxmeta.learners.ways import among_known, check_ways
from jaxmeta.models import pairwise


class ProcessParams(NamedTuple):
    """Meta-parameters of a conditional neural process.

    Attributes:
      encoder: parameters of the network that encodes one point, or one image.
      decoder: parameters of the network that predicts.
    """

    encoder: PyTree
    decoder: PyTree


class Encoded(NamedTuple):
    """The adapted state of a conditional neural process.

    Attributes:
      meta_params: the meta-parameters, unchanged.
      representation_D: r, float `[D]`; `[ways · D]` in classification, a mean for each class.
      reference: the support inputs, for an encoder normalised by the support's statistics.
      known_W: bool `[ways]`, which classes have an example; None in regression.
    """

    meta_params: ProcessParams
    representation_D: Array
    reference: PyTree
    known_W: Array | None = None


def conditional_neural_process(
    encoder: Model, decoder: Model, objective: Objective = gaussian_likelihood
) -> MetaLearner:
    """A conditional neural process: encodes the context points, averages, decodes at the targets.

        r = mean_s h([x_s, y_s]),   μ(x), σ(x) = g([x, r])

    Args:
      encoder: h, maps pairs `[examples, X + Y]` to `[examples, D]`.
      decoder: g, maps `[examples, X + D]` to `[examples, 2 Y]`, see `gaussian_of`.
      objective: an objective of a `Gaussian`.

    The context is the support set, of any size; its mask marks the valid points. Their order does
    not matter. Without any valid point, r is 0.

    Source: Garnelo, Rosenbaum, Maddison et al. 2018, "Conditional neural processes", section 2.2.

    >>> from jaxmeta.models import mlp
    >>> learner = conditional_neural_process(mlp((16,), 8), mlp((16,), 2))
    >>> context = Batch(jnp.ones((5, 1)), jnp.ones((5, 1)))
    >>> params = learner.init(jax.random.key(0), Task(context, context))
    >>> adapted = learner.adapt(jax.random.key(1), params, context)
    >>> learner.predict(adapted, jnp.ones((3, 1))).std.shape
    (3, 1)
    """

    def init(key: Key, task: Task) -> ProcessParams:
        encoder_key, key = jax.random.split(key)
        pairs = pairs_of(task.support)
        params = encoder.init(encoder_key, pairs)
        size = jax.eval_shape(encoder.apply, params, pairs).shape[-1]
        inputs = jnp.zeros((1, task.support.inputs.shape[-1] + size), pairs.dtype)
        return ProcessParams(params, decoder.init(key, inputs))

    def adapt(key: Key, meta_params: ProcessParams, support: Batch) -> Encoded:
        points_SD = encoder.apply(meta_params.encoder, pairs_of(support), key=key)
        return Encoded(meta_params, mean_of_real(points_SD, support.mask), support.inputs)

    def predict(adapted: Encoded, inputs: Array, *, key: Key | None = None) -> Gaussian:
        meta_params, representation_D, *_ = adapted
        given = beside(inputs, representation_D)
        return gaussian_of(decoder.apply(meta_params.decoder, given, key=key))

    return plain_learner(init, adapt, predict, objective)


def conditional_neural_process_classifier(
    encoder: Model, decoder: Model, objective: Objective, ways: int
) -> MetaLearner:
    """A conditional neural process for classification, with one representation per class.

        r_w = mean of h(x_s) over the support examples s of class w
        logits(x) = g([h(x), r_1, …, r_W])

    Args:
      encoder: h, maps inputs to features `[examples, D]`.
      decoder: g, maps `[examples, (1 + ways) D]` to `[examples, ways]`; see `class_by_class`.
      objective: an objective of logits, such as cross-entropy.
      ways: classes of a task; the decoder may depend on it.

    A class without a (valid) support example is never predicted.

    Raises:
      ValueError: fewer than two ways; at `init`, a decoder without one output per way.

    Source: Garnelo, Rosenbaum, Maddison et al. 2018, "Conditional neural processes", section 4.3.

    >>> import jaxmeta
    >>> from jaxmeta.models import mlp
    >>> learner = conditional_neural_process_classifier(
    ...     mlp((16,), 8), mlp((16,), 5), jaxmeta.cross_entropy, ways=5)
    """
    check_ways("conditional_neural_process_classifier", ways)

    def init(key: Key, task: Task) -> ProcessParams:
        encoder_key, key = jax.random.split(key)
        params = encoder.init(encoder_key, task.support.inputs)
        size = jax.eval_shape(encoder.apply, params, task.support.inputs).shape[-1]
        inputs = jnp.zeros((1, (1 + ways) * size))
        decoder_params = decoder.init(key, inputs)
        outputs = jax.eval_shape(decoder.apply, decoder_params, inputs).shape
        if outputs != (1, ways):
            raise ValueError(
                f"conditional_neural_process_classifier: the decoder's outputs have the shape "
                f"{outputs} for one query; give a decoder with {ways} outputs, one per way."
            )
        return ProcessParams(params, decoder_params)

    def adapt(key: Key, meta_params: ProcessParams, support: Batch) -> Encoded:
        features_SD = encoder.apply(meta_params.encoder, support.inputs, key=key)
        means_WD = class_means(features_SD, support, ways)
        known_W = known_classes(support, ways)
        return Encoded(meta_params, means_WD.ravel(), support.inputs, known_W)

    def predict(adapted: Encoded, inputs: PyTree, *, key: Key | None = None) -> Array:
        meta_params, representation_D, reference, known_W = adapted
        assert known_W is not None
        encoder_key, key = split_key(key)
        features_QD = encoder.apply(
            meta_params.encoder, inputs, reference=reference, key=encoder_key
        )
        given = beside(features_QD, representation_D)
        return among_known(decoder.apply(meta_params.decoder, given, key=key), known_W)

    return plain_learner(init, adapt, predict, objective)


def class_by_class(comparison: Model, ways: int) -> Model:
    """A decoder for the classifier with the same weights for every class.

        g([h, r_1, …, r_W]) = [c([h, r_1]), …, c([h, r_W])]

    The order of the classes is arbitrary, so that a decoder of all of them must learn the same
    comparison for each class, which takes very long with many classes.

    Args:
      comparison: c, maps `[examples, 2 D]` to `[examples, 1]`, each pair by itself.
      ways: W.

    Raises:
      ValueError: at a call, inputs for another number of classes.

    >>> difference = Model(
    ...     lambda key, x: {}, lambda params, x, reference=None, key=None: x[:, :1] - x[:, 1:])
    >>> class_by_class(difference, 2).apply({}, jnp.array([[5.0, 1.0, 3.0]])).tolist()
    [[4.0, 2.0]]
    """

    compare = pairwise(comparison)

    def parts_of(row: Array) -> tuple[Array, Array]:
        """The query, `[1, D]`, and the classes, `[ways, D]`."""
        if row.size % (1 + ways):
            raise ValueError(
                f"class_by_class: {row.size} inputs can't be split into a query and {ways} classes."
            )
        parts = row.reshape(1 + ways, -1)
        return parts[:1], parts[1:]

    def init(key: Key, inputs: Array, /) -> PyTree:
        return compare.init(key, parts_of(inputs[0]))

    def apply(
        params: PyTree, inputs: Array, /, *, reference: PyTree = None, key: Key | None = None
    ) -> Array:
        def of_row(row: Array) -> Array:
            return compare.apply(params, parts_of(row), reference=reference, key=key)[:, 0]

        return jax.vmap(of_row)(inputs)

    return Model(init, apply)


def pairs_of(batch: Batch) -> Array:
    """Inputs and targets, concatenated: `[examples, X + Y]`."""
    chex.assert_rank([batch.inputs, batch.targets], 2)
    return jnp.concatenate([batch.inputs, batch.targets], axis=-1)


def beside(inputs: Array, representation_D: Array) -> Array:
    """The inputs, each concatenated with the representation: `[examples, X + D]`."""
    chex.assert_rank([inputs, representation_D], [2, 1])
    repeated = jnp.broadcast_to(representation_D, (*inputs.shape[:-1], representation_D.shape[-1]))
    return jnp.concatenate([inputs, repeated], axis=-1)


def mean_of_real(rows_SD: Array, mask: Array | None) -> Array:
    """The mean of the valid rows, `[D]`; 0 without any.

    >>> mean_of_real(jnp.array([[2.0], [4.0], [9.0]]), jnp.array([True, True, False])).tolist()
    [3.0]
    """
    chex.assert_rank(rows_SD, 2)
    if mask is None:
        return rows_SD.mean(axis=0)
    count = jnp.maximum(mask.sum(), 1).astype(rows_SD.dtype)
    return jnp.where(mask[:, None], rows_SD, 0).sum(axis=0) / count

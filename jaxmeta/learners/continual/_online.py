"""Online learning: one step of gradient descent for each example of a stream."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Batch, Info, Key, MetaLearner, Model, Objective, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.inner import Differentiation, first_order, unroll
from jaxmeta.learners.continual.head import descended, random_head, with_new_classes
from jaxmeta.learners.linear_head import head_logits
from jaxmeta.learners.ways import among_known, check_ways


class OnlineParams(NamedTuple):
    """Meta-parameters of a learner of streams.

    Attributes:
      encoder: parameters of the encoder.
      head: `{"kernel": [features, classes], "bias": [classes]}`, of the training classes.
      rate: the rate of the online steps, a float scalar. It is not learned, and may be replaced
        after training.
      factors: `{"kernel": [features, 1], "bias": [1]}`, learned factors of the rate; `()` if none
        are learned.
    """

    encoder: PyTree
    head: PyTree
    rate: Array
    factors: PyTree = ()


class OnlineState(NamedTuple):
    """The adapted state.

    Attributes:
      encoder: parameters of the encoder.
      head: of the classes of the stream, or of all training classes.
      known_W: bool `[classes]`, the classes that may be predicted.
    """

    encoder: PyTree
    head: PyTree
    known_W: Array


def online(
    encoder: Model,
    objective: Objective,
    classes: int,
    rate: float = 0.01,
    *,
    ways: int | None = None,
    replay: int = 0,
    whole: bool = False,
) -> MetaLearner:
    """Online learning without meta-learning, the baseline of `oml` and `anml`.

        training: ∇_(θ, W) L(W f_θ(query)), an ordinary supervised batch of all training classes
        test: W_0 random,  W_t = W_{t−1} − α ∇_W L(W_{t−1} f_θ(x_t), y_t)

    With `whole`, nothing is trained before the test, and the whole network learns online: training
    from scratch.

    Args:
      encoder: an encoder without a head, which normalises each example by itself.
      objective: an objective of logits, such as cross-entropy.
      classes: number of training classes.
      rate: α.
      ways: number of new classes in a test stream. Defaults to none: the targets are training
        classes, and the loss is the supervised one.
      replay: examples that each step repeats, drawn at random from all of the stream so far; the
        memory is as large as the stream.
      whole: the encoder learns online, too.

    Raises:
      ValueError: fewer than two classes or ways, a rate that is not positive, or a negative number
        of replayed examples.

    >>> import jaxmeta
    >>> from jaxmeta.models import strided_convolutions
    >>> learner = online(strided_convolutions(width=8), jaxmeta.cross_entropy, 100, ways=10)
    """
    adapt, predict = streaming(
        "online", encoder, objective, classes, rate, ways, replay=replay, whole=whole
    )

    def supervised(key: Key, meta_params: OnlineParams, task: Task) -> tuple[Array, Info]:
        given = jax.lax.stop_gradient(meta_params) if whole else meta_params
        outputs = head_logits(given.head, encoder.apply(given.encoder, task.query.inputs))
        value, metrics = objective(outputs, task.query.targets, task.query.mask)
        return value, Info(value, metrics)

    return plain_learner(
        initial(encoder, classes, rate),
        adapt,
        predict,
        objective,
        loss=supervised if ways is None else None,
    )


def initial(
    encoder: Model, classes: int, rate: float, *, learns_rates: bool = False
) -> Callable[[Key, Task], OnlineParams]:
    """`init(key, task)`: random encoder and head."""

    def init(key: Key, task: Task) -> OnlineParams:
        encoder_key, head_key = jax.random.split(key)
        params = encoder.init(encoder_key, task.support.inputs)
        size = jax.eval_shape(encoder.apply, params, task.support.inputs).shape[-1]
        factors = {"kernel": jnp.ones((size, 1)), "bias": jnp.ones((1,))} if learns_rates else ()
        head = random_head(head_key, size, classes)
        return OnlineParams(params, head, jnp.array(rate, jnp.float32), factors)

    return init


def streaming(
    name: str,
    encoder: Model,
    objective: Objective,
    classes: int,
    rate: float,
    ways: int | None,
    *,
    differentiation: Differentiation = first_order,
    replay: int = 0,
    whole: bool = False,
) -> tuple[Any, Any]:
    """`adapt`, which learns a stream in its order, and `predict`. Arguments as for `online`."""
    check_ways(name, classes if ways is None else ways)
    if not rate > 0 or replay < 0:
        raise ValueError(
            f"{name}: rate {rate}, {replay} replayed examples; give a positive rate and 0 or more "
            "examples."
        )

    def loss_of_network(key: Key, network: PyTree, batch: Batch) -> Array:
        outputs = head_logits(network["head"], encoder.apply(network["encoder"], batch.inputs))
        return objective(outputs, batch.targets, batch.mask)[0]

    def adapt(key: Key, meta_params: OnlineParams, stream: Batch) -> OnlineState:
        head_key, replay_key, key = jax.random.split(key, 3)
        params = meta_params.encoder
        rate = jax.lax.stop_gradient(meta_params.rate)
        head, known_W = with_new_classes(head_key, meta_params.head, stream, ways)
        rows_TB = _examples_of_steps(replay_key, len(stream.targets), replay)
        if whole:
            inner = unroll(loss_of_network, optax.sgd(rate), len(rows_TB))
            network = {"encoder": params, "head": head}
            network = inner(key, network, stream, batches=rows_TB).params
            return OnlineState(network["encoder"], network["head"], known_W)
        features = stream._replace(inputs=encoder.apply(params, stream.inputs))
        factors = jax.tree.map(jax.nn.relu, meta_params.factors)
        head = descended(objective, head, features, rows_TB, rate, factors, differentiation)
        return OnlineState(params, head, known_W)

    def predict(state: OnlineState, inputs: PyTree, *, key: Key | None = None) -> Array:
        outputs = head_logits(state.head, encoder.apply(state.encoder, inputs, key=key))
        return among_known(outputs, state.known_W)

    return adapt, predict


def _examples_of_steps(key: Key, steps: int, replay: int) -> Array:
    """The example of each step, then some of those so far: int `[steps, 1 + replay]`."""
    now = jnp.arange(steps)[:, None]
    past = jax.random.uniform(key, (steps, replay)) * (now + 1)
    return jnp.concatenate([now, jnp.minimum(past.astype(now.dtype), now)], axis=1)

"""Few-shot learners whose support set is enlarged by generated examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, MetaLearner, PyTree, Task

Generate = Callable[[Key, PyTree], PyTree]
"""`generate(key, example) -> example`, a new example of the same class, without example axis."""


def augmented(learner: MetaLearner, generate: Generate, count: int) -> MetaLearner:
    """Any few-shot learner, with `count` generated examples for each support example.

        adapt(φ, S) = learner.adapt(φ, S ∪ {(generate(ε_ij, x_i), y_i) : i ∈ S, j = 1 … count})

    Generated examples follow the support examples. A generated example of a padded one is padding.
    The learner is trained through its enlarged support sets, too; everything else is unchanged.

    Args:
      learner: any learner whose support is a `Batch`.
      generate: `generate(key, example) -> example`: an image `[H, W, C]`, or features, of the same
        class and shape. See `gaussian_noise`, `vae_samples`, `gan_samples` and
        `jaxmeta.data.distortions`.
      count: new examples for each support example; with 0, the learner is unchanged.

    Raises:
      ValueError: `count` is negative.

    >>> import jaxmeta
    >>> from jaxmeta.models import on_features
    >>> noisy = lambda key, x: x + 0.1 * jax.random.normal(key, x.shape)
    >>> learner = augmented(jaxmeta.prototypical(on_features(), jaxmeta.cross_entropy, 2), noisy, 4)
    >>> support = Batch(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([0, 1]))
    >>> adapted = learner.adapt(jax.random.key(0), {"encoder": ()}, support)
    >>> adapted.reference.shape
    (10, 2)
    """
    if count < 0:
        raise ValueError(f"augmented: count is {count}; give 0 or more.")

    def enlarge(key: Key, support: Batch) -> Batch:
        return with_generated(key, support, generate, count)

    def apart(key: Key) -> tuple[Key, Key]:
        own, rest = jax.random.split(key)
        return own, rest

    def adapt(key: Key, meta_params: PyTree, support: Batch, /, **shared: Any) -> PyTree:
        own, key = apart(key)
        return learner.adapt(key, meta_params, enlarge(own, support), **shared)

    def loss(key: Key, meta_params: PyTree, task: Task, /, **shared: Any) -> Any:
        own, key = apart(key)
        larger = task._replace(support=enlarge(own, task.support))
        return learner.loss(key, meta_params, larger, **shared)

    def grad(key: Key, meta_params: PyTree, task: Task, carry: Any, /) -> Any:
        own, key = apart(key)
        larger = task._replace(support=enlarge(own, task.support))
        return learner.grad(key, meta_params, larger, carry)

    def trajectory(
        key: Key, meta_params: PyTree, support: Batch, inputs: PyTree, /, **shared: Any
    ) -> PyTree:
        own, key = apart(key)
        assert learner.trajectory is not None
        return learner.trajectory(key, meta_params, enlarge(own, support), inputs, **shared)

    return learner._replace(
        adapt=adapt,
        loss=loss,
        grad=grad,
        trajectory=None if learner.trajectory is None else trajectory,
    )


def with_generated(key: Key, support: Batch, generate: Generate, count: int) -> Batch:
    """The support set, followed by `count` generated examples for each of its examples.

    The random numbers of an example depend on the key and on its row alone, so that padding
    changes nothing.

    >>> support = Batch(jnp.array([[1.0], [5.0]]), jnp.array([0, 1]))
    >>> shifted = lambda key, x: x + 1
    >>> with_generated(jax.random.key(0), support, shifted, 2).inputs.ravel().tolist()
    [1.0, 5.0, 2.0, 2.0, 6.0, 6.0]
    """
    if not count:
        return support
    rows = jnp.arange(support.targets.shape[0])

    def of_row(row: Array, example: PyTree) -> PyTree:
        keys = jax.random.split(jax.random.fold_in(key, row), count)
        return jax.vmap(generate, in_axes=(0, None))(keys, example)

    new = jax.vmap(of_row)(rows, support.inputs)  # [examples, count, ...]
    inputs = jax.tree.map(
        lambda old, own: jnp.concatenate([old, own.reshape(-1, *own.shape[2:])]),
        support.inputs,
        new,
    )

    def longer(leaf: Array) -> Array:
        return jnp.concatenate([leaf, jnp.repeat(leaf, count, axis=0)])

    mask = None if support.mask is None else longer(support.mask)
    return Batch(inputs, jax.tree.map(longer, support.targets), mask)


def gaussian_noise(factor_DF: Array) -> Generate:
    """Features with Gaussian noise of the covariance `factor_DF @ factor_DF.T`.

        x + F ε,  ε ~ N(0, I)

    >>> generate = gaussian_noise(jnp.zeros((3, 2)))
    >>> generate(jax.random.key(0), jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def generate(key: Key, features_D: Array) -> Array:
        noise_F = jax.random.normal(key, factor_DF.shape[1:], features_D.dtype)
        return features_D + factor_DF @ noise_F

    return generate

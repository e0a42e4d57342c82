"""DAGAN: a generative adversarial network that turns an image into another of its class."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, Model, PyTree, Task, unpadded
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.architecture.alternating import Alternating
from jaxmeta.learners.generative._augmented import Generate
from jaxmeta.learners.generative.vae import no_objective, sampled
from jaxmeta.objectives import masked_mean, valid_mask
from jaxmeta.ops import varying_with


class CriticState(NamedTuple):
    """What is trained beside the generator.

    Attributes:
      params: the critic's parameters.
      optimizer_state: of the critic's optimizer.
    """

    params: PyTree
    optimizer_state: PyTree


def gan_samples(generator: Model, params: PyTree, latent: int) -> Generate:
    """`generate(key, image) -> image`, for `augmented`.

        x' = G(x, z),  z ~ N(0, I)

    >>> from jaxmeta.models import image_generator
    >>> generator, images = image_generator(4), jnp.zeros((1, 12, 12, 1))
    >>> params = generator.init(jax.random.key(0), (images, jnp.zeros((1, 8))))
    >>> gan_samples(generator, params, 8)(jax.random.key(1), images[0]).shape
    (12, 12, 1)
    """

    def generate(key: Key, image: Array) -> Array:
        noise = jax.random.normal(key, (1, latent), image.dtype)
        return generator.apply(params, (image[None], noise))[0]

    return generate


def gan_augmented(
    generator: Model,
    critic: Model,
    critic_optimizer: optax.GradientTransformation,
    *,
    latent: int = 100,
    critic_steps: int = 5,
    penalty: float = 10.0,
) -> MetaLearner:
    """DAGAN: a Wasserstein GAN with gradient penalty on pairs of images of a class.

        critic:    minimise D(x, G(x, z)) − D(x, x') + λ (‖∇_y D(x, y)‖ − 1)²,
                   y = u G(x, z) + (1 − u) x',  u ~ U(0, 1),  `critic_steps` times
        generator: minimise −D(x, G(x, z))

    x is an image of the support set, and x' the query image of the same row, another image of its
    class. The meta-parameters are the generator's; the critic and its optimizer are shared values
    that follow them. `jaxmeta.training.alternating_update` takes a generator step, then the
    critic's steps. Each of these uses other pairs of the task, every `critic_steps`-th; the
    generator uses the pairs of the first one. Rows that only one of the sets has are ignored.

    `predict` gives G(x, 0), and with a key G(x, z). `gan_samples` serves in `augmented`.

    Args:
      generator: a pair, images `[N, H, W, C]` and noise `[N, latent]`, to images.
      critic: a pair of images, `[N, H, W, C]` each, to scores `[N]`.
      critic_optimizer: any optax transformation.
      latent: the size of z.
      critic_steps: critic steps for each generator step.
      penalty: λ.

    Raises:
      ValueError: `latent` or `critic_steps` is less than 1, or the penalty negative; when traced,
        if the pairs of a task don't divide into the critic's steps.

    Source: Antoniou, Storkey, Edwards 2018, "Data augmentation generative adversarial networks",
    section 3; Gulrajani et al. 2017, "Improved training of Wasserstein GANs", Algorithm 1.

    >>> from jaxmeta import Batch
    >>> from jaxmeta.models import image_generator, pair_critic
    >>> learner = gan_augmented(image_generator(4), pair_critic(4), optax.adam(1e-4), latent=8)
    >>> batch = Batch(jnp.zeros((5, 12, 12, 1)), jnp.arange(5))
    >>> params = learner.init(jax.random.key(0), Task(batch, batch))
    >>> learner.predict(params, batch.inputs).shape
    (5, 12, 12, 1)
    """
    if latent < 1 or critic_steps < 1 or penalty < 0:
        raise ValueError(
            f"gan_augmented: latent {latent}, critic_steps {critic_steps}, penalty {penalty}; give "
            "latent and critic_steps of at least 1, and a penalty of 0 or more."
        )

    def init(key: Key, task: Task) -> PyTree:
        images = task.support.inputs
        return generator.init(key, (images, jnp.zeros((images.shape[0], latent))))

    def shared(key: Key, params: PyTree, task: Task) -> CriticState:
        own = critic.init(key, (task.support.inputs, task.support.inputs))
        return CriticState(own, critic_optimizer.init(own))

    def generated(key: Key, params: PyTree, images: Array) -> Array:
        zero = jnp.zeros((images.shape[0], latent), images.dtype)
        return generator.apply(params, (images, sampled(key, zero, zero)))

    def predict(params: PyTree, inputs: Array, *, key: Key | None = None) -> Array:
        if key is not None:
            return generated(key, params, inputs)
        return generator.apply(params, (inputs, jnp.zeros((inputs.shape[0], latent), inputs.dtype)))

    def parts(task: Task) -> tuple[Array, Array, Array]:
        """The pairs and which are valid, `[critic_steps, rows, ...]`; part i has rows i, i + s."""
        support, query = task.support, task.query
        rows = min(support.inputs.shape[0], query.inputs.shape[0])
        if rows % critic_steps:
            raise ValueError(
                f"gan_augmented: a task of {rows} pairs; give a multiple of critic_steps, "
                f"{critic_steps}."
            )
        valid = valid_mask(support.mask, support.inputs.shape[0])[:rows]
        valid &= valid_mask(query.mask, query.inputs.shape[0])[:rows]

        def split(leaf: Array) -> Array:
            return leaf[:rows].reshape(-1, critic_steps, *leaf.shape[1:]).swapaxes(0, 1)

        return split(support.inputs), split(query.inputs), split(valid)

    def generator_loss(
        key: Key, params: PyTree, task: Task, /, **given: CriticState
    ) -> tuple[Array, Info]:
        shared = given["shared"]
        first, second, valid = (part[0] for part in parts(task))
        scores = critic.apply(shared.params, (first, generated(key, params, first)))
        score = masked_mean(scores, valid)
        real = masked_mean(critic.apply(shared.params, (first, second)), valid)
        return -score, Info(-score, {"wasserstein": real - score})

    def critic_loss(
        params: PyTree, key: Key, first: Array, second: Array, valid: Array, fake: Array
    ) -> Array:
        share = jax.random.uniform(key, (first.shape[0],) + (1,) * (first.ndim - 1), first.dtype)
        between = share * fake + (1 - share) * second
        slope = jax.grad(lambda images: critic.apply(params, (first, images)).sum())(between)
        norm = jnp.sqrt(jnp.square(slope).reshape(slope.shape[0], -1).sum(axis=1) + 1e-12)
        of_fake, of_real = (critic.apply(params, (first, images)) for images in (fake, second))
        return masked_mean(of_fake - of_real + penalty * jnp.square(norm - 1), valid)

    def gradient(key: Key, params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info]:
        given = {"shared": carry.shared}
        own = jax.random.split(key)[0]
        return jax.grad(learner.loss, argnums=1, has_aux=True)(own, params, task, **given)

    def follow(key: Key, params: PyTree, task: Task, carry: Carry) -> CriticState:
        def step(state: CriticState, given: tuple[Key, Array, Array, Array]) -> Any:
            noise_key, share_key = jax.random.split(given[0])
            fake = jax.lax.stop_gradient(generated(noise_key, params, given[1]))
            grads = jax.grad(critic_loss)(state.params, share_key, *given[1:], fake)
            updates, own = critic_optimizer.update(grads, state.optimizer_state, state.params)
            return CriticState(optax.apply_updates(state.params, updates), own), None

        keys = jax.random.split(jax.random.split(key)[1], critic_steps)
        start = varying_with(carry.shared, task)
        with unpadded(task.support, task.query) as (support, query):
            return jax.lax.scan(step, start, (keys, *parts(Task(support, query))))[0]

    learner = plain_learner(
        init, lambda key, params, support: params, predict, no_objective, loss=generator_loss
    )
    return learner._replace(
        adapt=lambda key, params, support, /, **shared: params,
        grad=Alternating(gradient, follow),
        shared=shared,
    )

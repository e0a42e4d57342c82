"""DAGAN: a generative adversarial network that turns an image into another of its class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta.core import Array, Carry, Info, Key, MetaLearner, Model, PyTree, Task
from jaxmeta.core import meta_learner as plain_learner
from jaxmeta.learners.architecture.alternating import Alternating
from jaxmeta.learners.generative._augmented import Generate
from jaxmeta.learners.generative.vae import no_objective
from jaxmeta.ops import varying_with


class CriticState(NamedTuple):
    """What is trained beside the generator: the critic's parameters and optimizer."""

    params: PyTree
    optimizer_state: PyTree


def gan_samples(generator: Model, params: PyTree, latent: int) -> Generate:
    """`generate(key, image) -> image`, for `augmented`.

    x' = G(x, z),  z ~ N(0, I)
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
    critic's steps. Each of these uses other rows of the task, in equal parts of
    1 / `critic_steps`; the generator uses the first part.

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
        if the rows of a task don't divide into the critic's steps.

    Source: Antoniou, Storkey, Edwards 2018, "Data augmentation generative adversarial networks",
    section 3; Gulrajani et al. 2017, "Improved training of Wasserstein GANs", Algorithm 1.

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
            "at least 1, at least 1, and 0 or more."
        )

    def init(key: Key, task: Task) -> PyTree:
        images = task.support.inputs
        return generator.init(key, (images, jnp.zeros((images.shape[0], latent))))

    def shared(key: Key, params: PyTree, task: Task) -> CriticState:
        own = critic.init(key, (task.support.inputs, task.query.inputs))
        return CriticState(own, critic_optimizer.init(own))

    def generated(key: Key, params: PyTree, images: Array) -> Array:
        noise = jax.random.normal(key, (images.shape[0], latent), images.dtype)
        return generator.apply(params, (images, noise))

    def predict(params: PyTree, inputs: Array, *, key: Key | None = None) -> Array:
        if key is not None:
            return generated(key, params, inputs)
        return generator.apply(params, (inputs, jnp.zeros((inputs.shape[0], latent), inputs.dtype)))

    def parts(task: Task) -> tuple[Array, Array]:
        """The pairs, `[critic_steps, rows, ...]`."""
        rows = task.support.inputs.shape[0]
        if rows % critic_steps or rows != task.query.inputs.shape[0]:
            raise ValueError(
                f"gan_augmented: {rows} support and {task.query.inputs.shape[0]} query images; "
                f"give as many of both, a multiple of critic_steps, {critic_steps}."
            )
        split = lambda leaf: leaf.reshape(critic_steps, -1, *leaf.shape[1:])  # noqa: E731
        return split(task.support.inputs), split(task.query.inputs)

    def generator_loss(
        key: Key, params: PyTree, task: Task, /, *, shared: CriticState
    ) -> tuple[Array, Info]:
        first, second = (part[0] for part in parts(task))
        score = critic.apply(shared.params, (first, generated(key, params, first))).mean()
        real = critic.apply(shared.params, (first, second)).mean()
        return -score, Info(-score, {"wasserstein": real - score})

    def critic_loss(params: PyTree, key: Key, first: Array, second: Array, fake: Array) -> Array:
        share = jax.random.uniform(key, (first.shape[0],) + (1,) * (first.ndim - 1), first.dtype)
        between = share * fake + (1 - share) * second
        slope = jax.grad(lambda images: critic.apply(params, (first, images)).sum())(between)
        norm = jnp.sqrt(jnp.square(slope).reshape(slope.shape[0], -1).sum(axis=1) + 1e-12)
        scores = [critic.apply(params, (first, images)).mean() for images in (fake, second)]
        return scores[0] - scores[1] + penalty * jnp.square(norm - 1).mean()

    def gradient(key: Key, params: PyTree, task: Task, carry: Carry) -> tuple[PyTree, Info]:
        loss = lambda params: generator_loss(key, params, task, shared=carry.shared)  # noqa: E731
        return jax.grad(loss, has_aux=True)(params)

    def follow(key: Key, params: PyTree, task: Task, carry: Carry) -> CriticState:
        def step(state: CriticState, given: tuple[Key, Array, Array]) -> tuple[CriticState, None]:
            noise_key, share_key = jax.random.split(given[0])
            fake = jax.lax.stop_gradient(generated(noise_key, params, given[1]))
            grads = jax.grad(critic_loss)(state.params, share_key, *given[1:], fake)
            updates, own = critic_optimizer.update(grads, state.optimizer_state, state.params)
            return CriticState(optax.apply_updates(state.params, updates), own), None

        keys = jax.random.split(jax.random.fold_in(key, 1), critic_steps)
        start = varying_with(carry.shared, task)
        return jax.lax.scan(step, start, (keys, *parts(task)))[0]

    learner = plain_learner(
        init, lambda key, params, support: params, predict, no_objective, loss=generator_loss
    )
    return learner._replace(
        adapt=lambda key, params, support, /, **shared: params,
        grad=Alternating(gradient, follow),
        shared=shared,
    )

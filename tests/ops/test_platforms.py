"""The platform that a program is lowered for decides on the form, not the machine at hand."""

import re
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Batch, Task, cross_entropy
from jaxmeta.learners import maml
from jaxmeta.models import conv4
from jaxmeta.ops import convolve, pooled_block


def meta_gradient(downsampling, map_tasks):
    """Two gradient functions of MAML and their arguments: of a batch of tasks, and of one step."""
    learner = maml(conv4(3, width=32, downsampling=downsampling), cross_entropy, optax.sgd(0.1), 1)
    batch = Batch(jnp.ones((2, 6, 16, 16, 1)), jnp.zeros((2, 6), int))
    tasks, keys = Task(batch, batch), jax.random.split(jax.random.key(0), 2)
    one = jax.tree.map(lambda leaf: leaf[0], tasks)
    params = jax.eval_shape(learner.init, keys[0], one)

    def of_task(params, key, task):
        return jax.grad(lambda params: learner.loss(key, params, task)[0])(params)

    def of_tasks(params, keys, tasks):
        if map_tasks:
            return jax.vmap(partial(of_task, params))(keys, tasks)
        return jax.lax.map(lambda given: of_task(params, *given), (keys, tasks))

    return jax.jit(of_tasks), (params, keys, tasks)


def operations(function, given, *platforms):
    """How often the operations that tell the forms apart stand in the exported program."""
    text = jax.export.export(function, platforms=platforms)(*given).mlir_module()
    names = ("convolution", "dot_general", "concatenate", "while")
    return {name: len(re.findall(rf"stablehlo\.{name}\b", text)) for name in names}


@pytest.mark.full
@pytest.mark.parametrize("downsampling", ["pool", "stride"])
def test_tasks_one_after_the_other(downsampling):
    """XLA's convolution elsewhere; on a CPU products only, of patches or of Winograd's tiles."""
    program = meta_gradient(downsampling, map_tasks=False)
    on_cpu = operations(*program, "cpu")
    assert on_cpu["convolution"] == 0
    for platform in ("cuda", "tpu"):
        elsewhere = operations(*program, platform)
        assert elsewhere["convolution"] > 20
        assert elsewhere["dot_general"] < 20 < on_cpu["dot_general"]
        assert elsewhere["concatenate"] < on_cpu["concatenate"] / 2
        assert elsewhere["while"] < on_cpu["while"] or downsampling == "stride"


@pytest.mark.full
@pytest.mark.parametrize("downsampling", ["pool", "stride"])
def test_tasks_mapped_together(downsampling):
    """Every task has a kernel of its own: a loop over tasks on a CPU, one product elsewhere."""
    program = meta_gradient(downsampling, map_tasks=True)
    on_cpu = operations(*program, "cpu")
    assert on_cpu["while"] > 20
    for platform in ("cuda", "tpu"):
        assert operations(*program, platform)["while"] < 5


def test_the_first_block_is_taken_in_groups_on_a_cpu_only():
    given = (jnp.ones((20, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), jnp.ones(2), jnp.zeros(2))
    loops = [operations(jax.jit(pooled_block), given, name)["while"] for name in ("cpu", "cuda")]
    assert loops == [1, 0]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the program is exported for two")
def test_one_program_for_two_platforms():
    def loss(images, kernels):
        def of_task(kernel):
            pooled = pooled_block(images, kernel, jnp.ones(2), jnp.zeros(2))
            return jnp.sin(convolve(pooled, jnp.tile(kernel, (1, 1, 2, 1)))).sum()

        return jax.vmap(jax.grad(of_task))(kernels)

    given = jnp.arange(64.0).reshape(4, 4, 4, 1), jnp.arange(54.0).reshape(3, 3, 3, 1, 2) / 50
    exported = jax.export.export(jax.jit(loss), platforms=["cpu", "cuda"])(*given)
    assert exported.platforms == ("cpu", "cuda")
    np.testing.assert_array_equal(exported.call(*given), jax.jit(loss)(*given))

"""The task batch over devices: the same numbers as on one."""

import os
import re
import subprocess
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.scaling import free_address
from jaxmeta import cross_entropy, meta_learner, squared_error
from jaxmeta.data import sinusoids
from jaxmeta.inner import adam
from jaxmeta.learners import maml, meta_sgd, reptile
from jaxmeta.models import conv4, mlp
from jaxmeta.training import checkpoints, meta_update
from jaxmeta.training.parallel import TASKS, average_over, mesh_for, task_mesh
from jaxmeta.training.task_mean import mean_over_tasks
from jaxmeta.training.update import chunk_of
from tests.learners.conftest import patterns

TASK_BATCH = 8
CURVE = mlp((8,), 1)
IMAGE = conv4(3, width=4, downsampling="stride")

# A learner, what it learns from and the outer optimizer.
CASES = {
    "maml": (lambda: maml(CURVE, squared_error, optax.sgd(0.05), 2), "curves", optax.adam),
    "inner-adam": (lambda: maml(CURVE, squared_error, adam(0.01), 2), "curves", optax.adam),
    "rates": (lambda: meta_sgd(CURVE, squared_error, 2), "curves", optax.adam),
    "conv4": (lambda: maml(IMAGE, cross_entropy, optax.sgd(0.1), 1), "images", optax.sgd),
    "reptile": (
        lambda: reptile(
            CURVE,
            squared_error,
            optax.rmsprop(0.01, initial_scale=1e-2),
            3,
            carry_optimizer_state=True,
        ),
        "curves",
        optax.sgd,
    ),
}


def learned_steps():
    """Meta-parameters that are the initialisation and a small network that proposes the steps."""
    proposal = mlp((4,), 1)

    def init(key, task):
        parts = jax.random.split(key)
        return (
            CURVE.init(parts[0], task.support.inputs),
            proposal.init(parts[1], jnp.zeros((1, 2))),
        )

    def adapt(key, meta_params, support):
        theta, weights = meta_params

        def propose(parameter, gradient):
            seen = jnp.stack([gradient.ravel(), jnp.sign(gradient).ravel()], axis=-1)
            return parameter - 0.01 * (
                gradient + proposal.apply(weights, seen)[:, 0].reshape(gradient.shape)
            )

        def loss(theta):
            return squared_error(CURVE.apply(theta, support.inputs), support.targets, None)[0]

        for _ in range(3):
            theta = jax.tree.map(propose, theta, jax.grad(loss)(theta))
        return theta

    return meta_learner(init, adapt, CURVE.apply, squared_error)


CASES["learned-optimizer"] = (learned_steps, "curves", optax.adam)
SAMPLES = {"curves": lambda: sinusoids(shots=5, queries=5), "images": patterns}


def double(tree):
    real = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.astype(float) if real(leaf) else leaf, tree)


def stored(draw):
    """Draws from 64 tasks of `draw`, in float64. A task drawn in float32 may differ in its last
    digit from program to program; a stored one does not."""
    pool = double(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(7), 64)))

    def sample(pool, key):
        return jax.tree.map(lambda leaf: leaf[jax.random.randint(key, (), 0, 64)], pool)

    return jax.tree_util.Partial(sample, pool)


def setting(name):
    build, source, outer = CASES[name]
    return build(), stored(SAMPLES[source]()), outer(1e-2)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("maml", "prototypical") else pytest.param(name, marks=pytest.mark.slow)
        for name in CASES
    ],
)
def test_any_number_of_devices_learns_the_same(name, x64):
    learner, sample, outer = setting(name)
    ends = []
    for devices in (None, 1, 4, 8):
        mesh = None if devices is None else task_mesh(devices)
        init, update = meta_update(learner, outer, task_batch=TASK_BATCH, mesh=mesh)
        state = double(init(jax.random.key(0), sample))
        start = jax.tree.map(np.asarray, state.meta_params)
        state, infos = chunk_of(update)(state, sample, length=20)
        ends.append((state.meta_params, infos.loss))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, ends[0][0])
    assert max(jax.tree.leaves(moved)) > 1e-3
    for end in ends[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), end, ends[0]
        )


@pytest.mark.full
def test_pmap_of_the_same_function_gives_the_same_mean(x64):
    learner, sample, outer = setting("maml")
    init, _ = meta_update(learner, outer, task_batch=TASK_BATCH)
    state = double(init(jax.random.key(0), sample))
    keys = jax.random.split(jax.random.key(1), TASK_BATCH)
    expected = jax.jit(mean_over_tasks(learner))((state, sample), (keys, None, (), None))[0]
    per_device = partial(average_over, TASKS, mean_over_tasks(learner))
    mapped = jax.pmap(per_device, axis_name=TASKS, in_axes=(None, 0), devices=jax.devices()[:4])
    found, _ = mapped((state, sample), (keys.reshape(4, 2), None, (), None))
    jax.tree.map(  # every device holds the mean over all
        lambda a, b: np.testing.assert_allclose(a, np.stack([b] * 4), rtol=1e-10, atol=1e-12),
        found,
        expected,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batch", "none"])
def test_what_grows_over_many_updates_is_rounding_alone(kind, x64):
    """Batch statistics make 1e-2 of it in float32."""
    learner = maml(mlp((32, 32), 5, query_statistics=kind), cross_entropy, optax.sgd(0.4), 1)
    sample = stored(patterns(5, 1, 5))
    ends = []
    for devices in (1, 2, 8):
        update = meta_update(learner, optax.adam(1e-3), task_batch=8, mesh=task_mesh(devices))
        state = double(update.init(jax.random.key(0), sample))
        ends.append(chunk_of(update.update)(state, sample, length=100)[0].meta_params)
    for end in ends[1:]:
        chex.assert_trees_all_close(end, ends[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["maml", pytest.param("conv4", marks=pytest.mark.slow)])
def test_one_all_reduce_is_all_that_crosses(name):
    build, source, outer = CASES[name]
    init, update = meta_update(build(), outer(1e-2), task_batch=TASK_BATCH, mesh=task_mesh(4))
    sample = SAMPLES[source]()
    state = jax.eval_shape(init, jax.random.key(0), sample)
    text = jax.jit(update).lower(state, sample).compile().as_text()
    crossing = re.findall(r"(?<!%)\b(all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", text)
    assert crossing == ["all-reduce"]


def test_slots_stay_with_their_tasks(x64):
    learner, sample, outer = setting("maml")

    def grad(key, meta_params, task, carry):
        grads, info, _ = learner.grad(key, meta_params, task, carry)
        return grads, info, carry._replace(slot=carry.slot + task.support.targets.sum())

    counting = learner._replace(grad=grad)
    slots = []
    for mesh in (None, task_mesh(4)):
        init, update = meta_update(counting, outer, task_batch=TASK_BATCH, mesh=mesh)
        state = double(init(jax.random.key(0), sample))._replace(slots=jnp.arange(8.0))
        slots.append(chunk_of(update)(state, sample, length=3)[0].slots)
    assert len(set(np.asarray(slots[0]))) == TASK_BATCH
    np.testing.assert_allclose(slots[0], slots[1], rtol=1e-10)


@pytest.mark.full
@pytest.mark.parametrize(
    ("tasks", "devices", "own"),
    [(5, 2, True), pytest.param(5, 4, True, marks=pytest.mark.slow), (3, 8, True), (5, 2, False)],
)
def test_a_batch_that_does_not_divide_gives_the_same_mean(tasks, devices, own, x64):
    """Padding counts for nothing: gradients, metrics and slots are those of the real tasks."""
    plain, sample, outer = setting("maml")

    def grad(key, meta_params, task, carry):
        grads, info, _ = plain.grad(key, meta_params, task, carry)
        counted = {**info.metrics, "positive": (task.query.targets > 0).sum()}
        slot = carry.slot + task.support.targets.sum()
        return grads, info._replace(metrics=counted), carry._replace(slot=slot)

    learner = plain._replace(grad=grad) if own else plain
    ends = []
    for mesh in (None, task_mesh(devices)):
        update = meta_update(learner, outer, task_batch=tasks, mesh=mesh)
        state = double(update.init(jax.random.key(0), sample))
        state = state._replace(slots=jnp.arange(float(tasks)))
        state, infos = chunk_of(update.update)(state, sample, length=5)
        ends.append((state.meta_params, state.slots, infos))
    chex.assert_trees_all_close(ends[0], ends[1], rtol=1e-10, atol=1e-12)


def test_no_device_waits_for_nothing():
    assert mesh_for(8).size == 8
    assert mesh_for(25).size == 7  # four tasks in turn on seven devices, as on eight
    assert mesh_for(25, evenly=True).size == 5
    assert mesh_for(8, tasks_at_once=4).size == 2
    assert mesh_for(25, 2).size == 2
    assert mesh_for(1) is None


@pytest.mark.full
@pytest.mark.parametrize("setting", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_a_cpu_gives_a_device_for_every_core(setting):
    program = "from jaxmeta.training.parallel import with_all_cores; with_all_cores();"
    program += "import jax; print(jax.device_count())"
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    if setting is not None:
        environment["JAX_NUM_CPU_DEVICES"] = str(setting)
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True
    )
    assert int(said.stdout) == (setting or min(len(os.sched_getaffinity(0)), 16))


def test_errors_name_what_would_do():
    with pytest.raises(ValueError, match="9 devices: give 1 to 8"):
        task_mesh(9)
    with pytest.raises(ValueError, match="6 tasks .* 4 devices; give a task batch of 4 or 8"):
        mesh_for(6, 4, evenly=True)
    learner, sample, outer = setting("maml")
    init, update = meta_update(learner, outer, task_batch=6, mesh=task_mesh(4))
    given = jax.vmap(sample)(jax.random.split(jax.random.key(0), 6))
    with pytest.raises(ValueError, match="6 tasks .* 4 devices; give a task batch of 4 or 8"):
        update(init(jax.random.key(0), sample), sample, given)


# What one of two processes does: tasks' slots lie on both, and are saved by both together.
SAVES_SLOTS = """
import sys
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 2)
from jaxmeta.training import checkpoints, join, parallel
from jax.sharding import NamedSharding, PartitionSpec
address, number, folder = sys.argv[1:]
join(address, 2, int(number))
mesh = parallel.task_mesh()
shared_out = NamedSharding(mesh, PartitionSpec(parallel.TASKS))
slots = jax.jit(lambda: jnp.arange(8.0) ** 2, out_shardings=shared_out)()
assert not slots.is_fully_addressable
state = {"slots": slots, "key": parallel.replicate(jax.random.key(7), mesh)}
checkpoints.save(folder, 5, state, metadata={})
back = checkpoints.restore(folder, jax.eval_shape(lambda: state)).tree
assert back["slots"].tolist() == (jnp.arange(8.0) ** 2).tolist()
assert parallel.any_process(number == "1") and not parallel.any_process(False)
"""


@pytest.mark.slow
def test_slots_of_two_processes_are_saved_and_read_by_one(tmp_path):
    address = free_address()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAVES_SLOTS, address, str(number), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    like = {"slots": jnp.zeros(8), "key": jax.random.key(0)}
    (step, state, _) = checkpoints.restore(tmp_path, like)
    assert step == 5
    assert state["slots"].tolist() == [0, 1, 4, 9, 16, 25, 36, 49]
    assert (jax.random.key_data(state["key"]) == jax.random.key_data(jax.random.key(7))).all()

"""The workloads of `experiments.benchmark`, their data, and their implementation in jaxmeta."""

import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from experiments import peers
from experiments.peers import Arrays, Contestant, Problem
from jaxmeta import Batch, Carry, MetaLearner, Task, cross_entropy, squared_error
from jaxmeta.learners import first_order_maml, maml, prototypical
from jaxmeta.models import conv4, mlp
from jaxmeta.training import evaluation, meta_update
from jaxmeta.training.parallel import mesh_for, replicate, size_of
from jaxmeta.training.state import Sample
from jaxmeta.training.update import chunk_of

# With this seed no activation is so close to a kink of ReLU or maximum that rounding takes it
# across in one contestant only, which would make their gradients differ.
_SEED = 30


class Workload(NamedTuple):
    """A problem with its sizes.

    Attributes:
      problem: see `Problem`.
      tasks: tasks per batch.
      support, queries: examples per class, or points of a curve.
      length: steps per timed call.
    """

    problem: Problem
    tasks: int
    support: int
    queries: int
    length: int


WORKLOADS = {
    "sinusoid-1-step": Workload(Problem("mlp", "maml", 1, 0.01, 0), 25, 10, 10, 500),
    "sinusoid-10-steps": Workload(Problem("mlp", "maml", 10, 0.01, 0), 25, 10, 10, 100),
    "max-pool-1-step": Workload(Problem("conv-pool", "maml", 1, 0.4, 5), 8, 1, 15, 5),
    "max-pool-5-steps": Workload(Problem("conv-pool", "maml", 5, 0.4, 5), 8, 1, 15, 2),
    "max-pool-5-shot": Workload(Problem("conv-pool", "maml", 1, 0.4, 5), 8, 5, 15, 2),
    "max-pool-84x84": Workload(  # miniImageNet's shape, as in MAML: 5 steps, 4 tasks
        Problem("conv-pool", "maml", 5, 0.01, 5, size=84, channels=3, width=32), 4, 1, 15, 1
    ),
    "stride-2": Workload(Problem("conv-stride", "maml", 1, 0.4, 5), 32, 1, 1, 2),
    "stride-2-first-order": Workload(
        Problem("conv-stride", "first-order-maml", 1, 0.4, 5), 32, 1, 1, 2
    ),
    "prototypical": Workload(Problem("conv-pool", "prototypical", 0, 0.0, 20), 1, 5, 15, 10),
    "evaluation": Workload(Problem("conv-stride", "evaluation", 10, 0.4, 5), 100, 1, 15, 1),
}


# --- what is computed ---------------------------------------------------------------------


def initial(problem: Problem, dtype: str = "float32") -> Arrays:
    """The initial weights of all contestants, in the order described in `experiments.peers`."""
    random = np.random.default_rng(_SEED)

    def weights(*shape: int) -> np.ndarray:
        fan_in = math.prod(shape[:-1])
        return (random.standard_normal(shape) * math.sqrt(2 / fan_in)).astype(dtype)

    if problem.network == "mlp":
        sizes = [(1, 40), (40, 40), (40, 1)]
        pairs = [[weights(*size), np.zeros(size[1], dtype)] for size in sizes]
        return [array for pair in pairs for array in pair]
    width = problem.width
    blocks = [
        [
            weights(3, 3, problem.channels if block == 0 else width, width),
            np.ones(width, dtype),
            np.zeros(width, dtype),
        ]
        for block in range(4)
    ]
    arrays = [array for block in blocks for array in block]
    if problem.method == "prototypical":
        arrays[-2] *= 0.2  # small features, since a softmax of large distances saturates
        return arrays
    positions = (problem.size // 16) ** 2 if problem.network == "conv-pool" else 1
    return [*arrays, weights(positions * width, problem.ways), np.zeros(problem.ways, dtype)]


def draw(workload: Workload, dtype: str = "float32") -> tuple[np.ndarray, ...]:
    """A batch of tasks: noisy images of distinct class patterns, or points of sinusoids."""
    random = np.random.default_rng(_SEED + 1)
    problem, tasks, support, queries, _ = workload
    ways, image, parts = problem.ways, (problem.size, problem.size, problem.channels), []
    if not ways:
        amplitude, phase = random.uniform(1, 5, (tasks, 1, 1)), random.uniform(0, 3, (tasks, 1, 1))
        for count in (support, queries):
            x = random.uniform(-5, 5, (tasks, count, 1))
            parts += [x.astype(dtype), (amplitude * np.sin(x - phase)).astype(dtype)]
        return tuple(parts)
    patterns = random.uniform(size=(tasks, ways, *image))
    for count in (support, queries):
        noise = random.uniform(size=(tasks, ways, count, *image))
        images = (patterns[:, :, None] + noise).reshape(tasks, ways * count, *image) / 2
        labels = np.broadcast_to(
            np.repeat(np.arange(ways, dtype=np.int32), count), images.shape[:2]
        )
        parts += [images.astype(dtype), np.ascontiguousarray(labels)]
    return tuple(parts)


# --- jaxmeta ------------------------------------------------------------------------------


def learner_of(problem: Problem) -> MetaLearner:
    if problem.method == "prototypical":
        encoder = conv4(None, width=problem.width, downsampling="pool")
        return prototypical(encoder, cross_entropy, problem.ways)
    if problem.network == "mlp":
        model, objective = mlp((40, 40), 1), squared_error
    else:
        downsampling: Any = problem.network.removeprefix("conv-")
        model = conv4(problem.ways, width=problem.width, downsampling=downsampling)
        objective = cross_entropy
    make = first_order_maml if problem.method == "first-order-maml" else maml
    return make(model, objective, optax.sgd(problem.rate), problem.steps)


def tree_of(problem: Problem, params: list[Any]) -> dict[str, Any]:
    """The model's parameters from a list of arrays."""
    dense = lambda kernel, bias: {"kernel": kernel, "bias": bias}  # noqa: E731
    if problem.network == "mlp":
        names = ("hidden_0", "hidden_1", "head")
        return {name: dense(*params[2 * i : 2 * i + 2]) for i, name in enumerate(names)}
    tree = {}
    for index in range(4):
        kernel, scale, bias = params[3 * index : 3 * index + 3]
        tree |= {
            f"conv_{index}": {"kernel": kernel},
            f"norm_{index}": {"scale": scale, "bias": bias},
        }
    if problem.method == "prototypical":
        return {"encoder": tree}
    return {**tree, "head": dense(*params[-2:])}


def list_of(problem: Problem, tree: dict[str, Any]) -> Arrays:
    """The list of arrays from the model's parameters, the inverse of `tree_of`."""
    count = len(jax.tree.leaves(tree))
    places = tree_of(problem, list(range(count)))
    found: list[Any] = [None] * count
    jax.tree.map(lambda place, leaf: found.__setitem__(place, np.asarray(leaf)), places, tree)
    return found


def as_tasks(tasks: Any) -> Task:
    support, labels, query, targets = tasks
    return Task(Batch(support, labels), Batch(query, targets))


def sampler_of(tasks: Any) -> Sample:
    """A sampler that draws from the given tasks."""
    return jax.tree_util.Partial(_pick, jax.device_put(as_tasks(tasks)))


def _pick(tasks: Task, key: jax.Array) -> Task:
    index = jax.random.key_data(key)[0] % tasks.support.inputs.shape[0]
    return jax.tree.map(lambda leaf: leaf[index], tasks)


def jaxmeta_contestant(workload: Workload) -> Contestant:
    """jaxmeta as its experiments use it: sampling, meta-gradient and Adam in one scan."""
    problem = workload.problem
    learner = learner_of(problem)

    def measure(params: Arrays, tasks: Any) -> tuple[float, Arrays]:
        def of_one_task(task: Task) -> Any:
            key, tree = jax.random.key(0), tree_of(problem, params)
            if problem.method == "evaluation":
                return learner.loss(key, tree, task)[0], {}
            grads, info, _ = learner.grad(key, tree, task, Carry(jnp.zeros((), jnp.int32)))
            return info.loss, grads

        each = jax.jit(lambda tasks: jax.lax.map(of_one_task, tasks))(as_tasks(tasks))
        loss, grads = jax.tree.map(lambda leaf: np.asarray(leaf.mean(0)), each)
        return float(loss), list_of(problem, grads) if grads else []

    def train(params: Arrays, tasks: Any, length: int) -> Callable[[], None]:
        if problem.method == "evaluation":
            sample = sampler_of(tasks)
            tree = jax.device_put(tree_of(problem, params))
            evaluate = evaluation(
                learner,
                workload.tasks,
                tasks_at_once=at_once(workload) or workload.tasks,
                mesh=mesh_for(workload.tasks),
            )

            def work() -> None:
                for _ in range(length):
                    evaluate(tree, sample, jax.random.key(0))

            return work
        chunk, state, sample = compiled_steps(workload._replace(length=length), params, tasks)

        def work() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(chunk(state, sample))

        return work

    return Contestant(measure, train)


def at_once(workload: Workload) -> int | None:
    """The number of tasks that an experiment would map together, or None for all."""
    images = workload.problem.network != "mlp"
    return 1 if images and jax.default_backend() == "cpu" else None


def lowered_steps(
    workload: Workload, params: Arrays, tasks: Any, mesh: Mesh | None
) -> tuple[Any, Any, Any]:
    """The chunk of a training workload, to be compiled, its initial state, and its sampler."""
    init, update = meta_update(
        learner_of(workload.problem),
        optax.adam(peers.OUTER_RATE),
        task_batch=workload.tasks,
        tasks_at_once=at_once(workload),
        mesh=mesh,
    )
    sample = sampler_of(tasks)
    state = jax.jit(init)(jax.random.key(0), sample)
    state = state._replace(meta_params=jax.device_put(tree_of(workload.problem, params)))
    state, sample = replicate((state, sample), mesh)
    steps = jax.jit(partial(chunk_of(update), length=workload.length), donate_argnums=0)
    return steps.lower(state, sample), state, sample


def compiled_steps(workload: Workload, params: Arrays, tasks: Any) -> tuple[Any, Any, Any]:
    """The compiled chunk of a training workload, its initial state, and its sampler."""
    lowered, state, sample = lowered_steps(workload, params, tasks, mesh_for(workload.tasks))
    return lowered.compile(), state, sample


def compilation(workload: Workload, params: Arrays, tasks: Any) -> dict[str, Any]:
    """Seconds to trace and compile jaxmeta's steps, with an empty and with a filled cache on disk,
    and the memory of the compiled steps in bytes."""
    if workload.problem.method == "evaluation":
        return dict.fromkeys(("compile_seconds", "cached_compile_seconds", "peak_memory_bytes"))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(names, (folder, 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        try:
            seconds = []
            for _ in ("empty", "full"):
                jax.clear_caches()
                start = time.perf_counter()
                compiled, *_ = compiled_steps(workload, params, tasks)
                seconds.append(time.perf_counter() - start)
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
    sizes = compiled.memory_analysis()
    total = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    total *= size_of(mesh_for(workload.tasks))  # the analysis is of one device
    return {
        "compile_seconds": seconds[0],
        "cached_compile_seconds": seconds[1],
        "peak_memory_bytes": total,
    }

"""The peers that jaxmeta is compared with, each written in its framework's fast, usual way.

`torch_loop`: PyTorch, a Python loop over tasks with `autograd.grad(create_graph=True)`, as in
learn2learn and higher. `torch_vmap`: PyTorch's `torch.func`, a `vmap` over tasks of nested
gradients. `torch_compile_loop` and `torch_compile_vmap`: `torch.compile` (Inductor) of one task's
gradients of `torch.func`, called in a loop, and of the `vmap` over all tasks. `plain_jax`: JAX
without this library's kernels, `lax.conv` under `vmap`.

Parameters are a list of arrays in one order for all: for every convolution its kernel
`[h, w, C, D]`, scale and shift; for every dense layer its matrix `[in, out]` and bias. A task is
`(support inputs, support targets, query inputs, query targets)`, images as `[N, H, W, C]`; a
batch of tasks has a leading task axis.
"""

# PyTorch is not a dependency; without it, its contestants are left out.
# pyright: reportMissingImports=false

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

Arrays = list[np.ndarray]
EPSILON = 1e-5  # for batch normalisation
OUTER_RATE = 1e-3  # learning rate of Adam


class Problem(NamedTuple):
    """The computation of all contestants.

    Attributes:
      network: `mlp`, `conv-pool` or `conv-stride`.
      method: `maml`, `first-order-maml`, `prototypical`, or `evaluation` (of MAML).
      steps: inner steps.
      rate: inner learning rate.
      ways: classes; 0 for regression.
      size, channels: height and width of images, and their channels.
      width: channels of every convolution.
    """

    network: str
    method: str
    steps: int
    rate: float
    ways: int
    size: int = 28
    channels: int = 1
    width: int = 64


class Contestant(NamedTuple):
    """An implementation of a problem.

    Attributes:
      measure: `measure(params, tasks) -> (loss, gradients)`, means over the tasks; for an
        evaluation, gradients are `[]`.
      train: `train(params, tasks, length) -> work`; `work()` takes `length` steps of Adam, each on
        all tasks (or evaluates them `length` times), and returns when they are done.
    """

    measure: Callable[[Arrays, Any], tuple[float, Arrays]]
    train: Callable[[Arrays, Any, int], Callable[[], None]]


# --- plain JAX ----------------------------------------------------------------------------


def plain_jax_means(problem: Problem) -> Callable[[Any, Any], Any]:
    """`means(params, tasks) -> (loss, gradients)`, traceable."""

    def convolution(inputs: Any, kernel: Any, stride: int) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        return lax.conv_general_dilated(inputs, kernel, strides, "SAME", dimension_numbers=layout)

    def normalise(x: Any, scale: Any, shift: Any) -> Any:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - mean[None, None, None]) * lax.rsqrt(variance + EPSILON)[None, None, None]
        return x * scale[None, None, None] + shift[None, None, None]

    def apply(params: Any, hidden: Any) -> Any:
        if problem.network == "mlp":
            for index in range(0, len(params) - 2, 2):
                hidden = jax.nn.relu(hidden @ params[index] + params[index + 1][None])
            return hidden @ params[-2] + params[-1][None]
        pool = problem.network == "conv-pool"
        for index in range(0, 12, 3):
            kernel, scale, shift = params[index : index + 3]
            hidden = convolution(hidden, kernel, 1 if pool else 2)
            hidden = jax.nn.relu(normalise(hidden, scale, shift))
            if pool:
                window = (1, 2, 2, 1)
                hidden = lax.reduce_window(hidden, -jnp.inf, lax.max, window, window, "VALID")
        hidden = hidden.reshape(len(hidden), -1) if pool else hidden.mean((1, 2))
        if problem.method == "prototypical":
            return hidden
        return hidden @ params[-2] + params[-1][None]

    def objective(outputs: Any, targets: Any) -> Any:
        if problem.ways:
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()
        return jnp.square(outputs - targets).mean()

    def loss(params: Any, task: Any) -> Any:
        support, labels, query, targets = task
        if problem.method == "prototypical":
            one_hot = jax.nn.one_hot(labels, problem.ways, dtype=support.dtype)
            prototypes = one_hot.T @ apply(params, support) / one_hot.sum(0)[:, None]
            embedded = apply(params, query)
            squares = jnp.square(embedded).sum(1)[:, None] + jnp.square(prototypes).sum(1)[None]
            return objective(2 * embedded @ prototypes.T - squares, targets)
        adapted = params
        for _ in range(problem.steps):
            grads = jax.grad(lambda p: objective(apply(p, support), labels))(adapted)
            if problem.method == "first-order-maml":
                grads = lax.stop_gradient(grads)
            adapted = [p - problem.rate * g for p, g in zip(adapted, grads, strict=True)]
        return objective(apply(adapted, query), targets)

    def means(params: Any, tasks: Any) -> Any:
        if problem.method == "evaluation":
            return jax.vmap(loss, (None, 0))(params, tasks).mean(), []
        each = jax.vmap(jax.value_and_grad(loss), (None, 0))(params, tasks)
        return jax.tree.map(lambda leaf: leaf.mean(0), each)

    return means


def plain_jax(problem: Problem) -> Contestant:
    """`lax.conv` and `reduce_window` under `vmap` over tasks, reverse over reverse."""
    means = plain_jax_means(problem)
    optimizer = optax.adam(OUTER_RATE)

    @jax.jit
    def steps(state: Any, tasks: Any, times: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            params, moments = state
            mean_loss, grads = means(params, tasks)
            if problem.method != "evaluation":
                updates, moments = optimizer.update(grads, moments, params)
                params = optax.apply_updates(params, updates)
            return (params, moments), mean_loss

        return lax.scan(step, state, times)

    def measure(params: Arrays, tasks: Any) -> tuple[float, Arrays]:
        mean_loss, grads = jax.jit(means)(params, tasks)
        return float(mean_loss), [np.asarray(grad) for grad in grads]

    def train(params: Arrays, tasks: Any, length: int) -> Callable[[], None]:
        start = [jnp.asarray(leaf) for leaf in params]
        state, tasks = (start, optimizer.init(start)), jax.device_put(tasks)

        def work() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(steps(state, tasks, jnp.arange(length)))

        return work

    return Contestant(measure, train)


def operations(problem: Problem, params: Arrays, tasks: Any) -> float:
    """Floating-point operations of the loss and gradients of all tasks.

    This is XLA's count for `plain_jax`, before any optimisation.
    """
    counted = jax.jit(plain_jax_means(problem)).lower(params, tasks).cost_analysis()
    return float("nan") if counted is None else counted["flops"]


# --- PyTorch ------------------------------------------------------------------------------


def _torch_apply(problem: Problem) -> Callable[..., Any]:
    """`apply(params, inputs)` with images `[N, C, H, W]` and kernels `[D, C, h, w]`."""
    import torch.nn.functional as F

    def apply(params: list[Any], hidden: Any) -> Any:
        if problem.network == "mlp":
            for index in range(0, len(params) - 2, 2):
                hidden = F.relu(hidden @ params[index] + params[index + 1])
            return hidden @ params[-2] + params[-1]
        pool = problem.network == "conv-pool"
        for index in range(0, 12, 3):
            kernel, scale, shift = params[index : index + 3]
            if not pool and hidden.shape[-1] % 2 == 0:  # `SAME` pads an even image at its end
                hidden = F.conv2d(F.pad(hidden, (0, 1, 0, 1)), kernel, stride=2)
            else:
                hidden = F.conv2d(hidden, kernel, stride=1 if pool else 2, padding=1)
            hidden = F.batch_norm(hidden, None, None, scale, shift, training=True, eps=EPSILON)
            hidden = F.relu(hidden)
            if pool:
                hidden = F.max_pool2d(hidden, 2)
        # Features in the order of `[H, W, C]`.
        hidden = hidden.permute(0, 2, 3, 1).flatten(1) if pool else hidden.mean(dim=(2, 3))
        return hidden if problem.method == "prototypical" else hidden @ params[-2] + params[-1]

    return apply


def _torch_loss(problem: Problem) -> Callable[..., Any]:
    """`loss(params, task, gradient)`; `gradient(function, params)` gives the inner gradient."""
    import torch
    import torch.nn.functional as F

    apply = _torch_apply(problem)

    def objective(outputs: Any, targets: Any) -> Any:
        return F.cross_entropy(outputs, targets) if problem.ways else F.mse_loss(outputs, targets)

    def loss(params: list[Any], task: Any, gradient: Callable[..., Any]) -> Any:
        support, labels, query, targets = task
        if problem.method == "prototypical":
            one_hot = torch.eye(problem.ways, dtype=support.dtype)[labels]
            prototypes = one_hot.T @ apply(params, support) / one_hot.sum(0)[:, None]
            embedded = apply(params, query)
            squares = embedded.square().sum(1)[:, None] + prototypes.square().sum(1)[None]
            return objective(2 * embedded @ prototypes.T - squares, targets)
        adapted = params
        for _ in range(problem.steps):
            grads = gradient(lambda p: objective(apply(p, support), labels), adapted)
            adapted = [p - problem.rate * g for p, g in zip(adapted, grads, strict=True)]
        return objective(apply(adapted, query), targets)

    return loss


def _torch_contestant(
    problem: Problem, means: Callable[..., Any], compiled: bool = False
) -> Contestant:
    """A contestant from `means(params, tasks) -> (loss, gradients)` of tensors.

    It uses the faster memory layout on this machine, channels first or channels last; compiled,
    Inductor chooses the layouts.
    """
    import torch

    def to_torch(array: np.ndarray, layout: Any) -> Any:
        tensor = torch.from_numpy(np.array(array, order="C"))
        if tensor.dtype == torch.int32:
            return tensor.long()
        if tensor.ndim == 5:  # images of a batch of tasks
            tensor = tensor.permute(0, 1, 4, 2, 3)  # without a copy, this is channels last
            return tensor if layout is torch.channels_last else tensor.contiguous()
        return tensor

    def weights(params: Arrays, layout: Any) -> list[Any]:
        tensors = []
        for array in params:
            tensor = torch.from_numpy(np.array(array))
            if tensor.ndim == 4:
                tensor = tensor.permute(3, 2, 0, 1).contiguous(memory_format=layout)
            tensors.append(tensor.requires_grad_())
        return tensors

    def measure(params: Arrays, tasks: Any) -> tuple[float, Arrays]:
        first = torch.contiguous_format
        mean_loss, grads = means(weights(params, first), [to_torch(x, first) for x in tasks])
        arrays = [g.permute(2, 3, 1, 0) if g.ndim == 4 else g for g in grads]
        return float(mean_loss), [array.detach().numpy() for array in arrays]

    def train(params: Arrays, tasks: Any, length: int) -> Callable[[], None]:
        def in_layout(layout: Any) -> Callable[[], None]:
            tensors, batch = weights(params, layout), [to_torch(x, layout) for x in tasks]
            optimizer = torch.optim.Adam(tensors, OUTER_RATE, fused=True)

            def work() -> None:
                for _ in range(length):
                    _, grads = means(tensors, batch)
                    if grads:
                        for tensor, grad in zip(tensors, grads, strict=True):
                            tensor.grad = grad.detach()
                        optimizer.step()

            return work

        candidates = [in_layout(torch.contiguous_format)]
        if problem.network != "mlp" and not compiled:
            candidates.append(in_layout(torch.channels_last))
        return min(candidates, key=_seconds) if len(candidates) > 1 else candidates[0]

    return Contestant(measure, train)


def _seconds(work: Callable[[], None]) -> float:
    work()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def torch_loop(problem: Problem, *, compiled: bool = False) -> Contestant:
    """PyTorch with a Python loop over tasks; compiled, of `torch.func` of one task."""
    import torch

    exact = problem.method == "maml"
    loss = _torch_loss(problem)

    def gradient(function: Callable[..., Any], params: list[Any]) -> Any:
        return torch.autograd.grad(function(params), params, create_graph=exact)

    def eager(params: list[Any], *task: Any) -> tuple[Any, Any]:
        if problem.method == "evaluation":
            adapted = [param.detach().requires_grad_() for param in params]
            return loss(adapted, task, gradient).detach(), ()
        value = loss(params, task, gradient)
        return value.detach(), torch.autograd.grad(value, params)

    one = torch.compile(_torch_func(problem)) if compiled else eager

    def means(params: list[Any], tasks: Any) -> Any:
        count, total_loss = len(tasks[0]), 0.0
        total = [torch.zeros_like(param) for param in params]
        given = [param.detach() for param in params] if compiled else params
        for task in zip(*tasks, strict=True):
            value, grads = one(given, *task)
            total_loss += value / count
            for mean, grad in zip(total, grads):  # an evaluation has no gradients
                mean += grad / count
        return total_loss, [] if problem.method == "evaluation" else total

    return _torch_contestant(problem, means, compiled)


def torch_vmap(problem: Problem, *, compiled: bool = False) -> Contestant:
    """PyTorch with `torch.func.vmap` over tasks."""
    import torch

    one = _torch_func(problem)

    def all_tasks(params: list[Any], *tasks: Any) -> Any:
        losses, grads = torch.func.vmap(one, (None, *(0,) * len(tasks)))(params, *tasks)
        return losses.mean(), [grad.mean(0) for grad in grads]

    each = torch.compile(all_tasks) if compiled else all_tasks

    def means(params: list[Any], tasks: Any) -> Any:
        return each([param.detach() for param in params], *tasks)

    return _torch_contestant(problem, means, compiled)


def _torch_func(problem: Problem) -> Callable[..., Any]:
    """`one(params, *task) -> (loss, gradients)` by `torch.func`; an evaluation has no gradients."""
    import torch

    loss = _torch_loss(problem)

    def gradient(function: Callable[..., Any], params: list[Any]) -> Any:
        grads = torch.func.grad(function)(params)
        first_order = problem.method == "first-order-maml"
        return [grad.detach() for grad in grads] if first_order else grads

    def of_one_task(params: list[Any], *task: Any) -> Any:
        return loss(params, task, gradient)

    def one(params: list[Any], *task: Any) -> tuple[Any, Any]:
        if problem.method == "evaluation":
            return of_one_task(params, *task), []
        grads, value = torch.func.grad_and_value(of_one_task)(params, *task)
        return value, grads

    return one

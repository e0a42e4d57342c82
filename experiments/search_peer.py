"""The search step of DARTS in PyTorch, written as its code does: a loop over edges, and autograd.

Parameters are those of `jaxmeta.models.supernet`, with images as `[N, H, W, C]`.
"""

# PyTorch is not a dependency; it is imported only where it is measured.
# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.architecture import CELL_EDGES


class Settings(NamedTuple):
    """The optimizers of a search step.

    Attributes:
      second_order: differentiate through the step of the weights.
      weight_rate, momentum, weight_decay, weight_clip: of SGD with Nesterov's momentum, for the
        weights.
      rate, decay: of Adam with β₁ = 0.5, for the architecture.
    """

    second_order: bool
    weight_rate: float = 0.025
    momentum: float = 0.9
    weight_decay: float = 5e-4
    weight_clip: float = 5.0
    rate: float = 3e-4
    decay: float = 1e-3


class Step(NamedTuple):
    """A search in PyTorch.

    Attributes:
      take: `take() -> loss`, a step of the architecture and one of the weights; the loss is that of
        the architecture before it.
      logits: `logits() -> array`, the architecture.
      weights: `weights() -> arrays` by their path.
    """

    take: Callable[[], float]
    logits: Callable[[], np.ndarray]
    weights: Callable[[], dict[str, np.ndarray]]


def _paths(tree: Mapping[str, Any], before: str = "") -> dict[str, np.ndarray]:
    found = {}
    for name, leaf in tree.items():
        path = f"{before}{name}"
        inner = isinstance(leaf, Mapping)
        found |= _paths(leaf, f"{path}/") if inner else {path: np.asarray(leaf)}
    return found


def _supernet(cells: int) -> Callable[[Mapping[str, Any], Any, Any], Any]:
    """`apply(weights, mixing, images)`, images `[N, C, H, W]` and kernels `[D, C, h, w]`."""
    import torch.nn.functional as F

    def normalised(x: Any) -> Any:
        return F.batch_norm(x, None, None, training=True, eps=1e-5)

    def reduction(w: Mapping[str, Any], name: str, x: Any) -> Any:
        halved = F.conv2d(F.pad(F.relu(x), (0, 1, 0, 1)), w[f"{name}/conv_0/kernel"], stride=2)
        inner = F.conv2d(F.relu(normalised(halved)), w[f"{name}/conv_1/kernel"], padding=1)
        shortcut = F.conv2d(F.avg_pool2d(x, 2), w[f"{name}/conv_shortcut/kernel"])
        return normalised(inner) + shortcut

    def mixed(w: Mapping[str, Any], edge: str, mixing: Any, x: Any) -> Any:
        of_1 = normalised(F.conv2d(F.relu(x), w[f"{edge}/conv_1"]))
        of_3 = normalised(F.conv2d(F.relu(x), w[f"{edge}/conv_3"], padding=1))
        mean = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return mixing[1] * x + mixing[2] * of_1 + mixing[3] * of_3 + mixing[4] * mean

    def apply(w: Mapping[str, Any], mixing: Any, x: Any) -> Any:
        x = normalised(F.conv2d(x, w["stem/kernel"], padding=1))
        for stage in range(3):
            x = reduction(w, f"reduction_{stage}", x) if stage else x
            for cell in range(cells):
                nodes = {0: x}
                for index, (to, start) in enumerate(CELL_EDGES):
                    edge = f"cell_{stage}_{cell}/edge_{to}_{start}"
                    added = mixed(w, edge, mixing[index], nodes[start])
                    nodes[to] = nodes[to] + added if to in nodes else added
                x = nodes[3]
        features = F.relu(normalised(x)).mean(dim=(2, 3))
        return features @ w["head/kernel"] + w["head/bias"]

    return apply


def torch_search(
    weights: Mapping[str, Any], logits: np.ndarray, task: Any, cells: int, settings: Settings
) -> Step:
    """A search whose every step sees the same task.

    Args:
      weights: those of the supernet, a tree of arrays without `architecture`.
      logits: of the architecture, `[6, 5]`.
      task: a `jaxmeta.Task`; the support trains the weights, the query the architecture.
      cells: cells per stage.
      settings: the optimizers.
    """
    import torch
    import torch.nn.functional as F

    def tensor(array: np.ndarray) -> Any:
        made = torch.from_numpy(np.array(array))
        made = made.permute(3, 2, 0, 1).contiguous() if made.ndim == 4 else made
        return made.requires_grad_()

    def batch(given: Any) -> tuple[Any, Any]:
        images = torch.from_numpy(np.array(given.inputs)).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(np.array(given.targets)).long()

    w = {path: tensor(array) for path, array in _paths(weights).items()}
    alpha, apply = tensor(logits), _supernet(cells)
    support, query = batch(task.support), batch(task.query)
    of_weights = torch.optim.SGD(
        w.values(),
        settings.weight_rate,
        settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )
    of_logits = torch.optim.Adam(
        [alpha], settings.rate, betas=(0.5, 0.999), weight_decay=settings.decay
    )

    def loss(w: Mapping[str, Any], given: tuple[Any, Any]) -> Any:
        images, targets = given
        return F.cross_entropy(apply(w, torch.softmax(alpha, dim=-1), images), targets)

    def stepped() -> dict[str, Any]:
        """The weights after a step of their optimizer, as a function of the architecture."""
        grads = torch.autograd.grad(loss(w, support), [*w.values()], create_graph=True)
        norm = torch.stack([grad.square().sum() for grad in grads]).sum().sqrt()
        factor = torch.clamp(settings.weight_clip / norm, max=1.0)
        after = {}
        for (path, own), grad in zip(w.items(), grads, strict=True):
            slope = factor * grad + settings.weight_decay * own.detach()
            moving = of_weights.state[own].get("momentum_buffer")
            trace = slope if moving is None else settings.momentum * moving + slope
            change = slope + settings.momentum * trace
            after[path] = own.detach() - settings.weight_rate * change
        return after

    def take() -> float:
        adapted = stepped() if settings.second_order else w
        value = loss(adapted, query)
        (alpha.grad,) = torch.autograd.grad(value, [alpha])
        of_logits.step()
        grads = torch.autograd.grad(loss(w, support), [*w.values()])
        for own, grad in zip(w.values(), grads, strict=True):
            own.grad = grad
        torch.nn.utils.clip_grad_norm_(w.values(), settings.weight_clip)
        of_weights.step()
        return float(value.detach())

    def arrays() -> dict[str, np.ndarray]:
        found = {}
        for path, own in w.items():
            own = own.detach()
            found[path] = (own.permute(2, 3, 1, 0) if own.ndim == 4 else own).numpy().copy()
        return found

    return Step(take, lambda: alpha.detach().numpy().copy(), arrays)

"""PyTorch's side of `experiments.text_speed`: a BERT in its fast, usual way.

Functions of dictionaries of tensors with PyTorch's fused kernels for attention, layer norm and
GELU; the same network from transformers; and a step of first-order MAML on the last layers.
"""

# PyTorch and transformers are not dependencies; without them, their contestants are left out.
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmeta.text import BertConfig

Tree = Any
Forward = Callable[[Any, Any], Any]
"""`forward(ids, mask) -> mean states [N, D]`, all tensors."""


def tensors(tree: Tree) -> Tree:
    """The arrays of nested dictionaries as tensors; matrices `[out, in]`, as PyTorch keeps them."""
    import torch

    if isinstance(tree, dict):
        return {
            name: tensors(np.ascontiguousarray(own.T) if name == "kernel" else own)
            for name, own in tree.items()
        }
    return torch.from_numpy(np.array(tree))


def _linear(params: Tree, values: Any) -> Any:
    import torch.nn.functional as F

    return F.linear(values, params["kernel"], params["bias"])


def _norm(config: BertConfig, params: Tree, values: Any) -> Any:
    import torch.nn.functional as F

    return F.layer_norm(
        values, (config.width,), params["scale"], params["bias"], eps=config.epsilon
    )


def layer(config: BertConfig, params: Tree, states: Any, mask: Any) -> Any:
    """One layer; states `[N, L, D]`, mask bool `[N, L]`."""
    import torch.nn.functional as F

    count, length, width = states.shape
    split = (count, length, config.heads, width // config.heads)
    query, key, value = (
        _linear(params[name], states).view(split).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
    read = read.transpose(1, 2).reshape(count, length, width)
    states = _norm(config, params["norm_0"], states + _linear(params["mixed"], read))
    output = _linear(params["output"], F.gelu(_linear(params["hidden"], states)))
    return _norm(config, params["norm_1"], states + output)


def pooled(states: Any, mask: Any) -> Any:
    """The mean of the valid tokens' states, `[N, D]`."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def plain_forward(config: BertConfig, weights: Tree) -> Forward:
    """The whole network in PyTorch."""
    weights = tensors(weights)
    tables = weights["embeddings"]

    def forward(ids: Any, mask: Any) -> Any:
        positions = tables["position"]["embedding"][: ids.shape[1]]
        states = tables["word"]["embedding"][ids] + positions + tables["type"]["embedding"][0]
        states = _norm(config, tables["norm"], states)
        for params in weights["layers"].values():
            states = layer(config, params, states, mask)
        return pooled(states, mask)

    return forward


def transformers_forward(folder: str) -> Forward:
    """The network of the package transformers."""
    import transformers

    transformers.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(folder).eval()

    def forward(ids: Any, mask: Any) -> Any:
        return pooled(model(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)

    return forward


def leaves(tree: Tree) -> list[Any]:
    """The tensors of nested dictionaries, in the order of their names."""
    if isinstance(tree, dict):
        return [leaf for name in sorted(tree) for leaf in leaves(tree[name])]
    return [tree]


def _rebuilt(tree: Tree, found: Any) -> Tree:
    if isinstance(tree, dict):
        return {name: _rebuilt(tree[name], found) for name in sorted(tree)}
    return next(found)


def first_order_maml(
    config: BertConfig, params: Tree, *, steps: int, inner_rate: float, compiled: bool = False
) -> Callable[[Any], tuple[Any, list[Any]]]:
    """`gradients(task) -> (loss, gradients)` of first-order MAML on `{"layers", "head"}`.

    A task is `(states, mask, targets)` of the support and of the query.
    """
    import torch
    import torch.nn.functional as F

    form = params

    def loss_of(given: list[Any], states: Any, mask: Any, targets: Any) -> Any:
        own = _rebuilt(form, iter(given))
        for name in sorted(own["layers"], key=int):
            states = layer(config, own["layers"][name], states, mask)
        return F.cross_entropy(_linear(own["head"], pooled(states, mask)), targets)

    loss = torch.compile(loss_of) if compiled else loss_of

    def gradients(given: list[Any], task: Any) -> tuple[Any, list[Any]]:
        support, query = task
        adapted = given
        for _ in range(steps):
            grads = torch.autograd.grad(loss(adapted, *support), adapted)
            adapted = [
                (p.detach() - inner_rate * g).requires_grad_() for p, g in zip(adapted, grads)
            ]
        value = loss(adapted, *query)
        return value.detach(), list(torch.autograd.grad(value, adapted))

    given = [leaf.requires_grad_() for leaf in leaves(params)]
    optimizer = torch.optim.Adam(given, 1e-5)

    def step(task: Any) -> tuple[Any, list[Any]]:
        value, grads = gradients(given, task)
        for tensor, grad in zip(given, grads):
            tensor.grad = grad
        optimizer.step()
        return value, grads

    return step

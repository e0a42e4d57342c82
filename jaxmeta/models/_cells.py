"""Networks of cells: NAS-Bench-201's, with all operations on every edge or with one of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxmeta.architecture import CELL_EDGES as EDGES
from jaxmeta.architecture import CELL_OPERATIONS as OPERATIONS
from jaxmeta.core import Array, Key, Model, PyTree
from jaxmeta.models.adapters import from_linen
from jaxmeta.models.layers import Convolution, check_image_size
from jaxmeta.ops import average_pool, convolve, mean_filter, standardise

ARCHITECTURE = "architecture"
"""The name of the mixing weights among the parameters of a `supernet`."""
_EXAMPLE_AXES = (0, 1, 2)


def _normalised(values: Array) -> Array:
    return standardise(values, _EXAMPLE_AXES)


class _Kernels(nn.Module):
    """The kernels of the convolutions of one edge, by the size of their windows."""

    width: int
    windows: tuple[int, ...]

    @nn.compact
    def __call__(self) -> dict[int, Array]:
        start = nn.initializers.he_normal()
        shape = (self.width, self.width)
        return {
            window: self.param(f"conv_{window}", start, (window, window, *shape))
            for window in self.windows
        }


def _convolved(values: Array, kernel: Array) -> Array:
    """ReLU, convolution and standardisation."""
    return _normalised(convolve(nn.relu(values), kernel))


def _operations(kernels: Mapping[int, Array]) -> dict[str, Callable[[Array], Array]]:
    """`OPERATIONS` by name."""
    return {
        "none": jnp.zeros_like,
        "skip_connect": lambda values: values,
        "nor_conv_1x1": lambda values: _convolved(values, kernels[1]),
        "nor_conv_3x3": lambda values: _convolved(values, kernels[3]),
        "avg_pool_3x3": lambda values: mean_filter(values, 3),
    }


_WINDOWS = {"nor_conv_1x1": (1,), "nor_conv_3x3": (3,)}


class _Cell(nn.Module):
    """Four nodes; every node is the sum over its incoming edges.

    With `chosen` the cell has one operation on every edge, without it all of them.
    """

    width: int
    chosen: tuple[int, ...] | None
    sampled: bool

    @nn.compact
    def __call__(self, values: Array, mixing: Array | None) -> Array:
        nodes = [values, *[jnp.zeros_like(values)] * 3]
        for start in range(3):
            edges = [index for index, edge in enumerate(EDGES) if edge[1] == start]
            for index, added in zip(edges, self._edges(edges, mixing, nodes[start])):
                nodes[EDGES[index][0]] += added
        return nodes[-1]

    def _edges(self, edges: list[int], mixing: Array | None, values: Array) -> list[Array]:
        """The values of all edges that start at one node."""
        if mixing is None:
            return [self._chosen(index, values) for index in edges]
        kernels = [self._kernels(index, (1, 3)) for index in edges]
        if self.sampled:
            return [_largest(mixing[index], own, values) for index, own in zip(edges, kernels)]
        # The edges share their input, so that one convolution of each size serves all of them.
        weights = mixing[jnp.array(edges)]
        joint = _repeated(values, weights[:, 1]) + _repeated(mean_filter(values, 3), weights[:, 4])
        for window, operation in ((1, 2), (3, 3)):
            kernel = jnp.concatenate([own[window] for own in kernels], axis=-1)
            scales = jnp.repeat(weights[:, operation], self.width)
            joint += scales[None, None, None] * _convolved(values, kernel)
        return _parted(joint, len(edges))

    def _chosen(self, index: int, values: Array) -> Array:
        assert self.chosen is not None
        name = OPERATIONS[self.chosen[index]]
        windows = _WINDOWS.get(name, ())
        kernels = self._kernels(index, windows) if windows else {}
        return _operations(kernels)[name](values)

    def _kernels(self, index: int, windows: tuple[int, ...]) -> dict[int, Array]:
        to, start = EDGES[index]
        return _Kernels(self.width, windows, name=f"edge_{to}_{start}")()


def _largest(weights: Array, kernels: Mapping[int, Array], values: Array) -> Array:
    """The operation with the largest weight, times its weight; no other is computed."""
    operations = _operations(kernels)
    largest = weights.argmax()
    branches = [operations[name] for name in OPERATIONS]
    return weights[largest] * jax.lax.switch(largest, branches, values)


def _repeated(values: Array, weights: Array) -> Array:
    """The values times each of the weights, side by side: `[N, H, W, E·C]`."""
    channels = values.shape[-1]
    matrix = weights[None, :, None] * jnp.eye(channels, dtype=values.dtype)[:, None]
    return _product(values, matrix.reshape(channels, -1))


def _parted(values: Array, count: int) -> list[Array]:
    """`jnp.split` along the last axis, as products.

    The transpose of a split is a concatenation, and XLA computes on a CPU what it concatenates
    entry by entry: a step of the search took twice as long.
    """
    if count == 1:
        return [values]
    places = jnp.eye(values.shape[-1], dtype=values.dtype)
    return [_product(values, columns) for columns in jnp.split(places, count, axis=1)]


def _product(values: Array, matrix: Array) -> Array:
    return jnp.matmul(values, matrix, precision=jax.lax.Precision.HIGHEST)


class _Reduction(nn.Module):
    """A residual block that halves the size of the images and doubles the channels."""

    width: int

    @nn.compact
    def __call__(self, values: Array) -> Array:
        inner = Convolution(self.width, stride=2, name="conv_0")(nn.relu(values))
        inner = Convolution(self.width, name="conv_1")(nn.relu(_normalised(inner)))
        shortcut = Convolution(self.width, window=1, name="conv_shortcut")(average_pool(values))
        return _normalised(inner) + shortcut


class _Cells(nn.Module):
    outputs: int | None
    width: int
    cells: int
    chosen: tuple[int, ...] | None
    sampled: bool

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        check_image_size("a network of cells", inputs, 4)
        if any(side % 4 for side in inputs.shape[1:3]):
            raise ValueError(
                f"a network of cells: images of {inputs.shape[1]}×{inputs.shape[2]} are halved "
                "twice; give a height and width that 4 divides."
            )
        mixing = None
        if self.chosen is None:
            start: Any = lambda key, shape: jnp.full(shape, 1 / shape[1])  # noqa: E731
            mixing = self.param(ARCHITECTURE, start, (len(EDGES), len(OPERATIONS)))
        values = _normalised(Convolution(self.width, name="stem")(inputs))
        for stage in range(3):
            width = self.width * 2**stage
            if stage:
                values = _Reduction(width, name=f"reduction_{stage}")(values)
            for index in range(self.cells):
                cell = _Cell(width, self.chosen, self.sampled, name=f"cell_{stage}_{index}")
                values = cell(values, mixing)
        features = nn.relu(_normalised(values)).mean(axis=(1, 2))
        return features if self.outputs is None else nn.Dense(self.outputs, name="head")(features)


def supernet(
    outputs: int | None = None, *, width: int = 16, cells: int = 5, sampled: bool = False
) -> Model:
    """A network of all cells of NAS-Bench-201: the edges are weighted sums of five operations.

        node_j = Σ_{i < j} Σ_o m[(j, i), o] · o(node_i),  o one of `OPERATIONS`

    A convolution is preceded by a ReLU and followed by a standardisation over the examples, without
    a learned scale and shift. Three stages of cells are separated by residual blocks that halve the
    size of the images. The first layer is a 3×3 convolution; the last ones are a mean over space
    and a linear head.

    The parameter `architecture` holds the mixing weights m, float `[6, 5]`, 1/5 before training;
    `relaxed` and `jaxmeta.learners.darts` compute them from logits.

    Args:
      outputs: width of the head; with None the model embeds images as `4 · width` features.
      width: channels of the first stage, 16 as published; they double from stage to stage.
      cells: cells per stage, 5 as published.
      sampled: compute only the operation with the largest weight of each edge, times its weight.
        Under a `vmap` of the weights, all are computed.

    Shapes: images float `[N, H, W, C]`, H and W multiples of 4, to `[N, outputs]`.

    Raises:
      ValueError: a width or number of cells below 1; images whose sides 4 does not divide.

    Source: Dong, Yang 2020, "NAS-Bench-201: extending the scope of reproducible neural architecture
    search", section 2.

    >>> model = supernet(10, width=4, cells=1)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> params["architecture"].shape
    (6, 5)
    """
    _check_sizes("supernet", width, cells)
    return from_linen(_Cells(outputs, width, cells, None, sampled))


def cell_network(
    architecture: Sequence[int], outputs: int | None = None, *, width: int = 16, cells: int = 5
) -> Model:
    """The network of one cell of NAS-Bench-201: `supernet` with one operation on every edge.

    Args:
      architecture: the operation of each of the six edges, an index of `OPERATIONS`.
      outputs, width, cells: as in `supernet`.

    Raises:
      ValueError: `architecture` is not six indices of operations; as `supernet`.

    Source: as `supernet`.

    >>> model = cell_network([1, 3, 3, 1, 0, 2], 10, width=4, cells=1)
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> sorted(params["cell_0_0"])
    ['edge_2_0', 'edge_2_1', 'edge_3_2']
    """
    _check_sizes("cell_network", width, cells)
    chosen = np.asarray(architecture)
    fitting = chosen.shape == (len(EDGES),) and chosen.dtype.kind in "iu"
    if not fitting or not ((chosen >= 0) & (chosen < len(OPERATIONS))).all():
        raise ValueError(
            f"cell_network: architecture {architecture}; give {len(EDGES)} operations, each from 0 "
            f"to {len(OPERATIONS) - 1} ({', '.join(OPERATIONS)})."
        )
    return from_linen(_Cells(outputs, width, cells, tuple(map(int, chosen)), sampled=False))


def relaxed(model: Model) -> Model:
    """A supernet whose parameter `architecture` holds logits: the mixing weights are their softmax.

        m = softmax(α) over the operations of each edge

    The logits start from N(0, 0.001²), as in DARTS. With it `jaxmeta.maml` learns an architecture
    beside the initial weights; only the weights adapt if `adapts=excluding("architecture")`.

    Source: Liu, Simonyan, Yang 2019, "DARTS: differentiable architecture search", equation 2.

    >>> model = relaxed(supernet(5, width=2, cells=1))
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    >>> model.apply(params, jnp.ones((3, 8, 8, 1))).shape
    (3, 5)
    """

    def init(key: Key, inputs: PyTree, /) -> PyTree:
        logits_key, key = jax.random.split(key)
        params = model.init(key, inputs)
        shape = params[ARCHITECTURE].shape
        return {**params, ARCHITECTURE: 1e-3 * jax.random.normal(logits_key, shape)}

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree:
        mixing = jax.nn.softmax(params[ARCHITECTURE])
        return model.apply({**params, ARCHITECTURE: mixing}, inputs, reference=reference, key=key)

    return Model(init, apply)


def _check_sizes(name: str, width: int, cells: int) -> None:
    if width < 1 or cells < 1:
        raise ValueError(f"{name}: width {width}, {cells} cells; give at least 1 of each.")

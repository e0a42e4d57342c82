"""Modules of other libraries as `Model` pairs."""

import inspect
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from jaxmeta.core import Key, Model, PyTree


def from_linen(module: nn.Module) -> Model:
    """A Flax Linen module as a `Model`.

    The module is called as `module(inputs)`, with `reference=` if its `__call__` has this
    argument, and with the key as the `dropout` stream if a key is given.

    Raises:
      ValueError: at `init`, if the module has state besides its parameters, such as running
        statistics, which inner loops don't support.

    >>> import jax, jax.numpy as jnp
    >>> model = from_linen(nn.Dense(3))
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> model.apply(params, jnp.ones((5, 2))).shape
    (5, 3)
    """
    takes_reference = "reference" in inspect.signature(type(module).__call__).parameters

    def init(key: Key, inputs: PyTree, /) -> PyTree:
        variables = dict(module.init(key, inputs))
        params = variables.pop("params", {})
        if variables:
            raise ValueError(
                f"{type(module).__name__} keeps {', '.join(sorted(variables))} besides its "
                "parameters. State hidden from the inner loop makes results wrong: use "
                "jaxmeta.models.Normalisation, or layer or group norm, instead."
            )
        return params

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree:
        extra = {"reference": reference} if takes_reference else {}
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, inputs, rngs=rngs, **extra)

    return Model(init, apply)


def from_nnx(build: Callable[[Any], Any]) -> Model:
    """A Flax NNX module as a `Model`; `build(rngs) -> module` makes it from `nnx.Rngs`.

    Raises:
      ValueError: the module has variables that are not `nnx.Param` (running statistics, dropout
        streams), which would be silently frozen.

    >>> import jax, jax.numpy as jnp
    >>> from flax import nnx
    >>> model = from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params = model.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> model.apply(params, jnp.ones((5, 2))).shape
    (5, 3)
    """
    from flax import nnx

    def split(key: Key) -> tuple[Any, PyTree]:
        graph, params, rest = nnx.split(build(nnx.Rngs(key)), nnx.Param, ...)
        others = {str(".".join(map(str, path))) for path, _ in nnx.to_flat_state(rest)}
        if others:
            raise ValueError(
                f"the NNX module has state that is not a parameter: {', '.join(sorted(others))}. "
                "Use layers without running statistics or random streams."
            )
        return graph, nnx.to_pure_dict(params)

    def init(key: Key, inputs: PyTree, /) -> PyTree:
        return split(key)[1]

    def apply(
        params: PyTree, inputs: PyTree, /, *, reference: PyTree = None, key: Key | None = None
    ) -> PyTree:
        template = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        graph, state = nnx.split(template)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)(inputs)

    return Model(init, apply)


def on_features() -> Model:
    """A model without parameters for inputs that are features already; it flattens them.

    >>> import jax.numpy as jnp
    >>> on_features().apply((), jnp.ones((3, 1, 1, 4))).shape
    (3, 4)
    """
    return Model(
        lambda key, inputs: (),
        lambda params, inputs, *, reference=None, key=None: inputs.reshape(len(inputs), -1),
    )

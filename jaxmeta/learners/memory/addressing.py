"""Memory addressing: the equations of neural Turing machines and their successors.

A memory is float `[N, W]`, N rows (slots) of W numbers. A weighting is `[N]`, not negative, with a
sum of at most 1 (more in a write of `mann`). Those of several heads are stacked, `[H, N]`.
"""

import chex
import jax
import jax.numpy as jnp

from jaxmeta.core import Array

_SMALL = 1e-6


def by_content(memory_NW: Array, key_W: Array, strength: Array) -> Array:
    """A weighting by the similarity of each row to the key.

        w_i = softmax_i β cos(k, M_i)

    Source: Graves, Wayne, Danihelka 2014, "Neural Turing machines", equations 5 and 6.

    >>> by_content(jnp.eye(2), jnp.array([1.0, 0.0]), jnp.asarray(100.0)).tolist()
    [1.0, 0.0]
    """
    chex.assert_rank([memory_NW, key_W, strength], [2, 1, 0])
    return jax.nn.softmax(strength * cosine(memory_NW, key_W))


def cosine(memory_NW: Array, key_W: Array) -> Array:
    """The cosine similarity of each row and the key, `[N]`; 0 if one of them is 0.

    >>> cosine(jnp.array([[2.0, 0.0], [0.0, 0.0]]), jnp.array([1.0, 0.0])).round(3).tolist()
    [1.0, 0.0]
    """
    chex.assert_rank(memory_NW, 2)
    chex.assert_shape(key_W, memory_NW.shape[1:])
    squares_N = jnp.square(memory_NW).sum(axis=1) * jnp.square(key_W).sum()
    return memory_NW @ key_W * jax.lax.rsqrt(squares_N + _SMALL**2)


def interpolated(weights_N: Array, before_N: Array, gate: Array) -> Array:
    """Interpolation between this weighting and the previous one.

        w' = g w + (1 − g) w_{t−1}

    Source: Graves et al. 2014, equation 7.

    >>> interpolated(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), jnp.asarray(0.25)).tolist()
    [0.25, 0.75]
    """
    chex.assert_rank([weights_N, before_N, gate], [1, 1, 0])
    chex.assert_equal_shape([weights_N, before_N])
    return gate * weights_N + (1 - gate) * before_N


def shifted(weights_N: Array, shifts_S: Array) -> Array:
    """The weighting shifted along the rows by a circular convolution.

        w'_i = Σ_j s_j w_{i−j},  j from −(S − 1)/2 to (S − 1)/2

    Source: Graves et al. 2014, equation 8.

    >>> shifted(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 0.25, 0.75])).tolist()
    [0.25, 0.75, 0.0]
    """
    chex.assert_rank([weights_N, shifts_S], 1)
    reach = shifts_S.shape[0] // 2
    moved = [jnp.roll(weights_N, step) for step in range(-reach, reach + 1)]
    return shifts_S @ jnp.stack(moved)


def sharpened(weights_N: Array, exponent: Array) -> Array:
    """The weighting, sharpened by an exponent.

        w'_i = w_i^γ / Σ_j w_j^γ,  γ ≥ 1

    Source: Graves et al. 2014, equation 9.

    >>> [f"{weight:.2f}" for weight in sharpened(jnp.array([0.75, 0.25]), jnp.asarray(2.0))]
    ['0.90', '0.10']
    """
    chex.assert_rank([weights_N, exponent], [1, 0])
    # In logarithms, so that a weight of 0 has a finite derivative.
    return jax.nn.softmax(exponent * jnp.log(weights_N + _SMALL))


def written(memory_NW: Array, weights_HN: Array, erase_HW: Array, add_HW: Array) -> Array:
    """The memory after a write: all heads erase, then all add, so that their order does not matter.

        M'_i = M_i ∘ ∏_h (1 − w_hi e_h) + Σ_h w_hi a_h

    Source: Graves et al. 2014, equations 3 and 4.

    >>> first = jnp.array([[1.0, 0.0]])
    >>> written(jnp.ones((2, 1)), first, jnp.array([[1.0]]), jnp.array([[5.0]])).tolist()
    [[5.0], [1.0]]
    """
    chex.assert_rank([memory_NW, weights_HN, erase_HW, add_HW], 2)
    chex.assert_equal_shape([erase_HW, add_HW])
    kept_HNW = 1 - weights_HN[:, :, None] * erase_HW[:, None]
    return memory_NW * kept_HNW.prod(axis=0) + weights_HN.T @ add_HW


# --- the differentiable neural computer ---------------------------------------------------


def usage(before_N: Array, written_N: Array, read_HN: Array, free_H: Array) -> Array:
    """The degree of use of each row.

        u_t = (u_{t−1} + w − u_{t−1} ∘ w) ∘ ∏_h (1 − f_h r_h)

    with w and r_h the write and read weightings of the previous step, f_h the free gates.

    Source: Graves et al. 2016, "Hybrid computing using a neural network with dynamic external
    memory", Methods, dynamic memory allocation.

    >>> free = usage(jnp.array([0.5, 0.0]), jnp.array([0.5, 0.0]), jnp.eye(2)[:1], jnp.ones(1))
    >>> free.tolist()
    [0.0, 0.0]
    """
    chex.assert_rank([before_N, written_N, read_HN, free_H], [1, 1, 2, 1])
    chex.assert_equal_shape([before_N, written_N])
    retained_N = (1 - free_H[:, None] * read_HN).prod(axis=0)
    return (before_N + written_N - before_N * written_N) * retained_N


def allocation(usage_N: Array) -> Array:
    """A weighting of the least used rows.

        a_{φ_j} = (1 − u_{φ_j}) ∏_{i<j} u_{φ_i},  φ: rows by increasing usage

    Source: Graves et al. 2016, Methods, equation 1.

    >>> allocation(jnp.array([0.5, 0.0, 1.0])).round(3).tolist()
    [0.0, 1.0, 0.0]
    """
    chex.assert_rank(usage_N, 1)
    # Usage of exactly 0 would stop the gradient through the product.
    usage_N = _SMALL + (1 - _SMALL) * usage_N
    order = jnp.argsort(usage_N)
    sorted_N = usage_N[order]
    before_N = jnp.concatenate([jnp.ones((1,), usage_N.dtype), jnp.cumprod(sorted_N)[:-1]])
    return jnp.zeros_like(usage_N).at[order].set((1 - sorted_N) * before_N)


def linked(links_NN: Array, precedence_N: Array, weights_N: Array) -> tuple[Array, Array]:
    """The temporal links and the precedence after a write: the order in which rows were written.

        L'_ij = (1 − w_i − w_j) L_ij + w_i p_j,  L'_ii = 0
        p' = (1 − Σ_i w_i) p + w

    Source: Graves et al. 2016, Methods, temporal memory linkage.

    >>> links, precedence = linked(jnp.zeros((2, 2)), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    >>> links.tolist(), precedence.tolist()
    ([[0.0, 0.0], [1.0, 0.0]], [0.0, 1.0])
    """
    chex.assert_rank([links_NN, precedence_N, weights_N], [2, 1, 1])
    chex.assert_equal_shape([precedence_N, weights_N])
    kept_NN = (1 - weights_N[:, None] - weights_N[None]) * links_NN
    links_NN = kept_NN + weights_N[:, None] * precedence_N[None]
    links_NN = links_NN * (1 - jnp.eye(weights_N.shape[0], dtype=links_NN.dtype))
    return links_NN, (1 - weights_N.sum()) * precedence_N + weights_N


# --- least recently used access -----------------------------------------------------------


def least_used(usage_N: Array, count: int) -> Array:
    """1 for the `count` least used rows, 0 for the others; the first rows in case of ties.

    Source: Santoro, Bartunov, Botvinick, Wierstra, Lillicrap 2016, "Meta-learning with
    memory-augmented neural networks", equation 6.

    >>> least_used(jnp.array([0.5, 0.1, 0.1, 0.0]), 2).tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    chex.assert_rank(usage_N, 1)
    # The choice of rows has no gradient. Sorting all of them would take a sixth of MANN's update.
    _, chosen = jax.lax.top_k(-jax.lax.stop_gradient(usage_N), count)
    return jnp.zeros_like(usage_N).at[chosen].set(1.0)

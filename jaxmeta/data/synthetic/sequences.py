"""Sequences that require a memory: copy, repeat copy, associative recall, priority sort.

Each sampler is `sample(key) -> Task`, pure, for `jit` and `vmap`. The support is empty; the query
is one sequence of fixed shape, with a mask that is True at the steps whose output counts. The
actual length differs from task to task, and the rest is zero.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data.samplers import Sampler, sampler


def copy(*, bits: int = 8, lengths: tuple[int, int] = (1, 20)) -> Sampler:
    """Copy: reproduce a sequence of random bits after its end.

        inputs:   start, v_1 … v_L, end, 0 … 0            channels: bits, start, end
        targets:                         v_1 … v_L

    Args:
      bits: bits of each vector.
      lengths: smallest and largest L, drawn uniformly.

    Shapes: inputs float32 `[2 L_max + 2, bits + 2]`, targets `[2 L_max + 2, bits]`.

    Raises:
      ValueError: a number is below 1; a range is in the wrong order.

    Source: Graves, Wayne, Danihelka 2014, "Neural Turing machines", section 4.1.

    >>> query = copy(bits=2, lengths=(1, 2))(jax.random.key(0)).query
    >>> query.inputs.shape, query.targets.shape, query.mask.shape
    ((6, 4), (6, 2), (6,))
    """
    _check("copy", bits=bits, lengths=lengths)
    return sampler(_copy, bits=bits, lengths=lengths)


def _copy(key: Key, *, bits: int, lengths: tuple[int, int]) -> Task:
    length_key, bits_key = jax.random.split(key)
    longest = lengths[1]
    length = _length(length_key, lengths)
    vectors_LB = _vectors(bits_key, longest, bits, length)
    steps = jnp.arange(2 * longest + 2)
    shown_TB = _placed(vectors_LB, 1, length, steps)
    flags_T2 = jnp.stack([steps == 0, steps == length + 1], axis=1)
    inputs = jnp.concatenate([shown_TB, flags_T2.astype(shown_TB.dtype)], axis=1)
    judged_T = (steps >= length + 2) & (steps < 2 * length + 2)
    return Task((), Batch(inputs, _placed(vectors_LB, length + 2, length, steps), judged_T))


def repeat_copy(
    *,
    bits: int = 8,
    lengths: tuple[int, int] = (1, 10),
    repeats: tuple[int, int] = (1, 10),
    scaled_to: tuple[int, int] | None = None,
) -> Sampler:
    """Repeat copy: reproduce a sequence of random bits several times, then an end marker.

        inputs:   start, v_1 … v_L, n, 0 … 0                       channels: bits, start, n
        targets:                       (v_1 … v_L) R times, end    channels: bits, end

    The number n is R, scaled to a standard deviation of about 1.

    Args:
      bits: bits of each vector.
      lengths: smallest and largest L, drawn uniformly.
      repeats: smallest and largest R, drawn uniformly.
      scaled_to: the range of R in training, by which n is scaled. Defaults to `repeats`.

    Shapes: inputs float32 `[L (R + 1) + 3, bits + 2]` with the largest L and R, targets
    `[…, bits + 1]`.

    Raises:
      ValueError: a number is below 1; a range is in the wrong order.

    Source: Graves et al. 2014, section 4.2.

    >>> query = repeat_copy(bits=2, lengths=(1, 2), repeats=(1, 3))(jax.random.key(0)).query
    >>> query.inputs.shape, query.targets.shape
    ((11, 4), (11, 3))
    """
    scaled_to = repeats if scaled_to is None else scaled_to
    _check("repeat_copy", bits=bits, lengths=lengths, repeats=repeats, scaled_to=scaled_to)
    return sampler(_repeat_copy, bits=bits, lengths=lengths, repeats=repeats, scaled_to=scaled_to)


def _repeat_copy(
    key: Key,
    *,
    bits: int,
    lengths: tuple[int, int],
    repeats: tuple[int, int],
    scaled_to: tuple[int, int],
) -> Task:
    length_key, repeats_key, bits_key = jax.random.split(key, 3)
    length, count = _length(length_key, lengths), _length(repeats_key, repeats)
    vectors_LB = _vectors(bits_key, lengths[1], bits, length)
    steps = jnp.arange(lengths[1] * (repeats[1] + 1) + 3)
    shown_TB = _placed(vectors_LB, 1, length, steps)
    low, high = scaled_to
    middle, spread = (low + high) / 2, (high - low) / 12**0.5
    number = (count - middle) / max(spread, 1.0)
    flags_T2 = jnp.stack([steps == 0, jnp.where(steps == length + 1, number, 0.0)], axis=1)
    inputs = jnp.concatenate([shown_TB, flags_T2.astype(shown_TB.dtype)], axis=1)

    first, end = length + 2, length + 2 + length * count
    judged_T = (steps >= first) & (steps <= end)
    said_TB = vectors_LB[(steps - first) % length]
    said_TB = jnp.where(((steps >= first) & (steps < end))[:, None], said_TB, 0)
    ended_T1 = (steps == end).astype(said_TB.dtype)[:, None]
    return Task((), Batch(inputs, jnp.concatenate([said_TB, ended_T1], axis=1), judged_T))


def associative_recall(
    *, bits: int = 6, item_length: int = 3, lengths: tuple[int, int] = (2, 6)
) -> Sampler:
    """Associative recall: given an item of a list, reproduce the item that follows it.

        inputs:   | item_1 | item_2 … | item_K ‖ item_q ‖ 0 0 0     channels: bits, |, ‖
        targets:                                          item_{q+1}

    An item is `item_length` vectors of random bits; q is drawn from all items but the last.

    Args:
      bits: bits of each vector.
      item_length: vectors of each item.
      lengths: smallest and largest K, drawn uniformly; at least 2.

    Shapes: inputs float32 `[(1 + item_length) K + 2 + 2 item_length, bits + 2]` with the largest K,
    targets `[…, bits]`.

    Raises:
      ValueError: `lengths` begins below 2 or is in the wrong order; another number is below 1.

    Source: Graves et al. 2014, section 4.3.

    >>> query = associative_recall(bits=2, lengths=(2, 3))(jax.random.key(0)).query
    >>> query.inputs.shape, query.targets.shape
    ((20, 4), (20, 2))
    """
    _check("associative_recall", bits=bits, item_length=item_length, lengths=lengths)
    if lengths[0] < 2:
        raise ValueError(
            f"associative_recall: lengths {lengths}; give at least 2, so that one item follows "
            "another."
        )
    return sampler(_associative_recall, bits=bits, item_length=item_length, lengths=lengths)


def _associative_recall(key: Key, *, bits: int, item_length: int, lengths: tuple[int, int]) -> Task:
    count_key, place_key, bits_key = jax.random.split(key, 3)
    count = _length(count_key, lengths)
    asked = jax.random.randint(place_key, (), 0, count - 1)
    shape = (lengths[1], item_length, bits)
    items_KLB = jax.random.bernoulli(bits_key, 0.5, shape).astype(jnp.float32)
    block = item_length + 1
    steps = jnp.arange(block * lengths[1] + 2 + 2 * item_length)
    number, place = steps // block, steps % block
    shown_TB = items_KLB[jnp.minimum(number, lengths[1] - 1), jnp.maximum(place - 1, 0)]
    in_list_T = number < count
    shown_TB = jnp.where((in_list_T & (place > 0))[:, None], shown_TB, 0)
    query_at = block * count  # the first ‖
    shown_TB += _placed(items_KLB[asked], query_at + 1, item_length, steps)
    answer_at = query_at + 1 + item_length + 1
    separators_T = in_list_T & (place == 0)
    asking_T = (steps == query_at) | (steps == answer_at - 1)
    flags_T2 = jnp.stack([separators_T, asking_T], axis=1).astype(shown_TB.dtype)
    judged_T = (steps >= answer_at) & (steps < answer_at + item_length)
    targets_TB = _placed(items_KLB[asked + 1], answer_at, item_length, steps)
    return Task((), Batch(jnp.concatenate([shown_TB, flags_T2], axis=1), targets_TB, judged_T))


def priority_sort(*, bits: int = 8, count: int = 20, kept: int = 16) -> Sampler:
    """Priority sort: reproduce vectors of random bits by decreasing priority.

        inputs:   (v_1, p_1) … (v_N, p_N), end, 0 … 0      channels: bits, priority, end
        targets:                                v_{σ(1)} … v_{σ(K)},   p_{σ(1)} > p_{σ(2)} > …

    Args:
      bits: bits of each vector.
      count: N, the number of vectors shown; priorities are drawn from U[−1, 1].
      kept: K, the number of vectors to reproduce.

    Shapes: inputs float32 `[N + 1 + K, bits + 2]`, targets `[N + 1 + K, bits]`.

    Raises:
      ValueError: a number is below 1; `kept` is larger than `count`.

    Source: Graves et al. 2014, section 4.5.

    >>> query = priority_sort(bits=2, count=3, kept=2)(jax.random.key(0)).query
    >>> query.inputs.shape, query.mask.tolist()
    ((6, 4), [False, False, False, False, True, True])
    """
    _check("priority_sort", bits=bits, kept=kept, count=count)
    if kept > count:
        raise ValueError(
            f"priority_sort: kept is {kept} and count is {count}; give a kept of at most count."
        )
    return sampler(_priority_sort, bits=bits, count=count, kept=kept)


def _priority_sort(key: Key, *, bits: int, count: int, kept: int) -> Task:
    bits_key, priority_key = jax.random.split(key)
    vectors_NB = jax.random.bernoulli(bits_key, 0.5, (count, bits)).astype(jnp.float32)
    priorities_N = jax.random.uniform(priority_key, (count,), minval=-1.0)
    steps = jnp.arange(count + 1 + kept)
    shown = jnp.concatenate([vectors_NB, priorities_N[:, None]], axis=1)
    inputs = jnp.concatenate(
        [_placed(shown, 0, count, steps), (steps == count).astype(jnp.float32)[:, None]], axis=1
    )
    highest_KB = vectors_NB[jnp.argsort(-priorities_N)[:kept]]
    targets = _placed(highest_KB, count + 1, kept, steps)
    return Task((), Batch(inputs, targets, steps > count))


def _check(task: str, **sizes: int | tuple[int, int]) -> None:
    for name, size in sizes.items():
        low, high = size if isinstance(size, tuple) else (size, size)
        if low < 1:
            raise ValueError(f"{task}: {name} {size}; give at least 1.")
        if low > high:
            raise ValueError(f"{task}: {name} from {low} to {high}; give the smaller first.")


def _length(key: Key, lengths: tuple[int, int]) -> Array:
    return jax.random.randint(key, (), lengths[0], lengths[1] + 1)


def _vectors(key: Key, longest: int, bits: int, length: Array) -> Array:
    """Random bits, 0 from `length` on, float32 `[longest, bits]`."""
    drawn = jax.random.bernoulli(key, 0.5, (longest, bits)).astype(jnp.float32)
    return jnp.where((jnp.arange(longest) < length)[:, None], drawn, 0)


def _placed(rows: Array, start: Any, length: Any, steps: Array) -> Array:
    """The first `length` rows, placed from step `start` on; 0 before and after them."""
    index = steps - start
    found = rows[jnp.clip(index, 0, rows.shape[0] - 1)]
    return jnp.where(((index >= 0) & (index < length))[:, None], found, 0)

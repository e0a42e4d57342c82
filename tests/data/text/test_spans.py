"""Span F1: worked by hand, and equal to a count in plain Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.data.text.conll import spans
from jaxmeta.data.text.spans import span_counts, span_f1


def counts(predicted, true, mask=None):
    predicted, true = jnp.array([predicted]), jnp.array([true])
    mask = jnp.ones(true.shape, bool) if mask is None else jnp.array([mask])
    found = span_counts(predicted, true, mask)
    return tuple(int(found[name]) for name in ("correct", "predicted", "true"))


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([1, 1, 0, 2], [1, 1, 0, 2], (2, 2, 2)),
        ([1, 0, 0, 2], [1, 1, 0, 2], (1, 2, 2)),  # too short
        ([1, 1, 1, 2], [1, 1, 0, 2], (1, 2, 2)),  # too long
        ([2, 2, 0, 2], [1, 1, 0, 2], (1, 2, 2)),  # another type
        ([1, 2, 0, 2], [1, 1, 0, 2], (1, 3, 2)),  # broken in two
        ([0, 1, 0, 0], [1, 1, 0, 0], (0, 1, 1)),  # begins late
        ([1, 1, 2, 2], [1, 1, 1, 1], (0, 2, 1)),
        ([0, 0, 0, 0], [0, 0, 0, 0], (0, 0, 0)),
        ([1, 1, 1, 1], [1, 1, 1, 1], (1, 1, 1)),
    ],
)
def test_counts_by_hand(predicted, true, expected):
    assert counts(predicted, true) == expected


def test_padding_is_no_entity():
    mask = [True, True, False, False]
    assert counts([1, 1, 1, 2], [1, 1, 0, 2], mask) == (1, 1, 1)
    assert counts([1, 1, 1, 2], [0, 0, 2, 2], mask) == (0, 1, 0)


def test_counts_equal_those_of_plain_python():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 13, 200)
    mask = np.arange(12)[None] < lengths[:, None]
    # Types that often go on, so that many entities have several words.
    true, predicted = np.zeros((200, 12), int), np.zeros((200, 12), int)
    for place in range(12):
        goes_on = rng.random(200) < 0.6
        true[:, place] = np.where(
            goes_on & (place > 0), true[:, place - 1], rng.integers(0, 3, 200)
        )
        kept = rng.random(200) < 0.8
        predicted[:, place] = np.where(kept, true[:, place], rng.integers(0, 3, 200))

    def of_sentence(row, length):
        tags, before = [], 0
        for kind in row[:length]:
            tags.append("O" if kind == 0 else f"{'I' if kind == before else 'B'}-{kind}")
            before = kind
        return spans(tags)

    pairs = [(of_sentence(p, n), of_sentence(t, n)) for p, t, n in zip(predicted, true, lengths)]
    found = jax.jit(span_counts)(predicted, true, mask)
    assert int(found["correct"]) == sum(len(p & t) for p, t in pairs) > 100
    assert int(found["predicted"]) == sum(len(p) for p, _ in pairs)
    assert int(found["true"]) == sum(len(t) for _, t in pairs)
    precision = found["correct"] / found["predicted"]
    recall = found["correct"] / found["true"]
    expected = 2 * precision * recall / (precision + recall)
    np.testing.assert_allclose(span_f1(found), expected, rtol=1e-6)


def test_f1_of_nothing():
    zero, two = jnp.zeros(()), jnp.full((), 2.0)
    assert span_f1({"correct": zero, "predicted": zero, "true": zero}) == 1
    assert span_f1({"correct": zero, "predicted": two, "true": zero}) == 0
    assert span_f1({"correct": zero, "predicted": zero, "true": two}) == 0

"""Entities in rows of tags: how many are found, and the F1 of it."""

import jax
import jax.numpy as jnp

from jaxmeta.core import Array


def span_counts(predicted_NW: Array, true_NW: Array, mask_NW: Array) -> dict[str, Array]:
    """The numbers of entities that are correct, predicted and true, float scalars.

    An entity is a longest run of words of one type; it is correct if its first word, its last word
    and its type are. So neighbouring entities of one type are counted as one.

    Args:
      predicted_NW, true_NW: types int `[N, W]` of the words of each sentence, 0 outside
        of entities.
      mask_NW: bool `[N, W]`, False for padding, which follows the words.

    >>> true = jnp.array([[1, 1, 0, 2]])
    >>> found = span_counts(jnp.array([[1, 1, 2, 2]]), true, jnp.ones((1, 4), bool))
    >>> {name: float(count) for name, count in found.items()}
    {'correct': 1.0, 'predicted': 2.0, 'true': 2.0}
    """
    predicted_NW = jnp.where(mask_NW, predicted_NW, 0)
    true_NW = jnp.where(mask_NW, true_NW, 0)
    begins_p, begins_t = _beginnings(predicted_NW), _beginnings(true_NW)
    same = (predicted_NW == true_NW) & (_last_words(predicted_NW) == _last_words(true_NW))
    counts = {"correct": begins_p & begins_t & same, "predicted": begins_p, "true": begins_t}
    return {name: jnp.asarray(found.sum(), jnp.float32) for name, found in counts.items()}


def _beginnings(types_NW: Array) -> Array:
    before_NW = jnp.pad(types_NW, ((0, 0), (1, 0)))[:, :-1]
    return (types_NW > 0) & (types_NW != before_NW)


def _last_words(types_NW: Array) -> Array:
    """For every word, the place of the last word of its run."""
    after_NW = jnp.pad(types_NW, ((0, 0), (0, 1)))[:, 1:]
    words = types_NW.shape[1]
    # The last word of the sentence ends a run, whatever its type.
    ends_NW = (types_NW != after_NW) | (jnp.arange(words) == words - 1)[None]
    places_NW = jnp.where(ends_NW, jnp.arange(words)[None], words)
    return jax.lax.cummin(places_NW, axis=1, reverse=True)


def span_f1(counts: dict[str, Array]) -> Array:
    """F1 of the counts of `span_counts`: the harmonic mean of precision and recall.

        F1 = 2 correct / (predicted + true)

    1 if there is nothing to find and nothing is predicted.

    >>> one = jnp.ones(())
    >>> round(float(span_f1({"correct": one, "predicted": 2 * one, "true": one})), 3)
    0.667
    """
    total = counts["predicted"] + counts["true"]
    return jnp.where(total > 0, 2 * counts["correct"] / jnp.maximum(total, 1), 1.0)

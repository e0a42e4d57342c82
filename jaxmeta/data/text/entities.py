"""Few-shot labelling of words: entities of types that training has not seen."""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Array, Batch, Key, Task
from jaxmeta.data._episodes import draw_distinct
from jaxmeta.data.cache import data_folder
from jaxmeta.data.samplers import Sampler, sampler
from jaxmeta.data.text.conll import Tagged, read_conll, types
from jaxmeta.data.text.episodes import Ragged, padded

WNUT17 = "wnut17"
_FILES = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
_TEST_TYPES = ("corporation", "creative-work", "product")
_SOURCE = "https://github.com/leondz/emerging_entities_17"


class EntityPart(NamedTuple):
    """Sentences for training, validation or test, sorted by their rarest type.

    Attributes:
      sentences: sentences with an entity of one of the types, or more.
      types: the types of entities to find; entities of other types are not marked.
      counts: int32 `[types]`, the number of sentences that belong to each type.
    """

    sentences: tuple[Tagged, ...]
    types: tuple[str, ...]
    counts: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """int32 `[types]`, the first sentence of each type."""
        return (np.cumsum(self.counts) - self.counts).astype(np.int32)

    def type_numbers(self, words: int) -> np.ndarray:
        """For the first words of every sentence, one after another: 0, or 1 + its type."""
        numbers = {kind: number for number, kind in enumerate(self.types, 1)}
        return np.array(
            [numbers.get(tag[2:], 0) for own in self.sentences for tag in own.tags[:words]],
            np.int32,
        )


class Entities(NamedTuple):
    """Tagged sentences with types for training and others for test.

    Attributes:
      name: the name or the path that was given.
      parts: `train`, `validation` and `test`. No sentence of the first two has an entity of a test
        type.
      protocol: the description of the data that is stored with every result.
    """

    name: str
    parts: Mapping[str, EntityPart]
    protocol: dict[str, Any]


def load_entities(
    name: str | Path = WNUT17, *, test_types: Sequence[str] = (), seed: int = 0
) -> Entities:
    """Loads tagged sentences, ready for `word_episodes`.

    Training and validation have the same types but no common sentence, and none of their sentences
    has an entity of a test type; the test has every sentence with one.

    Args:
      name: `wnut17`, from the folder `wnut17` in `JAXMETA_DATA_DIR` or in the cache folder, with
        the files wnut17train.conll, emerging.dev.conll (for validation) and emerging.test.annotated
        of its repository; or the path of a file in CoNLL form, whose sentences are split at random,
        a quarter for validation.
      test_types: types for the test only. Defaults to corporation, creative-work and product for
        `wnut17`.
      seed: of the random split of a file.

    Raises:
      OSError: a file is missing.
      ValueError: a damaged file; no test type, an unknown one, or none left for training.

    Source: Derczynski, Nichols, van Erp, Limsopatham 2017, "Results of the WNUT2017 shared task on
    novel and emerging entity recognition"; https://github.com/leondz/emerging_entities_17.
    """
    if name == WNUT17:
        folder = data_folder(WNUT17)
        absent = [file for file in _FILES if not (folder / file).is_file()]
        if absent:
            raise FileNotFoundError(
                f"{folder} has no {absent[0]}; put the files of {_SOURCE} there."
            )
        given = [read_conll(folder / file) for file in _FILES]
        details = {"licence": "CC BY 4.0", "source": _SOURCE}
        return split_by_type(str(name), *given, test_types=test_types or _TEST_TYPES, **details)
    found = read_conll(Path(name).expanduser())
    order = np.random.default_rng(seed).permutation(len(found))
    cut = len(found) // 4
    later, first = ([found[row] for row in rows] for rows in (order[:cut], order[cut:]))
    return split_by_type(str(name), first, later, [], test_types=test_types, split_seed=seed)


def split_by_type(
    name: str,
    train: Sequence[Tagged],
    validation: Sequence[Tagged],
    test: Sequence[Tagged],
    *,
    test_types: Sequence[str],
    **details: Any,
) -> Entities:
    """Splits sentences by the types of their entities, see `load_entities`.

    Raises:
      ValueError: no test type, an unknown one, or none left for training.

    >>> ada, bob = (Tagged((name, "wrote"), ("B-person", "O")) for name in ("Ada", "Bob"))
    >>> rome = Tagged(("Ada", "in", "Rome"), ("B-person", "O", "B-place"))
    >>> found = split_by_type("three", [ada, rome], [ada, bob], [], test_types=["place"])
    >>> {part: len(own.sentences) for part, own in found.parts.items()}
    {'train': 1, 'validation': 1, 'test': 1}
    """
    everything = [*train, *validation, *test]
    known = types(everything)
    unknown = sorted(set(test_types) - set(known))
    kept = tuple(kind for kind in known if kind not in test_types)
    if not test_types or unknown or not kept:
        wrong = f"no type {unknown[0]!r}" if unknown else f"test types {', '.join(test_types)!r}"
        raise ValueError(
            f"{name}: {wrong}; its types are {', '.join(known)}; give some of them for the test, "
            "and leave some for training."
        )

    def part(sentences: Sequence[Tagged], own: Sequence[str], without: Sequence[str]) -> EntityPart:
        chosen = [
            (sentence, held)
            for sentence in dict.fromkeys(sentences)  # a repeated one is kept once
            if (held := set(types([sentence]))) & set(own) and not held & set(without)
        ]
        frequency = Counter(kind for _, held in chosen for kind in held)
        rows: dict[str, list[Tagged]] = {kind: [] for kind in own}
        for sentence, held in chosen:
            rows[min(held & set(own), key=lambda kind: (frequency[kind], kind))].append(sentence)
        counts = np.array([len(rows[kind]) for kind in own], np.int32)
        return EntityPart(tuple(s for kind in own for s in rows[kind]), tuple(own), counts)

    seen = {sentence.words for sentence in train}
    unseen = [sentence for sentence in validation if sentence.words not in seen]
    parts = {
        "train": part(train, kept, test_types),
        "validation": part(unseen, kept, test_types),
        "test": part(everything, sorted(test_types), ()),
    }
    content = json.dumps([[own.sentences, own.types] for own in parts.values()])
    protocol = {
        "dataset": name,
        "types": {part: list(own.types) for part, own in parts.items()},
        "sentences": {part: len(own.sentences) for part, own in parts.items()},
        "sentences_sha256": hashlib.sha256(content.encode()).hexdigest(),
        **details,
    }
    return Entities(name, parts, protocol)


def word_episodes(
    words: Ragged,
    numbers: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
    *,
    ways: int,
    shots: int,
    queries: int,
    length: int,
) -> Sampler:
    """A sampler of tasks of tagged words: `sample(key) -> Task`, for `jit` and `vmap`.

    A task has `ways` types, drawn uniformly without replacement, and `shots + queries` distinct
    sentences of each. Its examples are the words of these sentences, one sentence after another:
    the class 0 is a word outside of entities, or in one of another type, and 1 + i is the i-th type
    drawn. The mask marks the words; each sentence is padded to `length` words.

    Args:
      words: the features of the words of each sentence.
      numbers: int `[words]`, the type of every word, see `EntityPart.type_numbers`.
      starts, counts: int `[types]`, the first sentence of each type and their number.
      ways: types per task; a task has `ways + 1` classes.
      shots, queries: sentences per type, in the support and in the query.
      length: words per sentence.

    Returns:
      a sampler of tasks of `Batch(inputs [sentences · length, ...], targets, mask)`.

    Raises:
      ValueError: more types than there are; more sentences than the rarest type has.

    >>> words = Ragged(np.arange(6.0)[:, None], np.array([0, 2, 3, 5]), np.array([2, 1, 2, 1]))
    >>> sample = word_episodes(words, np.array([1, 0, 1, 0, 2, 2]), np.array([0, 2]),
    ...     np.array([2, 2]), ways=2, shots=1, queries=1, length=2)
    >>> task = sample(jax.random.key(0))
    >>> task.support.inputs.shape, int(task.support.mask.sum() + task.query.mask.sum())
    ((4, 1), 6)
    """
    if not 1 <= ways <= len(counts):
        raise ValueError(f"{ways} types per task; give at least 1, and at most {len(counts)}.")
    if min(shots, queries) < 1 or shots + queries > int(np.min(counts)):
        raise ValueError(
            f"{shots} shots and {queries} queries; give at least 1 of each, and together at most "
            f"{int(np.min(counts))}, the sentences of the rarest type."
        )
    return sampler(
        _draw_task,
        jax.tree.map(jnp.asarray, words),
        *(jnp.asarray(array, jnp.int32) for array in (numbers, starts, counts)),
        ways=ways,
        shots=shots,
        queries=queries,
        length=length,
    )


def _draw_task(
    words: Any,
    numbers: Array,
    starts: Array,
    counts: Array,
    key: Key,
    *,
    ways: int,
    shots: int,
    queries: int,
    length: int,
) -> Task:
    type_key, row_key = jax.random.split(key)
    types_W = draw_distinct(type_key, jnp.asarray(starts.size, jnp.int32), ways)
    draw_rows = functools.partial(draw_distinct, size=shots + queries)
    rows_WE = jax.vmap(draw_rows)(jax.random.split(row_key, ways), counts[types_W])
    rows_WE = rows_WE + starts[types_W][:, None]
    # The class of each type in this task, 0 for types that were not drawn.
    classes_T = jnp.zeros(starts.size + 1, jnp.int32)
    classes_T = classes_T.at[types_W + 1].set(jnp.arange(1, ways + 1, dtype=jnp.int32))

    def batch(rows: Array) -> Batch:
        values, mask = padded(words, rows, length)
        targets, _ = padded(words._replace(values=classes_T[numbers]), rows, length)
        flat = (array.reshape(-1, *array.shape[2:]) for array in (values, targets, mask))
        return Batch(*flat)

    return Task(batch(rows_WE[:, :shots].reshape(-1)), batch(rows_WE[:, shots:].reshape(-1)))

"""Few-shot entities: no training sentence with a test type, labels that follow the draw."""

import jax
import numpy as np
import pytest

from jaxmeta.data.text.conll import Tagged, types
from jaxmeta.data.text.entities import load_entities, split_by_type, word_episodes
from jaxmeta.data.text.episodes import Ragged


def sentence(text):
    """`"a b/x c"` as words, with the type after the slash."""
    pairs = [word.partition("/") for word in text.split()]
    words = tuple(word for word, _, _ in pairs)
    return Tagged(words, tuple(f"B-{kind}" if kind else "O" for _, _, kind in pairs))


TRAIN = [*map(sentence, ("a b/u", "c/v d/u", "e/u f/x", "g h", "i/v", "a b/u", "k/u"))]
VALIDATION = [*map(sentence, ("l/u m", "n/y", "o/v p/u", "k/u"))]  # the last is seen
TEST = [*map(sentence, ("q/x r/u", "s/y t", "a/u"))]


@pytest.fixture
def found():
    return split_by_type("letters", TRAIN, VALIDATION, TEST, test_types=["x", "y"])


def test_no_training_sentence_has_a_test_type(found):
    assert found.parts["train"].types == found.parts["validation"].types == ("u", "v")
    assert found.parts["test"].types == ("x", "y")
    for part in ("train", "validation"):
        assert not {"x", "y"} & {*types(found.parts[part].sentences)}
    test = found.parts["test"].sentences
    # Every sentence with a test type, of all three files, and no other.
    assert {*test} == {TRAIN[2], VALIDATION[1], TEST[0], TEST[1]}
    assert not {*found.parts["train"].sentences} & {*found.parts["validation"].sentences}
    assert found.protocol["sentences"] == {"train": 4, "validation": 2, "test": 4}


def test_sentences_belong_to_their_rarest_type(found):
    train = found.parts["train"]
    assert train.sentences == (TRAIN[0], TRAIN[6], TRAIN[1], TRAIN[4])  # one of them repeated
    assert train.counts.tolist() == [2, 2] and train.starts.tolist() == [0, 2]
    assert train.type_numbers(8).tolist() == [0, 1, 1, 2, 1, 2]
    assert train.type_numbers(1).tolist() == [0, 1, 2, 2]  # first words only
    # In the test, entities of training types are outside.
    assert found.parts["test"].type_numbers(8).sum() == 1 + 1 + 2 + 2


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([], "test types ''"),
        (["z"], "no type 'z'"),
        (["u", "v", "x", "y"], "test types 'u, v, x, y'"),
    ],
)
def test_test_types_must_be_some_of_the_types(chosen, message):
    with pytest.raises(ValueError, match=f"{message}; its types are u, v, x, y"):
        split_by_type("letters", TRAIN, VALIDATION, TEST, test_types=chosen)


def test_files(tmp_path, tagged, monkeypatch):
    found = load_entities(tagged, test_types=["x", "y"])
    assert found.parts["train"].types == ("u", "v", "w")
    assert not {"x", "y"} & {*types(found.parts["train"].sentences)}
    train, validation = (found.parts[part].sentences for part in ("train", "validation"))
    assert not {*train} & {*validation} and len(train) > 2 * len(validation)
    other = load_entities(tagged, test_types=["x", "y"], seed=1)
    assert other.protocol["sentences_sha256"] != found.protocol["sentences_sha256"]
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no wnut17train.conll; put the files of https"):
        load_entities()


# --- episodes -----------------------------------------------------------------------------

# Nine sentences of three types, three each; a word is its number, its type is that of its sentence
# for odd words and none for even ones; one word of the last sentence has the type of the first.
LENGTHS = np.array([1, 2, 3, 4, 3, 2, 1, 2, 3])
OFFSETS = np.cumsum(LENGTHS) - LENGTHS
TYPES = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3])
NUMBERS = np.where(np.arange(21) % 2 == 1, np.repeat(TYPES, LENGTHS), 0)
NUMBERS[20] = 1
WORDS = Ragged(np.arange(21.0)[:, None], OFFSETS, LENGTHS)
STARTS, COUNTS = np.array([0, 3, 6]), np.array([3, 3, 3])


def test_classes_follow_the_draw():
    sizes = {"ways": 2, "shots": 1, "queries": 2, "length": 3}
    draw = jax.jit(word_episodes(WORDS, NUMBERS, STARTS, COUNTS, **sizes))
    drawn = set()
    for seed in range(30):
        task = draw(jax.random.key(seed))
        seen = []
        order: dict[int, int] = {}
        for batch in task:
            words = np.asarray(batch.inputs)[:, 0].astype(int).reshape(-1, 3)
            mask = np.asarray(batch.mask).reshape(-1, 3)
            shots = len(words) // 2
            for row in range(len(words)):
                sentence = int(np.searchsorted(OFFSETS, words[row, 0], side="right")) - 1
                seen.append(sentence)
                length = min(LENGTHS[sentence], 3)
                assert mask[row].tolist() == [place < length for place in range(3)]
                own = OFFSETS[sentence] + np.arange(length)
                assert words[row, :length].tolist() == own.tolist()
                order.setdefault(TYPES[sentence], row // shots + 1)
                assert order[TYPES[sentence]] == row // shots + 1
        assert len({*seen}) == len(seen) == 6  # support and query share no sentence
        for batch in task:  # types that were not drawn are outside
            valid = np.asarray(batch.mask)
            kinds = NUMBERS[np.asarray(batch.inputs)[valid, 0].astype(int)]
            expected = [order.get(kind, 0) for kind in kinds]
            assert np.asarray(batch.targets)[valid].tolist() == expected
        drawn |= {tuple(order)}
    assert len(drawn) == 6  # every ordered pair of types


def test_impossible_sizes():
    for settings, message in (
        ({"ways": 4, "shots": 1, "queries": 1}, "4 types per task; .* at most 3"),
        ({"ways": 2, "shots": 2, "queries": 2}, "2 shots and 2 queries; .* at most 3"),
        ({"ways": 2, "shots": 0, "queries": 2}, "0 shots"),
    ):
        with pytest.raises(ValueError, match=message):
            word_episodes(WORDS, NUMBERS, STARTS, COUNTS, length=3, **settings)

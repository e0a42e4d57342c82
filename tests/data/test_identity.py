"""A class is known by its source and name, and by what it holds."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmeta.data.identity import Seen, classes_by, names_seen, seen_from_json, seen_to_json

RNG = np.random.default_rng(0)
APPLE, PEAR, PLUM = (RNG.integers(0, 256, (40, 4, 4, 1), np.uint8) for _ in range(3))
MARKET = classes_by("market", {"apple": APPLE})


@pytest.fixture
def seen():
    """As a run has it, written and read: apples trained, pears validated."""
    parts = (MARKET, classes_by("market", {"pear": PEAR}))
    return seen_from_json(json.loads(json.dumps(seen_to_json(Seen("digest", parts)))))


@pytest.mark.parametrize(
    ("source", "groups", "found"),
    [
        ("market", {"apple": APPLE, "plum": PLUM}, ["apple"]),
        ("market", {"apple": PLUM}, ["apple"]),  # all of its images are others now
        ("copy", {"apple": APPLE, "pear": PEAR, "plum": PLUM}, ["apple", "pear"]),
        ("copy", {"pomme": APPLE[::-1]}, ["pomme"]),
        ("copy", {"apple": np.concatenate([PLUM, APPLE])}, ["apple"]),  # it has grown
        ("copy", {"apple": PLUM}, []),  # another class of that name
        ("copy", {"plum": PLUM}, []),
    ],
)
def test_a_class_is_known_by_all_that_it_is(source, groups, found, seen):
    assert names_seen(classes_by(source, groups), seen.classes) == found


@given(st.integers(0, 2**32 - 1), st.integers(20, 39))
def test_a_class_that_lost_some_of_its_examples_is_still_known(seed, kept):
    stored = seen_from_json(seen_to_json(Seen("", (MARKET, MARKET))))
    rows = np.random.default_rng(seed).permutation(40)[:kept]
    assert names_seen(classes_by("copy", {"pomme": APPLE[rows]}), stored.classes) == ["pomme"]


def test_pools_of_any_shape_are_known_likewise(seen):
    users = classes_by("ratings", {"user 1": [np.arange(3), np.arange(5.0)], "user 2": [APPLE[0]]})
    assert names_seen(users, seen.classes) == ["user 2"]


@pytest.mark.parametrize("fields", [[], {}, {"data": "", "train": 1, "validation": {}}, "text"])
def test_damaged_fields_are_refused(fields):
    with pytest.raises(ValueError, match="does not contain the classes of a run"):
        seen_from_json(fields)

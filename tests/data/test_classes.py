"""Images sorted by class, and their splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmeta.data.classes import class_images, select, split_classes, split_sizes


def numbered(labels, names):
    """One-pixel images whose value is their place in the unsorted array."""
    labels = np.asarray(labels)
    pixels = np.arange(len(labels), dtype=np.uint8)
    return class_images(pixels.reshape(-1, 1, 1, 1), labels, names)


def images_of(classes, index):
    start, count = classes.starts[index], classes.counts[index]
    return classes.images[start : start + count].ravel().tolist()


def test_every_class_has_its_images_in_their_order_and_empty_classes_are_left_out():
    classes = numbered([3, 1, 3, 0, 1, 3], ("a", "b", "nothing", "c"))
    assert classes.names == ("a", "b", "c")
    assert [images_of(classes, index) for index in range(3)] == [[3], [1, 4], [0, 2, 5]]
    assert (classes.images.dtype, classes.starts.dtype, classes.counts.dtype) == (
        np.uint8,
        np.int32,
        np.int32,
    )


def test_select_keeps_the_order_asked_for():
    classes = select(numbered([3, 1, 3, 0, 1, 3, 2], "abcd"), [3, 1])
    assert classes.names == ("d", "b")
    assert [images_of(classes, index) for index in range(2)] == [[0, 2, 5], [1, 4]]
    assert select(classes, []).images.shape == (0, 1, 1, 1)


@given(st.integers(6, 200), st.integers(0, 5))
def test_a_split_deals_every_class_to_one_part(total, seed):
    classes = numbered(np.arange(total), [f"class {index}" for index in range(total)])
    sizes = split_sizes(None, total)
    parts = split_classes(classes, sizes, seed)
    assert tuple(len(part.names) for part in parts) == sizes
    assert min(sizes) >= 2
    assert sorted(sum((part.names for part in parts), ())) == sorted(classes.names)
    for part in parts:
        assert [f"class {images_of(part, i)[0]}" for i in range(len(part.names))] == [*part.names]
    again = split_classes(classes, sizes, seed)
    assert [part.names for part in again] == [part.names for part in parts]


def test_another_seed_deals_other_classes():
    classes = numbered(np.arange(50), [str(index) for index in range(50)])
    names = [split_classes(classes, (32, 8, 10), seed)[2].names for seed in range(3)]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("split", "total", "message"),
    [
        (None, 5, "5 classes are too few"),
        ("50/11/20", 80, "has 81 classes, but there are 80"),
        ("8/1/1", 10, "fewer than the two classes"),
        ("vinyals", 10, "unknown split 'vinyals'"),
        ("6/2", 8, "three counts"),
        ("-6/2/2", 8, "unknown split"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(split, total, message):
    with pytest.raises(ValueError, match=message):
        split_sizes(split, total)


def test_split_sizes_by_hand():
    assert split_sizes(None, 100) == (64, 16, 20)
    assert split_sizes(None, 6) == (2, 2, 2)
    assert split_sizes("4/2/2", 8) == (4, 2, 2)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 1], "one label for each image"),  # three labels of four images
        ([0, 1, 1, 0, 1], "one label for each image"),
        ([[0], [1], [1], [0]], "one label for each image"),
        (["a", "b", "b", "a"], r"labels are <U1, such as a; give whole numbers"),
        ([0.0, 1.0, 0.5, 0.0], "labels are float64, such as 0.0; give whole numbers"),
        ([True, False, True, True], "labels are bool"),
        ([None, 1, 1, 0], "labels are object"),
        ([0, 1, 2, 0], "the label 2 is not an index into the 2 names"),
        ([0, 1, -1, 0], "the label -1 is not an index into the 2 names"),
    ],
)
def test_labels_that_are_no_indices_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        class_images(np.zeros((4, 1, 1, 1), np.uint8), np.array(labels), ("a", "b"))


def test_labels_of_any_whole_type_and_lists_are_taken():
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    for labels in ([1, 0, 1], np.array([1, 0, 1], np.uint64), np.array([1, 0, 1], np.int8)):
        assert class_images(images, labels, "ab").counts.tolist() == [1, 2]  # pyright: ignore


def test_a_split_of_more_classes_than_there_are_is_refused():
    with pytest.raises(ValueError, match="the split needs 7 classes, but there are only 6"):
        split_classes(numbered(np.arange(6), "abcdef"), (3, 2, 2), seed=0)

"""Classifiers of few images per class, with and without generated ones."""

import jax
import numpy as np
import pytest

from experiments.augmented_classifier import (
    AugmentedClassifier,
    classifier,
    measure,
    rows_of,
    table_of,
)
from experiments.generation_tables import classifier_table
from jaxmeta import files
from jaxmeta.data.classes import class_images

SMALL = {"examples": (1, 2), "steps": 20, "batch_size": 8, "width": 8, "seeds": 2}


def stripes(classes, count):
    """Classes that a classifier can learn: a bright row each, with noise."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 0.5, (classes, count, 16, 16, 1)).astype(np.float32)
    for index in range(classes):
        images[index, :, 3 * index : 3 * index + 2] += 1
    return images


def test_images_of_the_test_are_never_trained_on():
    images = stripes(3, 4)
    labels = np.repeat(np.arange(3), 4)
    classes = class_images(images.reshape(-1, 16, 16, 1), labels, ("a", "b", "c"))
    np.testing.assert_array_equal(table_of(classes, 3), images)
    with pytest.raises(ValueError, match="--examples 4: the smallest class has 4 images"):
        table_of(classes, 4)
    assert table_of(classes, 3, 2).shape == (2, 4, 16, 16, 1)
    with pytest.raises(ValueError, match="--classes 4: give at most 3"):
        table_of(classes, 3, 4)
    options = AugmentedClassifier("run", **SMALL | {"steps": 100, "rate": 0.01})  # pyright: ignore
    seen = classifier(images, 2, options, None)(jax.random.key(0), 2)
    assert seen.shape == (3,) and seen.mean() > 0.9
    # Training images of other classes: what is learned is what is drawn.
    wrong = np.concatenate([np.roll(images[:, :2], 1, axis=0), images[:, 2:]], axis=1)
    assert classifier(wrong, 2, options, None)(jax.random.key(0), 2).mean() < 0.1


def test_a_share_of_each_batch_is_replaced():
    images = stripes(3, 3)
    options = AugmentedClassifier("run", **SMALL | {"share": 1.0})  # pyright: ignore
    plain, same, blank = (
        classifier(images, 2, options, draw)(jax.random.key(0), 2)
        for draw in (None, lambda key, images: images, lambda key, images: 0 * images)
    )
    np.testing.assert_array_equal(plain, same)
    assert blank.mean() == pytest.approx(1 / 3)  # one guess for all


def test_differences_are_taken_class_by_class():
    plain = {1: np.array([0.2, 0.4, 0.6])}
    rows = rows_of({"no augmentation": plain, "generated": {1: plain[1] + 0.1}})
    assert [row["method"] for row in rows] == ["no augmentation", "generated"]
    assert rows[0]["accuracy"] == pytest.approx(0.4) and rows[0]["difference"] == 0
    assert rows[1]["difference"] == pytest.approx(0.1)
    assert rows[1]["difference_ci95"] == pytest.approx(0, abs=1e-9)
    assert rows[1]["accuracy_ci95"] > 0.1


@pytest.mark.full
def test_a_run_of_a_generator(trained, tmp_path, capsys):
    run = trained("generate")
    out = tmp_path / "augmented-classifier" / "vae.json"
    out.parent.mkdir()
    found = measure(AugmentedClassifier(run, out=out, **SMALL))  # pyright: ignore
    assert files.read_json(out)["rows"] == found["rows"] and len(found["rows"]) == 6
    assert "generated" in capsys.readouterr().out
    assert classifier_table(tmp_path).count("generated") == 2
    with pytest.raises(ValueError, match="is not a run of python -m experiments.generate"):
        measure(AugmentedClassifier(trained("few-shot", "maml"), out=out))

"""The classifier of tables: scikit-learn's own checks, and what it gives."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.utils.estimator_checks import check_estimator

from jaxmeta.tables import TableClassifier

IRIS = load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def split():
    return train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)


@pytest.mark.full
def test_the_checks_of_scikit_learn_pass():
    found = check_estimator(TableClassifier(members=1), on_fail=None, on_skip=None)
    failed = [own["check_name"] for own in found if own["status"] not in ("passed", "skipped")]
    assert failed == []
    assert len(found) > 40


@pytest.mark.full
def test_words_as_classes_and_missing_values(split):
    train, test, y_train, y_test = split
    names = np.array(["malignant", "benign"])
    train = np.where(np.random.default_rng(0).random(train.shape) < 0.1, np.nan, train)
    classifier = TableClassifier(members=2).fit(train, names[y_train])
    assert classifier.classes_.tolist() == ["benign", "malignant"]
    found = classifier.predict_proba(test)
    assert found.shape == (len(test), 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert classifier.score(test, names[y_test]) > 0.9
    again = pickle.loads(pickle.dumps(classifier)).predict_proba(test[:40])
    np.testing.assert_allclose(again, found[:40], atol=1e-5)


def test_queries_do_not_depend_on_each_other(split):
    train, test, y_train, _ = split
    classifier = TableClassifier(members=1).fit(train[:50], y_train[:50])
    together = classifier.predict_proba(test)
    np.testing.assert_allclose(classifier.predict_proba(test[7:8]), together[7:8], atol=1e-5)


def test_it_serves_in_cross_validation():
    inputs, classes = load_breast_cancer(return_X_y=True)
    found = cross_val_score(TableClassifier(members=1), inputs[:300], classes[:300], cv=3)
    assert found.mean() > 0.9  # the larger class has 0.51


def test_rows_are_kept_in_the_proportions_of_the_classes():
    inputs = np.random.default_rng(0).normal(size=(300, 2))
    classes = np.arange(300) % 10 == 0
    classifier = TableClassifier(members=1, rows=50).fit(inputs, classes)
    assert classifier._adapted.valid.sum() == 50


def test_what_no_network_can_do(tmp_path):
    inputs, _ = IRIS
    with pytest.raises(ValueError, match="y has 15 classes; this network requires 2 to 10"):
        TableClassifier().fit(inputs, np.arange(150) % 15)
    with pytest.raises(ValueError, match="members=0, rows=256; give at least 1"):
        TableClassifier(members=0).fit(*IRIS)
    with pytest.raises(ValueError, match="unknown trained learner"):
        TableClassifier(run=str(Path(tmp_path) / "none")).fit(*IRIS)

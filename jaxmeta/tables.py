"""A classifier of tables in scikit-learn's manner, from a prior-fitted network."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Batch
from jaxmeta.data.labelled_tables import rows_in_proportion
from jaxmeta.extras import extra
from jaxmeta.learners.process import members_of_tables
from jaxmeta.recipes import pretrained, restore, settings

with extra("tables"):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data

_LEAST_ROWS = 32  # rows are padded to a power of two, at least this one: few programs are compiled
_AT_ONCE = 1024  # query rows of one call


class TableClassifier(ClassifierMixin, BaseEstimator):
    """Classifies rows of a table by a prior-fitted network, without training on the table.

    `fit` keeps the rows; `predict_proba` reads them and the new rows in one pass of the network:

        p(y | x) = mean over members m of softmax(f_θ(x, rows as m sees them))

    Members see the classes in other orders and the columns in other scales, see
    `jaxmeta.learners.process.members_of_tables`.

    Args:
      run: the name of a trained learner that ships with jaxmeta, or the folder of a run of
        `python -m experiments.tables`.
      members: number of predictions that are averaged.
      rows: largest number of rows that are kept; of more rows, a random part in the proportions of
        the classes.
      random_state: seed of the members' numbers and of this part, as elsewhere in scikit-learn.

    Attributes:
      classes_: the class labels.
      n_features_in_: number of columns.

    Missing values are NaN. Columns need no scaling; categories are numbers in any order.

    Raises:
      ValueError: in `fit`, more classes than the network has outputs, or a single class.

    Source: Müller et al. 2022; Hollmann et al. 2023, "TabPFN", section 5 (members).

    >>> from sklearn.datasets import load_breast_cancer
    >>> inputs, classes = load_breast_cancer(return_X_y=True)
    >>> classifier = TableClassifier(members=1).fit(inputs[::2], classes[::2])
    >>> bool(classifier.score(inputs[1::2], classes[1::2]) > 0.9)
    True
    """

    def __init__(
        self,
        run: str | Path = "tables",
        *,
        members: int = 4,
        rows: int = 256,
        random_state: Any = 0,
    ):
        self.run = run
        self.members = members
        self.rows = rows
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "TableClassifier":
        """Keep the rows `X [rows, columns]` and their classes `y [rows]`."""
        if self.members < 1 or self.rows < 2:
            raise ValueError(
                f"members={self.members}, rows={self.rows}; give at least 1 member and 2 rows."
            )
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_all_finite="allow-nan")
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        network = _network(self.run, self.members)
        most = network.classes
        if not 2 <= len(self.classes_) <= most:
            raise ValueError(
                f"y has {len(self.classes_)} class{'es' * (len(self.classes_) != 1)}; this network "
                f"requires 2 to {most}."
            )
        random = check_random_state(self.random_state)
        kept = rows_in_proportion(numbers, self.rows, random, least=1)
        inputs, mask = _padded(X[kept])
        targets = np.zeros(len(mask), np.int32)
        targets[: len(kept)] = numbers[kept]
        seed = random.randint(2**31 - 1)
        adapted = network.adapt(seed, inputs, targets, mask)
        self._adapted = jax.tree.map(np.asarray, adapted)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class for each row, `[rows, classes]`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, ensure_all_finite="allow-nan", reset=False)
        predict = _network(self.run, self.members).predict
        found = []
        for start in range(0, len(X), _AT_ONCE):
            inputs, mask = _padded(X[start : start + _AT_ONCE])
            logits = predict(self._adapted, inputs)
            found.append(np.asarray(logits, np.float64)[mask])
        # Without the outputs that stand for no class.
        logits = np.concatenate(found)[:, : len(self.classes_)]
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class _Network(NamedTuple):
    """A trained network's compiled functions."""

    classes: int
    adapt: Callable[..., Any]
    predict: Callable[..., Any]


@functools.lru_cache(maxsize=4)  # an estimator holds arrays alone, so that it can be pickled
def _network(run: str | Path, members: int) -> _Network:
    place = Path(run)
    trained = restore(place) if place.exists() else pretrained(str(run))
    classes = settings.values(trained.experiment.domain)["classes"]
    learner = members_of_tables(trained.learner, classes, members)
    params = jax.tree.map(jnp.asarray, trained.meta_params)

    def adapt(seed: Any, inputs: Any, targets: Any, mask: Any) -> Any:
        return learner.adapt(jax.random.key(seed), params, Batch(inputs, targets, mask))

    return _Network(classes, jax.jit(adapt), jax.jit(learner.predict))


def _padded(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows, padded to one of few lengths, and which are no padding."""
    length = max(_LEAST_ROWS, 1 << (len(inputs) - 1).bit_length())
    rows = np.zeros((length, inputs.shape[1]), np.float32)
    rows[: len(inputs)] = inputs
    return rows, np.arange(length) < len(inputs)

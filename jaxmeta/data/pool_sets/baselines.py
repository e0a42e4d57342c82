"""Baselines of scikit-learn that learn from one support set alone."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxmeta.data.pool_sets.dataset import Baseline
from jaxmeta.extras import extra

_LEAST = 1e-6  # probability


def classifier(make: Callable[[int, int], Any], ways: int) -> Baseline:
    """A baseline from a scikit-learn classifier: `make(seed, examples)` of the support set.

    Its outputs are log-probabilities, at least log 1e-6. With examples of one class only, or none,
    all queries have the frequencies of the classes in the support set, with one example of each
    class added.
    """

    def of_task(
        inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
    ) -> np.ndarray:
        known = np.unique(targets)
        probabilities = np.zeros((len(asked), ways))
        if len(known) < 2:
            counts = np.bincount(targets, minlength=ways) + 1
            probabilities += counts / counts.sum()
        else:
            fitted = make(seed, len(targets)).fit(inputs, targets)
            probabilities[:, fitted.classes_] = fitted.predict_proba(asked)
        return np.log(np.maximum(probabilities, _LEAST)).astype(np.float32)

    return of_task


def regressor(make: Callable[[int, int], Any]) -> Baseline:
    """A baseline from a scikit-learn regressor; of an empty support set it predicts 0."""

    def of_task(
        inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
    ) -> np.ndarray:
        if not len(targets):
            return np.zeros((len(asked), targets.shape[1]), np.float32)
        found = make(seed, len(targets)).fit(inputs, targets.squeeze()).predict(asked)
        return np.asarray(found, np.float32).reshape(len(asked), -1)

    return of_task


def random_forest(ways: int, *, balanced: bool = False) -> Baseline:
    """A random forest of 100 trees; `ways` is 0 for regression.

    With `balanced`, classes have equal weight.
    """
    with extra("tables"):
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if not ways:
        return regressor(lambda seed, _: RandomForestRegressor(100, random_state=seed))
    weights = "balanced" if balanced else None
    return classifier(
        lambda seed, _: RandomForestClassifier(100, random_state=seed, class_weight=weights), ways
    )


def nearest_neighbours(ways: int, neighbours: int = 5) -> Baseline:
    """The nearest neighbours, weighted by inverse distance; `ways` is 0 for regression."""
    with extra("tables"):
        from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    if not ways:
        return regressor(
            lambda _, count: KNeighborsRegressor(min(neighbours, count), weights="distance")
        )
    return classifier(
        lambda _, count: KNeighborsClassifier(min(neighbours, count), weights="distance"), ways
    )


def linear(ways: int, *, balanced: bool = False) -> Baseline:
    """Logistic regression, or ridge regression; `ways` is 0 for regression.

    With `balanced`, classes have equal weight.
    """
    with extra("tables"):
        from sklearn.linear_model import LogisticRegression, Ridge

    if not ways:
        return regressor(lambda *_: Ridge(1.0))
    weights = "balanced" if balanced else None
    return classifier(lambda *_: LogisticRegression(max_iter=1000, class_weight=weights), ways)


def standardising(learn: Baseline) -> Baseline:
    """The baseline on columns minus the support's mean, over its standard deviation."""

    def of_task(
        inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
    ) -> np.ndarray:
        mean, std = inputs.mean(axis=0), inputs.std(axis=0)
        known, new = ((own - mean) / np.where(std > 0, std, 1) for own in (inputs, asked))
        return learn(known, targets, new, seed)

    return of_task


def outlier_detector(make: Callable[[int, int], Any]) -> Baseline:
    """A baseline from a scikit-learn outlier detector, on the standardised rows of class 0.

    Class 1 has minus `score_samples` as its log-odds; the labels of class 1 are not used.
    """

    def of_task(
        inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
    ) -> np.ndarray:
        free = inputs[targets == 0]
        scores = -make(seed, len(free)).fit(free).score_samples(asked)
        return np.stack([np.zeros_like(scores), scores], axis=1).astype(np.float32)

    return standardising(of_task)


def isolation_forest() -> Baseline:
    """An isolation forest (Liu et al. 2008) of 100 trees on the rows of class 0."""
    with extra("tables"):
        from sklearn.ensemble import IsolationForest

    return outlier_detector(lambda seed, _: IsolationForest(n_estimators=100, random_state=seed))


def local_outlier_factor(neighbours: int = 20) -> Baseline:
    """The local outlier factor (Breunig et al. 2000) among the rows of class 0."""
    with extra("tables"):
        from sklearn.neighbors import LocalOutlierFactor

    return outlier_detector(
        lambda _, count: LocalOutlierFactor(min(neighbours, count - 1), novelty=True)
    )


def neighbour_distance(neighbours: int = 5) -> Baseline:
    """The distance to the fifth nearest row of class 0 (Ramaswamy et al. 2000)."""
    with extra("tables"):
        from sklearn.neighbors import NearestNeighbors

    def of_task(
        inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
    ) -> np.ndarray:
        free = inputs[targets == 0]
        found = NearestNeighbors(n_neighbors=min(neighbours, len(free))).fit(free)
        scores = found.kneighbors(asked)[0][:, -1]
        return np.stack([np.zeros_like(scores), scores], axis=1).astype(np.float32)

    return standardising(of_task)


def table_baselines(ways: int) -> dict[str, Baseline]:
    """Logistic regression, random forest, gradient boosting and nearest neighbours for tables.

    NaN is a missing value. Columns without a value in the support are left out; for all but the
    trees, missing values become the mean and columns are standardised, both by the support.
    """
    with extra("tables"):
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

    def scaled(model: Any) -> Any:
        return make_pipeline(SimpleImputer(), StandardScaler(), model)

    def neighbours(_: int, count: int) -> Any:
        return scaled(KNeighborsClassifier(min(5, count), weights="distance"))

    makers: dict[str, Callable[[int, int], Any]] = {
        "logistic regression": lambda *_: scaled(LogisticRegression(max_iter=1000)),
        "random forest": lambda seed, _: make_pipeline(
            SimpleImputer(), RandomForestClassifier(100, random_state=seed)
        ),
        "gradient boosting": lambda seed, _: HistGradientBoostingClassifier(
            min_samples_leaf=5, random_state=seed
        ),
        "nearest neighbours": neighbours,
    }

    def of_columns(learn: Baseline) -> Baseline:
        def of_task(
            inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
        ) -> np.ndarray:
            known = ~np.isnan(inputs).all(axis=0)
            return learn(inputs[:, known], targets, asked[:, known], seed)

        return of_task

    return {name: of_columns(classifier(make, ways)) for name, make in makers.items()}


def tanimoto_neighbours(neighbours: int = 8) -> Baseline:
    """The most similar molecules: neighbours by Tanimoto similarity of the bits of fingerprints.

        log-odds = log (Σ_{i active} s_i + 1/2) − log (Σ_{i inactive} s_i + 1/2)

    with s_i the Tanimoto similarity |a ∧ b| / |a ∨ b| of the `neighbours` nearest molecules.
    """

    def of_task(
        inputs: np.ndarray, targets: np.ndarray, asked: np.ndarray, seed: int
    ) -> np.ndarray:
        known, new = ((own > 0).astype(np.float32) for own in (inputs, asked))
        both = new @ known.T
        either = new.sum(axis=1)[:, None] + known.sum(axis=1)[None] - both
        similarity = both / np.maximum(either, 1)
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
        weights = np.take_along_axis(similarity, nearest, axis=1)
        active = targets[nearest] == 1
        votes = [(weights * own).sum(axis=1) + 0.5 for own in (~active, active)]
        return np.log(np.stack(votes, axis=1)).astype(np.float32)

    return of_task

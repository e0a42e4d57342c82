"""The curve of risk over coverage, against sums by hand."""

import numpy as np
import pytest

from jaxmeta.recipes.predictions import THRESHOLDS, curve_of


def test_risk_is_over_all_answered_queries():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), (50, 12))
    targets = random.integers(0, 3, (50, 12))
    found = curve_of(np.log(probabilities), targets)
    sure, wrong = probabilities.max(axis=2), probabilities.argmax(axis=2) != targets
    for number, threshold in enumerate(THRESHOLDS[:-1]):
        answered = sure >= np.float32(threshold)
        assert found["coverage"][number] == pytest.approx(answered.mean(), abs=1e-6)
        assert found["risk"][number] == pytest.approx(wrong[answered].mean(), abs=1e-6)
    # All are answered at 0, so that the interval is that of the mean over tasks.
    ci95 = 1.96 * wrong.mean(axis=1).std(ddof=1) / np.sqrt(50)
    assert found["risk_ci95"][0] == pytest.approx(ci95, rel=1e-5)
    assert found["num_tasks"] == 50


def test_no_query_is_answered():
    found = curve_of(np.log(np.full((2, 4, 5), 0.2)), np.zeros((2, 4), int))
    assert found["coverage"][-1] == 0
    assert np.isnan(found["risk"][-1])

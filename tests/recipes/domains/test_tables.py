"""The domain of tables: real tables beside baselines, files at test, predictions."""

import json

import numpy as np
import pytest

from jaxmeta.commands.evaluate import Evaluate, evaluate_run
from jaxmeta.commands.predict import Predict, predict_with
from jaxmeta.recipes import find_domain, known_learners
from jaxmeta.recipes.results import read_per_task


@pytest.mark.full
def test_a_run_is_tested_on_real_tables(trained, tmp_path):
    folder = trained("tables")
    results = json.loads((folder / "results.json").read_text())
    values = read_per_task(folder / "per_task.npz")["8 rows"].values["auroc"]
    assert values.shape == (2,) and results["auroc"] == pytest.approx(values.mean())
    found = results["comparison"]["8 rows"]["baselines"]
    assert {*found} == {
        *("logistic regression", "random forest", "gradient boosting", "nearest neighbours")
    }
    each = results["by_table"]["8 rows"]
    assert [*each] == results["protocol"]["tables"] == ["ways-2", "ways-3"]
    np.testing.assert_allclose([own["prior-fitted"] for own in each.values()], values, atol=1e-4)
    methods = {"prior-fitted", *found}
    assert {*results["mean_rank"]["8 rows"]} == {*results["seconds"]["8 rows"]} == methods
    assert sum(results["mean_rank"]["8 rows"].values()) == pytest.approx(1 + 2 + 3 + 4 + 5)
    assert min(results["seconds"]["8 rows"].values()) > 0
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(40, 6))
    np.savez(tmp_path / "own.npz", X=inputs, y=inputs[:, 0] > 0)
    changes = {"dataset": str(tmp_path / "own.npz"), "baseline_draws": 0}
    other = evaluate_run(Evaluate(folder, out=tmp_path / "found.json"), changes)
    assert [*other["by_table"]["8 rows"]] == ["own"]


def test_only_learners_of_tables_are_offered():
    assert known_learners(find_domain("tables").kind).keys() == {"prior-fitted"}


@pytest.mark.full
def test_a_run_predicts_rows(trained, tmp_path):
    support, query = tmp_path / "support.csv", tmp_path / "query.csv"
    support.write_text("a,b,target\n1,2,oak\n2,,elm\n3,4,oak\n0,1,elm\n")
    query.write_text("b,a\n5,3\n,1\n")
    folder, out = trained("tables"), tmp_path / "found.csv"
    predict_with(Predict(folder, support, query, out=out))
    header, *rows = out.read_text().splitlines()
    assert header == '"row","class","probability"' and len(rows) == 2
    assert all(row.split(",")[1] in ('"oak"', '"elm"') for row in rows)
    query.write_text("a\n5\n")
    with pytest.raises(ValueError, match="has no column 'b' of the labelled rows"):
        predict_with(Predict(folder, support, query, out=tmp_path / "none.csv"))
    support.write_text("a,target\n" + "".join(f"1,{number}\n" for number in range(4)))
    with pytest.raises(ValueError, match="4 classes; the run supports 3"):
        predict_with(Predict(folder, support, query, out=tmp_path / "none.csv"))

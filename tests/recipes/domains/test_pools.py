"""The domain of pools: kinds, whole pools, baselines beside the learner, and predictions."""

import json

import numpy as np
import pytest

from jaxmeta.commands.evaluate import Evaluate, evaluate_run
from jaxmeta.commands.experiment import parse
from jaxmeta.commands.predict import Predict, predict_with
from jaxmeta.data import whole_pools
from jaxmeta.data.pool_sets.table import table_pools
from jaxmeta.recipes import find_domain, find_learner, known_learners, settings, start
from jaxmeta.recipes.pool_report import baseline_values
from jaxmeta.recipes.results import read_per_task

POOLS = find_domain("pools")


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def test_learners_of_both_kinds_are_offered_and_checked(table):
    assert POOLS.kinds == ("classification", "regression")
    experiment = start(POOLS, find_learner("alpaca")).changed(dataset=str(table))
    with pytest.raises(ValueError, match=r"alpaca does not support tasks of pools \(kind classif"):
        settings.check(experiment)
    settings.check(experiment.changed(targets="regression"))
    settings.check(experiment.changed(target_column="size"))
    with pytest.raises(ValueError, match="--targets regression: fsmol has classification tasks"):
        settings.check(start(POOLS, find_learner("alpaca")).changed(targets="regression"))
    for name in ("alpaca", "prototypical"):
        assert name in known_learners(*POOLS.kinds)
        _, parsed = parse(POOLS, [name, "--dataset", str(table)])
        assert parsed.learner.name == name


def test_learners_of_sequences_are_refused(table, tiny, status, tmp_path, capsys):
    assert status("pools", *tiny("pools", "snail"), "--out", tmp_path / "run") == 1
    assert "reads the support as a sequence" in capsys.readouterr().err


def test_every_default_is_written_down(table):
    own = POOLS(dataset=str(table)).resolved()
    assert (own.targets, own.support, own.test_support) == ("classification", (5, 20), (5, 10, 20))
    assert own.resolved() == own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": (3, 2)}, "--support 3 2: give the smaller number first"),
        ({"support": (-1, 2)}, "--support -1 2: give numbers from 1"),
        ({"test_support": ()}, "--test-support: give numbers from 1"),
        ({"test_support": (5, 5)}, "--test-support 5 5: give each number once"),
        ({"draws": 0}, "--draws 0: give a number"),
        ({"dataset": "nothing"}, "unknown dataset 'nothing'"),
    ],
)
def test_settings_that_no_run_can_use(changes, message):
    with pytest.raises(ValueError, match=message):
        settings.check(start(POOLS, find_learner("prototypical")).changed(**changes))


@pytest.mark.full
def test_a_run_has_whole_pools_beside_baselines(table, trained):
    folder = trained("pools")
    results, values = results_of(folder), read_per_task(folder / "per_task.npz")
    dataset = table_pools(table)
    assert results["figure"] == "average_precision_gain"
    assert {*results["tests"]} == {*values} == {"3 examples", "5 examples"}
    for size in (3, 5):
        row = results["comparison"][f"{size} examples"]["baselines"]
        whole = whole_pools(dataset.test, support=size, draws=2, order="stratified")
        learned = values[f"{size} examples"].values["average_precision_gain"]
        for name, learn in dataset.baselines.items():
            theirs = baseline_values(dataset, whole, learn, name, 1)["average_precision_gain"]
            assert row[name]["average_precision_gain"] == pytest.approx(theirs.mean())
            assert row[name]["learned_minus_this"] == pytest.approx((learned - theirs).mean())
            half = 1.96 * (learned - theirs).std(ddof=1) / 6**0.5
            assert row[name]["learned_minus_this_ci95"] == pytest.approx(half, rel=1e-4)
    assert (folder / "support-size.png").is_file()
    other = evaluate_run(Evaluate(folder, out=folder / "four.json"), {"test_support": (4,)})
    assert other["comparison"].keys() == {"4 examples"}


@pytest.mark.full
def test_a_run_predicts_rows_of_tables(table, trained, tmp_path, capsys):
    folder = trained("pools")
    support, query = tmp_path / "support.csv", tmp_path / "query.csv"
    support.write_text("target,size,weight\n1,0.5,2.0\n0,,-2.0\n")
    query.write_text("weight,size\n1.5,0.1\n-1.5,0.2\n2,0\n")
    predict_with(Predict(folder, support, query, out=tmp_path / "found.csv"))
    header, *rows = (tmp_path / "found.csv").read_text().splitlines()
    assert header == '"row","class","probability"' and len(rows) == 3
    assert all(row.split(",")[1] in ('"0"', '"1"') for row in rows)
    for text, message in (
        ("target,size\n1,0", "has no column 'weight' of the training data"),
        ("size,weight\n1,0", "has no column 'target' of targets"),
        ("target,size,weight\n2,0,1", "give classes from 0 to 1 as targets"),
    ):
        support.write_text(text)
        with pytest.raises(ValueError, match=message):
            predict_with(Predict(folder, support, query, out=tmp_path / "none.csv"))


@pytest.mark.slow
def test_a_regressor_of_numbers(table, status, tiny, tmp_path):
    options = [*tiny("pools", "bayesian-last-layer"), "--target-column", "size"]
    assert status("pools", *options, "--out", tmp_path / "run") == 0
    results = results_of(tmp_path / "run")
    assert results["figure"] == "mae"
    row = results["tests"]["5 examples"]
    assert 0 < row["mae"] <= row["rmse"]
    assert {"log_likelihood", "squared_error"} <= row.keys()
    values = read_per_task(tmp_path / "run" / "per_task.npz")["5 examples"].values
    assert np.isfinite(values["mae"]).all()

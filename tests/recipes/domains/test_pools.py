"""The domain of pools: kinds, whole pools, baselines beside the learner, and predictions."""

import json
import shutil

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
        (
            {"dataset": "fsmol", "target_column": "x"},
            "--target-column x applies only to tables of your own",
        ),
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
            found = baseline_values(dataset, whole, learn, name, 1)
            asked = [own.shape[1] - size for own in whole.places]
            np.testing.assert_allclose(found["reliability"][:, 0].sum(axis=1), asked)
            theirs = found["average_precision_gain"]
            assert row[name]["average_precision_gain"] == pytest.approx(theirs.mean())
            assert row[name]["learned_minus_this"] == pytest.approx((learned - theirs).mean())
            half = 1.96 * (learned - theirs).std(ddof=1) / 6**0.5
            assert row[name]["learned_minus_this_ci95"] == pytest.approx(half, rel=1e-4)
    assert (folder / "support-size.png").is_file() and (folder / "calibration.png").is_file()
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


def write_sets(folder, names, *, rows: int = 60):
    """Sets of 3 to 6 columns; every fourth row is far off in one of them."""
    folder.mkdir()
    for number, name in enumerate(names):
        rng = np.random.default_rng(sum(map(ord, name)))
        labels = (np.arange(rows) % 4 == 0).astype(int)
        values = rng.normal(size=(rows, 3 + number % 4))
        values[:, number % 3] += 5 * labels
        np.savez(folder / f"{name}.npz", X=values, y=labels)
    return folder


def test_another_table_is_read_as_that_of_training(table, trained, tmp_path):
    """By the names of its columns, and scaled by the numbers of the table of training."""
    run = trained("pools", "maml")
    same = evaluate_run(Evaluate(run, out=tmp_path / "same.json"), {})
    other = tmp_path / "other.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    other.write_text("\n".join(",".join(reversed(row)) for row in rows))
    again = evaluate_run(Evaluate(run, out=tmp_path / "other.json"), {"dataset": str(other)})
    assert again["tests"] == same["tests"]


def test_a_given_size_of_the_support_is_never_left_out(table, status, tiny, tmp_path, capsys):
    options = [*tiny("pools", "maml"), "--out", tmp_path / "run", "--test-support", "5", "900"]
    assert status("pools", *options) == 1
    assert "the test pools allow at most" in " ".join(capsys.readouterr().err.split())


def test_a_changed_baseline_is_computed_anew(table, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMETA_CACHE_DIR", str(tmp_path / "cache"))
    found = table_pools(table, target_column="size")
    whole = whole_pools(found.test, support=5, draws=1)

    def zeros(known, values, asked, seed):
        return np.zeros((len(asked), 1), np.float32)

    def ones(known, values, asked, seed):
        return np.ones((len(asked), 1), np.float32)

    one, other = (baseline_values(found, whole, own, "mine", 1)["mae"] for own in (zeros, ones))
    assert (one != other).any()


def test_baselines_of_another_number_of_classes_are_others(table):
    """The same rows with further classes have no metrics of two classes."""
    dataset = table_pools(table)
    whole = whole_pools(dataset.test, support=4, draws=1, order="stratified")
    (name, learn), *_ = dataset.baselines.items()
    two = baseline_values(dataset, whole, learn, name, 1)
    three = dataset._replace(ways=3)
    assert "reliability" in two
    assert "reliability" not in baseline_values(three, whole, learn, name, 1)


def test_folds_are_of_sets_that_have_some(table):
    with pytest.raises(ValueError, match="--fold 4: anomaly has 4 folds; give a number below 4"):
        settings.check(
            start(POOLS, find_learner("prototypical")).changed(dataset="anomaly", fold=4)
        )
    with pytest.raises(ValueError, match=r"--fold 1: .* has no folds; leave --fold out"):
        settings.check(start(POOLS, find_learner("maml")).changed(dataset=str(table), fold=1))
    own = POOLS(dataset="anomaly").resolved()
    assert (own.targets, own.support, own.test_support) == ("classification", (1, 10), (1, 5, 10))


@pytest.mark.slow
def test_anomalies_of_new_sets(status, tiny, tmp_path):
    """A run on a folder of sets, evaluated on another folder."""
    sets = write_sets(tmp_path / "sets", [f"{number}_set" for number in range(8)])
    options = [
        *tiny("pools", "prototypical"),
        "--dataset",
        sets,
        "--fold",
        "1",
        "--support",
        "1",
        "4",
    ]
    options += ["--test-support", "5", "--hidden", "8", "--queries", "12"]
    assert status("pools", *options, "--out", tmp_path / "run") == 0
    results = results_of(tmp_path / "run")
    assert results["figure"] == "average_precision" and results["average_precision"] > 0.3
    tested = results["protocol"]["sets"]["test"]
    row = results["comparison"]["5 examples"]
    assert [*row["by_pool"]] == sorted(tested, key=[*row["by_pool"]].index) and len(tested) == 2
    for name, own in row["baselines"].items():
        figures = [found[name] for found in row["by_pool"].values()]
        assert own["average_precision"] == pytest.approx(np.mean(figures))
    again = evaluate_run(Evaluate(tmp_path / "run", out=tmp_path / "again.json"), {})
    assert again["average_precision"] == results["average_precision"]
    other = write_sets(tmp_path / "other", ["90_new", "91_new"])
    seen = results["protocol"]["sets"]["train"][0]
    shutil.copy(sets / f"{seen}.npz", other)
    options = Evaluate(tmp_path / "run", out=tmp_path / "other.json")
    found = evaluate_run(options, {"dataset": str(other), "baseline_draws": 0})
    assert sorted(found["comparison"]["5 examples"]["by_pool"]) == ["90_new", "91_new"]
    options = Evaluate(tmp_path / "run", out=tmp_path / "one.json")
    one = evaluate_run(options, {"dataset": str(other / "90_new.npz")})
    row = one["comparison"]["5 examples"]
    assert [*row["by_pool"]] == ["90_new"] and np.isnan(one["average_precision_ci95"])


@pytest.mark.slow
def test_a_run_on_volatility_has_tests_of_its_forecasts(status, tiny, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    days = np.arange(np.datetime64("2014-06-01"), np.datetime64("2018-01-01"))
    days = days[np.is_busday(days)]
    close = 50 * np.exp(np.cumsum(0.01 * rng.normal(size=(3, len(days))), axis=1))
    spread = np.exp(0.01 * rng.uniform(0.5, 1.5, size=close.shape))
    table = np.stack([close, close * spread, close / spread, close, close], axis=2)
    (tmp_path / "sp500_5yr").mkdir()
    dates = [str(day) for day in days]
    place = tmp_path / "sp500_5yr" / "sp500_5yr.npz"
    np.savez(place, ohlcv=table, ticker=["A", "B", "C"], date=dates)
    monkeypatch.setenv("JAXMETA_DATA_DIR", str(tmp_path))
    options = [*tiny("pools", "bayesian-last-layer"), "--dataset", "volatility"]
    options += ["--support", "20", "30", "--test-support", "60", "--eval-tasks", "12"]
    assert status("pools", *options, "--out", tmp_path / "run") == 0
    results = results_of(tmp_path / "run")
    assert results["figure"] == "qlike"
    row = results["comparison"]["60 examples"]
    assert {*row["diebold_mariano"]} == {"HAR", "EWMA (0.94)", "last value"}
    assert {*row["value_at_risk"]} == {"bayesian-last-layer", *row["diebold_mariano"]}
    values = read_per_task(tmp_path / "run" / "per_task.npz")["60 examples"].values
    assert values["qlike"].shape == (12,) and np.isfinite(values["qlike"]).all()

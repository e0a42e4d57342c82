"""The tables on pools, from a result file written by hand."""

import json

from experiments.pool_tables import anomaly_tables, pools_tables, volatility_tables


def row(mean: float, lead: float | None = None) -> dict:
    found = {"mae": mean, "mae_ci95": 0.01}
    if lead is not None:
        found |= {"learned_minus_this": lead, "learned_minus_this_ci95": 0.002}
    return found


def test_a_run_on_pools(tmp_path):
    comparison = {
        "1 examples": {"baselines": {"film mean": row(1.25, -0.05)}},
        "5 examples": {
            "baselines": {"film mean": row(1.25, -0.1)},
            "published": {"MeLU": row(1.2, -0.05)},
        },
    }
    own = {"experiment": "pools", "learner": "alpaca", "dataset": "ratings", "figure": "mae"}
    own |= {"comparison": comparison, "tests": {"1 examples": row(1.2), "5 examples": row(1.15)}}
    for name, results in {"a": own, "other": {"experiment": "bandits"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    lines = pools_tables(tmp_path).splitlines()
    assert lines[0] == "#### ratings, [alpaca](../../experiments/results/a/results.json): mae"
    assert lines[2] == "| method | 1 example | 5 examples |"
    assert lines[4:] == [
        "| alpaca | 1.200 ± 0.010 | 1.150 ± 0.010 |",
        "| film mean | 1.250 (-0.050 ± 0.002) | 1.250 (-0.100 ± 0.002) |",
        "| MeLU, published | – | 1.200 (-0.050 ± 0.002) |",
    ]


def test_rotations_are_averaged_over_all_sets(tmp_path):
    pools = [{"a": (0.5, 0.25), "b": (0.25, 0.5)}, {"c": (0.75, 0.0)}]
    for fold, own in enumerate(pools):
        figures = {name: {"maml": one, "forest": two} for name, (one, two) in own.items()}
        results = {"experiment": "pools", "learner": "maml", "figure": "average_precision"}
        results |= {"protocol": {"split": f"by set, fold {fold} of 4"}}
        half = 1.96 * 0.02**0.5 / 2**0.5 if len(own) == 2 else float("nan")
        area = {"auroc": (0.7, 0.9)[fold], "auroc_ci95": half}
        comparison = {"by_pool": figures, "baselines": {"forest": area}}
        results |= {"comparison": {"5 examples": comparison}, **area}
        (tmp_path / f"run-{fold}").mkdir()
        (tmp_path / f"run-{fold}" / "results.json").write_text(json.dumps(results))
    assert pools_tables(tmp_path) == ""
    lines = anomaly_tables(tmp_path).splitlines()
    assert "maml ([fold 0](" in lines[0] and "[fold 1](" in lines[0]
    assert lines[2] == "| method | 5 known anomalies, 3 sets |"
    # Leads of 0.25, -0.25 and 0.75.
    assert lines[4:6] == ["| maml | 0.500 ± 0.283 |", "| forest | 0.250 ± 0.283 (+0.250 ± 0.566) |"]
    # Of 0.6 and 0.8 in the first fold, and 0.9 in the second.
    assert "AUROC" in lines[7] and lines[11:13] == [
        "| maml | 0.767 ± 0.173 |",
        "| forest | 0.767 ± 0.173 |",
    ]
    assert lines[18:] == [
        "| a | **0.500** | 0.250 |",
        "| b | 0.250 | **0.500** |",
        "| c | **0.750** | 0.000 |",
    ]


def test_tests_of_forecasts(tmp_path):
    assert volatility_tables(tmp_path) == ""
    row = {
        "diebold_mariano": {"HAR": {"statistic": -3.5, "p_value": 0.0005}},
        "value_at_risk": {"HAR": {"0.01": {"rate": 0.0123, "stocks_rejected": 0.1}}},
    }
    results = {"experiment": "pools", "learner": "maml", "comparison": {"60 examples": row}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    lines = volatility_tables(tmp_path).splitlines()
    link = "[maml](../../experiments/results/run/results.json)"
    assert lines[2] == f"| {link} | HAR | -3.50 | < 0.001 |"
    assert lines[-1] == "| HAR | 1.23 % (10 %) |"

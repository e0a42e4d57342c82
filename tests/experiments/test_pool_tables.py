"""The tables on pools, from a result file written by hand."""

import json

from experiments.pool_tables import pools_tables


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
    assert lines[2] == "| method | 1 examples | 5 examples |"
    assert lines[4:] == [
        "| alpaca | 1.200 ± 0.010 | 1.150 ± 0.010 |",
        "| film mean | 1.250 (-0.050 ± 0.002) | 1.250 (-0.100 ± 0.002) |",
        "| MeLU, published | – | 1.200 (-0.050 ± 0.002) |",
    ]

"""The tables on streams, from result files written by hand."""

import json

from experiments.stream_tables import regimes_tables


def row(loss: float, lead: float | None = None) -> dict:
    found = {"loss": loss, "loss_ci95": 0.01}
    if lead is not None:
        found |= {"learned_minus_this": lead, "learned_minus_this_ci95": 0.002}
    return found


def test_a_run_on_streams(tmp_path):
    window = {"experiment": "streams", "learner": "sliding-window", "task": "sinusoids"}
    detection = {"detected": 0.9, "delay": 1.0, "false_alarms": 0.2}
    detection |= {f"{name}_ci95": 0.01 for name in detection}
    own = {**window, "learner": "moca", **row(0.5), "hazard": 0.05, "detection": detection}
    own["rules"] = {"learned": row(0.5), "known switches": row(0.25, 0.25)}
    found = {"a": own, "b": {**window, **row(1.5)}, "other": {"experiment": "bandits"}}
    for name, results in found.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    lines = regimes_tables(tmp_path).splitlines()
    link = "../../experiments/results"
    assert lines[:2] == ["#### sinusoids", ""]
    assert lines[4:7] == [
        f"| [a]({link}/a/results.json) | 0.500 ± 0.010 |",
        "| known switches, on the features of moca | 0.250 (+0.250 ± 0.002) |",
        f"| [b]({link}/b/results.json) | 1.500 ± 0.010 |",
    ]
    last = f"| [a]({link}/a/results.json) | 90.0 ± 1.0 | 1.00 ± 0.01 | 0.20 ± 0.01 | 0.050 |"
    assert lines[-1] == last

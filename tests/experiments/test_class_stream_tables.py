"""The table on streams of classes, from result files written by hand."""

import json

from experiments.class_stream_tables import class_streams_table


def row(accuracy: float) -> dict:
    return {"accuracy": accuracy, "accuracy_ci95": 0.01}


def test_learners_rivals_and_published_figures(tmp_path):
    own = {"experiment": "class-streams", "learner": "oml", "lengths": [10, 200]}
    own["protocol"] = {"inner": {}}
    own["tests"] = {"10 classes": row(0.9), "200 classes": row(0.5)}
    own["rivals"] = {"10 classes": {"replay": row(0.95)}, "200 classes": {"replay": row(0.8)}}
    scratch = {**own, "learner": "online", "lengths": [10], "tests": None, "rivals": {}, **row(0.2)}
    scratch["protocol"] = {"inner": {"from_scratch": True}}
    found = {"a": own, "b": scratch, "other": {"experiment": "bandits"}}
    for name, results in found.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    link = "../../experiments/results"
    assert class_streams_table(tmp_path).splitlines() == [
        "| learner | 10 classes | 200 classes |",
        "|---|---|---|",
        f"| [a]({link}/a/results.json) | 90.0 ± 1.0 | 50.0 ± 1.0 |",
        "| replay, on the features of a | 95.0 ± 1.0 | 80.0 ± 1.0 |",
        "| oml, published, larger network | 93 | 60 |",
        f"| [b]({link}/b/results.json) | 20.0 ± 1.0 | – |",
    ]

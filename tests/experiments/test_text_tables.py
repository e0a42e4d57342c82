"""The tables on texts, from result files written by hand."""

import json

import numpy as np
import pytest

from experiments.text_tables import aggregations_table, sentiment_table, texts_table
from jaxmeta.recipes.results import PerTask, write_per_task


def write(folder, values: list[float]) -> None:
    row = {"accuracy": float(np.mean(values)), "accuracy_ci95": 0.03}
    lead = {"learned_minus_this": 0.01, "learned_minus_this_ci95": 0.02}
    own = {"experiment": "text", "learner": "maml", "dataset": "banking77", "shots": 1, **row}
    frozen = {"prototypes": {**row, **lead}, "regression": {**row, **lead}}
    own |= {"tests": {"test": row, "5-shot": row}, "frozen": {"test": frozen, "5-shot": frozen}}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(own))
    tasks = PerTask("the same", {"accuracy": np.asarray(values)})
    write_per_task(folder / "per_task.npz", {"test": tasks, "5-shot": tasks}, "abc")


def test_aggregations_are_compared_with_the_mean_on_the_tasks_of_the_same_splits(tmp_path):
    write(tmp_path / "maml-banking77-1-mean", [0.5, 0.75])
    write(tmp_path / "maml-banking77-2-mean", [0.25, 0.5])
    write(tmp_path / "maml-banking77-2-pcgrad", [0.5, 0.75])
    lines = aggregations_table(tmp_path).splitlines()
    assert lines[2].startswith("| banking77 | maml | mean (2 of 5 splits) | 50.0 ± 20.0 | – |")
    assert "| pcgrad (1 of 5 splits) |" in lines[3] and "| +25.00 ± 0.00 |" in lines[3]


def test_splits_are_averaged_and_variants_and_aggregations_stand_apart(tmp_path):
    write(tmp_path / "maml-banking77-1", [0.5, 0.75])
    write(tmp_path / "maml-banking77-2", [0.25, 0.5])
    write(tmp_path / "maml-banking77-1-shuffled", [0.25, 0.25])
    write(tmp_path / "maml-banking77-1-pcgrad", [1.0, 1.0])
    rows = texts_table(tmp_path).splitlines()[2:]
    assert len(rows) == 4 and not any("100.0" in row for row in rows)
    # Two intervals of 3 points give one of 3 / sqrt(2) for their mean.
    assert "| banking77 | 1 | maml (2 of 5 splits) | 50.0 ± 2.1 |" in "\n".join(rows)
    assert "| banking77 | 1 | maml, shuffled (1 of 5 splits) | 25.0 ± 3.0 |" in "\n".join(rows)


def test_a_folder_without_a_class_split(tmp_path):
    write(tmp_path / "banking", [0.5, 0.75])
    with pytest.raises(ValueError, match="banking: name the folder LEARNER-SET-SPLIT"):
        texts_table(tmp_path)


def test_sentiment_stands_beside_frozen_classifiers_and_published_means(tmp_path):
    def row(accuracy: float) -> dict[str, float]:
        lead = {"learned_minus_this": 0.7 - accuracy, "learned_minus_this_ci95": 0.02}
        return {"accuracy": accuracy, "accuracy_ci95": 0.03, **lead}

    frozen = {"prototypes": row(0.6), "regression": row(0.65), "majority": row(0.78)}
    own = {"experiment": "sentiment", "learner": "maml", **row(0.7), "frozen": {"test": frozen}}
    own["protocol"] = {"adapts": "the last 2 of 6 layers, mean pooling"}
    own["after_inner_steps"] = {"accuracy": [0.72, 0.7], "accuracy_ci95": [0.04, 0.03]}
    folder = tmp_path / "maml-arsc"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(own))
    first, *published = sentiment_table(tmp_path).splitlines()[2:]
    assert first.endswith(
        "| the last 2 of 6 layers | 72.0 ± 4.0 | 70.0 ± 3.0 | 60.0 ± 3.0 | +10.00 ± 2.00 "
        "| 65.0 ± 3.0 | +5.00 ± 2.00 | 78.0 ± 3.0 |"
    )
    assert len(published) == 4 and all(row.count("–") == 7 for row in published)

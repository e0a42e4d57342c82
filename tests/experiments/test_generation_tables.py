"""The tables on generated examples, from result files written by hand."""

import json

import numpy as np

from experiments.generation_tables import generators_table, imagined_tables
from jaxmeta.recipes.results import PerTask, write_per_task


def write(folder, count: int, values: list[float]) -> None:
    row = {"accuracy": float(np.mean(values)), "accuracy_ci95": 0.01}
    protocol = {"inner": {"count": count, "view_count": 0}, "features_of": "a network"}
    own = {"experiment": "features", "dataset": "letters", "ways": 5, "shots": 1, **row}
    own |= {"protocol": protocol, "figure": "accuracy", "identity": "abc"}
    own["tests"] = {"test": row, "5-shot": row}
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(own))
    tasks = PerTask("the same", {"accuracy": np.asarray(values)})
    write_per_task(folder / "per_task.npz", {"test": tasks, "5-shot": tasks}, "abc")


def test_differences_are_paired_with_the_head_alone(tmp_path):
    write(tmp_path / "a", 20, [0.5, 0.75, 1.0])
    write(tmp_path / "head", 0, [0.25, 0.5, 0.75])
    lines = imagined_tables(tmp_path).splitlines()
    assert lines[0] == "#### letters, 5-way, features of a network"
    link = "../../experiments/results"
    assert lines[4:] == [
        f"| [head]({link}/head/results.json) | 0 | 50.0 ± 1.0 | – | 50.0 ± 1.0 | – |",
        f"| [a]({link}/a/results.json) | 20 | 75.0 ± 1.0 | +25.00 ± 0.00 | 75.0 ± 1.0 "
        "| +25.00 ± 0.00 |",
    ]
    assert lines[2] == "| run | generated | 1-shot (%) | difference | 5-shot (%) | difference |"


def test_generators_of_images(tmp_path):
    nearest = {"generated": {"median": 0.2}, "test": {"median": 0.25}}
    distances = {"generated": 3.0, "other test images": 1.0, "the mean image": 20.0}
    own = {"experiment": "generate", "frechet": distances, "nearest_training_image": nearest}
    (tmp_path / "vae").mkdir()
    own |= {"bound": -90.0, "bound_ci95": 0.5}
    (tmp_path / "vae" / "results.json").write_text(json.dumps(own))
    last = generators_table(tmp_path).splitlines()[-1]
    assert last.endswith("| -90.0 ± 0.5 | 3.00 | 1.00 | 20.00 | 0.200 | 0.250 |")

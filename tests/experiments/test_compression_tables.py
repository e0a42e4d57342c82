"""The table of compressed learners, from result files of several commands."""

import json

import pytest

from experiments.compression_tables import compression_tables


@pytest.fixture
def written(tmp_path):
    """`written(name, *versions)` writes a result file; the folder of all results."""

    def write(name, *versions):
        folder = tmp_path / "compression"
        folder.mkdir(exist_ok=True)
        rows = [
            {"name": own, "accuracy": 0.9, "accuracy_ci95": 0.01, "bytes": 4000}
            | {"difference": -0.05, "difference_ci95": 0.002}
            for own in ("uncompressed", *versions)
        ]
        tasks = {"ways": 5, "shots": 1, "num_tasks": 100, "settings": {"steps": 300}}
        (folder / name).write_text(json.dumps({"run": "maml-glyphs", "rows": rows, **tasks}))
        return tmp_path

    return write


def test_versions_are_in_the_order_of_their_methods(written):
    written("b.json", "gradual 90 %", "prune 60 %")
    folder = written("a.json", "int8")
    table = compression_tables(folder)
    assert table.startswith("#### maml-glyphs, 5-way 1-shot, 100 tasks")
    rows = [line.split("|")[1:-1] for line in table.splitlines()[4:]]
    assert [row[0].strip().strip("[").partition("]")[0] for row in rows] == [
        *("uncompressed", "int8", "prune 60 %", "gradual 90 %")
    ]
    assert rows[1][1:] == [" 90.0 ± 1.0 ", " -5.00 ± 0.20 ", " 4 ", " – "]
    assert rows[3][-1] == " 300 "


def test_two_results_of_one_version_are_refused(written):
    written("a.json", "int8")
    with pytest.raises(ValueError, match="a second result of maml-glyphs, int8"):
        compression_tables(written("b.json", "int8"))

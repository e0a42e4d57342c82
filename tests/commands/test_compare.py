"""Runs compared pairwise on the same tasks, with differences worked out by hand."""

import json

import numpy as np
import pytest

from jaxmeta.commands.compare import compare
from jaxmeta.recipes.results import PerTask, read_per_task, write_per_task


@pytest.fixture
def written(tmp_path):
    """`written(name, tests)` writes a run of these values by test and metric; its folder."""

    def write(name, tests, tasks="the same"):
        folder = tmp_path / name
        folder.mkdir()
        figure = next(iter(next(iter(tests.values()))))
        (folder / "results.json").write_text(json.dumps({"learner": "maml", "figure": figure}))
        arrays = {
            test: PerTask(tasks, {metric: np.asarray(own) for metric, own in values.items()})
            for test, values in tests.items()
        }
        write_per_task(folder / "per_task.npz", arrays)
        return folder

    return write


def test_values_of_single_tasks_are_read_back(tmp_path):
    path = tmp_path / "per_task.npz"
    values = {"accuracy": np.array([0.5, 1.0]), "losses": np.ones((2, 3))}
    write_per_task(path, {"length 3": PerTask("abc", values)})
    (found,) = read_per_task(path).values()
    assert found.tasks == "abc"
    assert found.values.keys() == {"accuracy"}  # a number for every task
    assert found.values["accuracy"].dtype == np.float32
    np.testing.assert_array_equal(found.values["accuracy"], [0.5, 1.0])


def test_the_paired_difference_by_hand(written, status, capsys, tmp_path):
    first = written("one", {"test": {"accuracy": [0.5, 0.25, 1.0, 0.75], "loss": [1, 2, 3, 4]}})
    second = written("two", {"test": {"accuracy": [0.75, 0.75, 1.0, 0.5], "loss": [1, 1, 1, 1]}})
    # The differences are 0.25, 0.5, 0, -0.25: mean 0.125, standard deviation √(0.3125 / 3).
    metric, (row,) = compare((first, second))
    assert metric == "accuracy"
    assert (row.test, row.first, row.second, row.tasks) == ("test", "one", "two", 4)
    assert row.mean == pytest.approx(0.125)
    assert row.ci95 == pytest.approx(1.96 * (0.3125 / 3) ** 0.5 / 2, rel=1e-3)
    # The other way round, and of another metric: -(0 + 1 + 2 + 3) / 4.
    _, (other,) = compare((second, first))
    assert (other.mean, other.ci95) == (-row.mean, row.ci95)
    _, (loss,) = compare((first, second), "loss")
    assert loss.mean == pytest.approx(-1.5)

    out = tmp_path / "differences.json"
    assert status("compare", first, second, "--out", out) == 0
    assert (
        capsys.readouterr().out
        == "accuracy of two minus one: +12.5 ± 32 points on 4 tasks (95 % interval)\n"
    )
    assert json.loads(out.read_text()) == {"metric": "accuracy", "differences": [row._asdict()]}


def test_every_pair_and_every_test(written, status, capsys):
    runs = [
        written(name, {test: {"bits": [level, level + 1]} for test in ("length 3", "length 5")})
        for name, level in (("a", 1.0), ("b", 2.0), ("c", 4.0))
    ]
    _, rows = compare(tuple(runs))
    found = [(row.test, row.first, row.second, row.mean, row.ci95) for row in rows]
    pairs = [("a", "b", 1.0, 0.0), ("a", "c", 3.0, 0.0), ("b", "c", 2.0, 0.0)]
    assert found == [(test, *pair) for test in ("length 3", "length 5") for pair in pairs]
    assert status("compare", *runs) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("length 3 · bits of b minus a: +1 ")


def test_runs_of_one_name_are_told_apart(written, tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    paths = [written(f"{place}/seed_0", {"test": {"loss": [1.0, 2.0]}}) for place in ("a", "b")]
    (row,) = compare(tuple(paths))[1]
    assert (row.first, row.second) == tuple(map(str, paths))


def test_runs_that_cannot_be_compared(written, status, capsys, tmp_path):
    values = {"accuracy": [0.5, 0.75], "loss": [1.0, 2.0]}
    one, same = written("one", {"test": values}), written("same", {"test": values})
    others = written("others", {"test": values}, tasks="other tasks")
    curves = written("curves", {"test": {"loss": [1.0, 2.0]}})
    lengths = written("lengths", {"length 3": values})
    without = tmp_path / "without"
    without.mkdir()
    (without / "results.json").write_text('{"learner": "maml"}')
    broken = written("broken", {"test": values})
    (broken / "results.json").write_text("{")
    damaged = written("damaged", {"test": values})
    (damaged / "per_task.npz").write_bytes(b"PK not an archive")
    for arguments, told in (
        ([one], "give two or more runs"),
        ([one, one], "a run is given twice"),
        ([one, others], "one and others were not tested on the same tasks (test); evaluate both"),
        ([one, same, others], "one and others were not tested on the same tasks"),
        ([one, lengths], "have no test in common"),
        ([one, curves, "--metric", "accuracy"], "curves has no such metric; choose from loss"),
        ([one, same, "--metric", "acuracy"], "--metric acuracy: one has no such metric"),
        ([one, without], "this run has no per-task values; evaluate it again"),
        ([one, tmp_path / "absent"], "give a finished run"),
        ([one, broken], "can't be read"),
        ([one, damaged], "can't be read"),
    ):
        assert status("compare", *arguments) == 1
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        assert told in line
        assert captured.out == ""
    # Without --metric, one that both have.
    assert compare((one, curves))[0] == "loss"


@pytest.mark.slow
def test_learners_are_compared_on_their_runs_tasks(trained, status, capsys):
    maml, anil = trained("regression"), trained("regression", "anil")
    capsys.readouterr()
    assert status("compare", maml, anil) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"loss of {anil.name} minus {maml.name}: ")
    assert line.endswith(" on 6 tasks (95 % interval)\n")
    tests = [read_per_task(run / "per_task.npz")["test"] for run in (maml, anil)]
    difference = (tests[1].values["loss"] - tests[0].values["loss"]).mean()
    _, (row,) = compare((maml, anil))
    assert row.mean == pytest.approx(float(difference), rel=1e-4, abs=1e-6)
    # Of the same learner trained with another seed the tasks are others.
    other = trained("regression", None, "--seed", "1")
    capsys.readouterr()
    assert status("compare", maml, other) == 1
    assert "were not tested on the same tasks" in capsys.readouterr().err
    assert status("evaluate", other, "--seed", "0", "--out", other / "seed-0.json") == 0
    assert status("compare", maml, other / "seed-0.json") == 0

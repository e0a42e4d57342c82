"""A run evaluated again: the same tasks, other tasks, and what is refused."""

import json
import shutil

import pytest

from experiments.command_line import guarded
from experiments.evaluate import Evaluate, evaluate


@pytest.fixture
def evaluated(trained, capsys):
    """`evaluated(learner, **options)`: status, closing lines, errors."""

    def run(learner, folder=None, **options):
        folder = folder or trained(learner)
        capsys.readouterr()
        status = guarded(lambda: evaluate(Evaluate(folder, **options)))
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err

    return run


def test_the_same_tasks_give_the_result_of_the_run(trained, evaluated, tmp_path):
    status, lines, _ = evaluated("maml", out=tmp_path / "again.json")
    assert status == 0
    again = json.loads((tmp_path / "again.json").read_text())
    results = json.loads((trained("maml") / "results.json").read_text())
    for name in ("accuracy", "accuracy_ci95", "num_tasks", "best_step", "ways", "shots", "seed"):
        assert again[name] == results[name]
    assert again["loss"] == pytest.approx(results["loss"], rel=1e-6)
    assert again["protocol"] == results["protocol"]
    assert lines[0].startswith("maml · ")
    assert lines[1] == f"result: {tmp_path / 'again.json'}"


@pytest.mark.slow
def test_other_ways_and_shots_of_a_prototypical_network(trained, evaluated):
    status, lines, _ = evaluated("prototypical", ways=2, shots=4, eval_tasks=10)
    assert status == 0
    assert "2-way 4-shot" in lines[0]
    assert lines[0].endswith("on 10 held-out tasks")
    result = json.loads((trained("prototypical") / "evaluation-2w4s.json").read_text())
    assert (result["ways"], result["shots"], result["num_tasks"]) == (2, 4, 10)
    assert result["accuracy"] > 0.5
    assert result["protocol"]["train_episode"] == {"ways": 3, "shots": 2, "queries": 2}


@pytest.mark.slow
def test_shuffled_labels_are_a_control(trained, evaluated, tmp_path):
    out = tmp_path / "control.json"
    status, _, _ = evaluated("prototypical", shuffle_labels=True, eval_tasks=100, out=out)
    assert status == 0
    control = json.loads(out.read_text())
    assert control["protocol"]["shuffled_labels"] is True
    # Chance is a third, the deviation of the mean of 900 queries a sixtieth.
    assert abs(control["accuracy"] - 1 / 3) < 0.08


def test_other_tasks_and_inner_steps(trained, evaluated, tmp_path):
    status, _, _ = evaluated("maml", seed=3, inner_steps=0, eval_tasks=6, out=tmp_path / "new.json")
    assert status == 0
    new = json.loads((tmp_path / "new.json").read_text())
    assert new["seed"] == 3
    assert new["protocol"]["inner"]["eval_inner_steps"] == 0


@pytest.mark.parametrize(
    ("learner", "options", "told"),
    [
        ("maml", {"ways": 2}, "each of the 3 classes that it is trained with and cannot tell 2"),
        ("prototypical", {"ways": 9}, "9-way tasks need 9 classes and the split has 3"),
        ("prototypical", {"ways": 1}, "--ways 1: "),
        ("prototypical", {"shots": 0}, "--shots 0: "),
        ("prototypical", {"eval_tasks": 1}, "--eval-tasks 1: "),
        ("prototypical", {"inner_steps": 2}, "prototypical takes no inner steps"),
        ("prototypical", {"dataset": "glyfs"}, "glyphs"),
    ],
)
def test_what_cannot_be_evaluated(learner, options, told, evaluated, tmp_path):
    status, lines, error = evaluated(learner, out=tmp_path / "none.json", **options)
    assert (status, lines) == (1, [])
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not (tmp_path / "none.json").exists()


def test_a_set_of_other_images(trained, evaluated, tmp_path):
    # The run's folder says that it was trained on images of another size.
    folder = tmp_path / "run"
    shutil.copytree(trained("prototypical"), folder)
    fields = json.loads((folder / "config.json").read_text())
    fields["config"] |= {"image_size": None}
    (folder / "config.json").write_text(json.dumps(fields))
    status, _, error = evaluated("prototypical", folder=folder)
    assert status == 1
    (line,) = error.splitlines()
    assert "has images of (84, 84, 1), the run was trained on (12, 12, 1)" in line


def test_regression_has_no_ways(trained_curves, evaluated):
    status, _, error = evaluated("maml", folder=trained_curves("maml"), ways=3)
    assert status == 1
    assert error == "error: a regression has no --ways, --dataset or --shuffle-labels.\n"


def test_random_numbers_of_points_are_no_shots(trained_curves, evaluated, tmp_path):
    folder = shutil.copytree(trained_curves("maml"), tmp_path / "run")
    fields = json.loads((folder / "config.json").read_text())
    fields["config"] |= {"task": "gp"}
    (folder / "config.json").write_text(json.dumps(fields))
    status, _, error = evaluated("maml", folder=folder, shots=3)
    assert status == 1
    assert error == "error: tasks of a random number of points have no --shots.\n"


def test_regression_at_other_shots(trained_curves, evaluated, tmp_path):
    out = tmp_path / "three.json"
    status, lines, _ = evaluated("maml", folder=trained_curves("maml"), shots=3, out=out)
    assert status == 0
    assert "3-shot · mean squared error" in lines[0]
    assert json.loads(out.read_text())["protocol"]["train_episode"]["shots"] == 10

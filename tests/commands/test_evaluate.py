"""A run evaluated again: the same tasks, other tasks, and what is refused."""

import json
import shutil

import jax
import pytest
from PIL import Image

from jaxmeta.commands.compare import compare
from jaxmeta.recipes import restore
from jaxmeta.recipes.results import read_per_task
from jaxmeta.training.checkpoints import save_best


@pytest.fixture
def evaluated(status, capsys):
    """`evaluated(folder, *options)`: status, closing lines, errors."""

    def run(folder, *options):
        capsys.readouterr()
        found = status("evaluate", folder, *options)
        captured = capsys.readouterr()
        return found, captured.out.splitlines(), captured.err

    return run


def test_the_same_tasks_give_the_result_of_the_run(trained, evaluated, tmp_path):
    # Batch statistics would amplify the rounding errors of two programs.
    folder = trained("few-shot", "maml", "--query-statistics", "none")
    out = tmp_path / "again.json"
    status, lines, _ = evaluated(folder, "--out", out)
    assert status == 0
    again = json.loads(out.read_text())
    results = json.loads((folder / "results.json").read_text())
    for name in ("accuracy", "accuracy_ci95", "num_tasks", "best_step", "ways", "shots", "seed"):
        assert again[name] == results[name]
    assert again["loss"] == pytest.approx(results["loss"], rel=1e-6)
    for name in ("protocol", "experiment", "learner", "dataset"):
        assert again[name] == results[name]
    assert again["run"] == folder.name
    assert lines[0].startswith("maml · ")
    assert lines[1] == f"result: {out}"
    # The values of every task stand beside it.
    (values,) = read_per_task(tmp_path / "again.npz").values()
    assert values.values["accuracy"].mean() == pytest.approx(results["accuracy"], abs=1e-6)


@pytest.mark.slow
def test_other_ways_and_shots_of_a_prototypical_network(trained, evaluated):
    folder = trained("few-shot", "prototypical")
    options = ["--ways", "2", "--shots", "4", "--eval-tasks", "10"]
    status, lines, _ = evaluated(folder, *options)
    assert status == 0
    assert "2-way 4-shot" in lines[0]
    assert lines[0].endswith("on 10 held-out tasks")
    result = json.loads((folder / "evaluation-ways-2-shots-4-eval-tasks-10.json").read_text())
    assert (result["ways"], result["shots"], result["num_tasks"]) == (2, 4, 10)
    assert result["accuracy"] > 0.5
    # 60 ways of the preset, as many as there are classes.
    assert result["protocol"]["train_episode"] == {"ways": 6, "shots": 2, "queries": 2}


@pytest.mark.slow
def test_shuffled_labels_are_a_control(trained, evaluated, tmp_path):
    out = tmp_path / "control.json"
    options = ["--shuffle-labels", "--eval-tasks", "100", "--out", out]
    status, _, _ = evaluated(trained("few-shot", "prototypical"), *options)
    assert status == 0
    control = json.loads(out.read_text())
    assert control["protocol"]["shuffled_labels"] is True
    # Chance is a third, the standard deviation of the mean of 900 queries a sixtieth.
    assert abs(control["accuracy"] - 1 / 3) < 0.08


@pytest.mark.slow
def test_other_tasks_and_inner_steps(trained, evaluated, tmp_path):
    out = tmp_path / "new.json"
    options = ["--seed", "3", "--eval-inner-steps", "0", "--eval-tasks", "5", "--out", out]
    status, _, _ = evaluated(trained("few-shot"), *options)
    assert status == 0
    new = json.loads(out.read_text())
    assert (new["seed"], new["num_tasks"]) == (3, 5)
    assert new["protocol"]["inner"]["eval_inner_steps"] == 0
    results = json.loads((trained("few-shot") / "results.json").read_text())
    assert new["accuracy"] != results["accuracy"] or new["loss"] != results["loss"]


@pytest.mark.slow
def test_other_query_statistics(trained, evaluated, tmp_path):
    folder, out = trained("few-shot", "maml"), tmp_path / "support.json"
    status, _, _ = evaluated(folder, "--query-statistics", "support", "--out", out)
    assert status == 0
    new, own = (json.loads(path.read_text()) for path in (out, folder / "results.json"))
    names = ("query_statistics", "transductive")
    assert [own["protocol"][name] for name in names] == ["batch", True]
    assert [new["protocol"][name] for name in names] == ["support", False]
    assert new["loss"] != own["loss"]
    _, (difference,) = compare((folder, out))  # on the same tasks
    assert difference.tasks == own["num_tasks"]


@pytest.mark.full
def test_regression_at_other_shots(trained, evaluated, tmp_path):
    out = tmp_path / "three.json"
    status, lines, _ = evaluated(trained("regression"), "--shots", "3", "--out", out)
    assert status == 0
    assert "3-shot · mean squared error" in lines[0]
    assert json.loads(out.read_text())["protocol"]["train_episode"]["shots"] == 10


@pytest.mark.slow
def test_sequences_of_other_lengths(trained, evaluated, tmp_path):
    out = tmp_path / "seven.json"
    options = ["--test-lengths", "7", "4", "--out", out]
    status, lines, _ = evaluated(trained("sequence"), *options)
    assert status == 0
    assert list(json.loads(out.read_text())["tests"]) == ["length 7", "length 4"]
    assert "length 7" in lines[0] and "length 4" in lines[1]


@pytest.mark.full
@pytest.mark.parametrize(
    ("learner", "options", "told"),
    [
        ("maml", "--ways 2", "requires tasks of 3 classes, not 2"),
        ("maml", "--ways 1", "--ways 1: "),
        ("maml", "--shots 0", "--shots 0: "),
        ("maml", "--eval-tasks 1", "--eval-tasks 1: "),
        ("maml", "--eval-inner-steps -1", "--eval-inner-steps -1: "),
        ("maml", "--dataset glyfs", "glyphs"),
        ("prototypical", "--ways 9", "9-way tasks require 9 classes, but there are 6"),
    ],
)
def test_what_cannot_be_evaluated(learner, options, told, trained, evaluated, tmp_path):
    folder = trained("few-shot", learner)
    status, lines, error = evaluated(folder, *options.split(), "--out", tmp_path / "none.json")
    assert (status, lines) == (1, [])
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert told in line
    assert not (tmp_path / "none.json").exists()


@pytest.mark.full
@pytest.mark.parametrize(
    ("domain", "learner", "option"),
    [
        ("few-shot", "prototypical", "--eval-inner-steps"),
        ("few-shot", "maml", "--inner-rate"),  # which touches what was trained
        ("few-shot", "maml", "--train-ways"),
        ("regression", "maml", "--ways"),
        ("regression", "maml", "--hidden"),
        ("sequence", None, "--shots"),
    ],
)
def test_options_are_those_of_the_run_that_may_change(
    domain, learner, option, trained, evaluated, capsys
):
    folder = trained(domain, learner)
    status, lines, error = evaluated(folder, option, "2")
    assert status == 2
    assert option in error + " ".join(lines)
    status, lines, _ = evaluated(folder, "--help")
    assert status == 0
    words = " ".join(lines)
    assert f"{option} " not in words
    offered = {"few-shot": "--shuffle-labels", "regression": "--shots"}
    assert offered.get(domain, "--test-lengths") in words


@pytest.mark.full
def test_images_of_another_shape(trained, evaluated, tmp_path):
    for number in range(18):
        folder = tmp_path / "colored" / f"class-{number}"
        folder.mkdir(parents=True)
        for image in range(8):
            color = (255, 10 * number, 30 * image)
            Image.new("RGB", (12, 12), color).save(folder / f"{image}.png")
    options = ["--dataset", tmp_path / "colored", "--out", tmp_path / "none.json"]
    status, _, error = evaluated(trained("few-shot"), *options)
    assert status == 1
    (line,) = error.splitlines()
    assert "inputs of shape (12, 12, 3), but the run was trained on (12, 12, 1)" in line


def test_figures_that_are_no_numbers(trained, evaluated, tmp_path):
    """Not "nan ± nan" and a status of success."""
    folder = shutil.copytree(trained("regression"), tmp_path / "run")
    run, out, again = restore(folder), tmp_path / "one.json", tmp_path / "two.json"
    huge = run.trained._replace(meta_params=jax.tree.map(lambda a: a * 1e30, run.meta_params))
    save_best(folder / "checkpoints", run.step, huge, metadata={})
    for path in (out, again):
        status, lines, error = evaluated(folder, "--eval-tasks", "4", "--out", path)
        assert (status, lines) == (1, [])
        (line,) = error.splitlines()
        assert "the loss is NaN or infinite on some of 4 held-out tasks" in line
        assert str(path) in line
    assert json.loads(out.read_text())["loss"] is None
    with pytest.raises(ValueError, match="is NaN or infinite on some tasks"):
        compare((out, again))


@pytest.mark.full
def test_random_numbers_of_points_are_no_shots(trained, evaluated, tmp_path):
    folder = shutil.copytree(trained("regression"), tmp_path / "run")
    fields = json.loads((folder / "config.json").read_text())
    fields["tasks"]["task"] = "gp"
    fields["tasks"]["points"] |= {"shots": 5, "train_shots": None}
    (folder / "config.json").write_text(json.dumps(fields))
    status, _, error = evaluated(folder, "--shots", "3")
    assert status == 1
    assert error.startswith("error: --shots 3: tasks with a random number of points require")


@pytest.mark.parametrize("arguments", [["no-such-run"], ["no-such-run", "--seed", "1"]])
def test_no_run_there(arguments, status, capsys):
    assert status("evaluate", *arguments) == 1
    assert "no-such-run is not a run folder" in capsys.readouterr().err

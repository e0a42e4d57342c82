"""Many tasks in one call, in the layout of Lake et al.'s twenty runs."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load


def draw(path: Path, image: np.ndarray):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(255 - image[..., 0]).save(path)  # ink is dark


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """`run01` to `run20`: 20 letters, one example each, and another drawing of each to classify."""
    folder = tmp_path_factory.mktemp("lake")
    letters = load("glyphs").test
    rng = np.random.default_rng(0)
    for number in range(1, 21):
        chosen = rng.choice(len(letters.names), 20, replace=False)
        for row, start in enumerate(letters.starts[chosen], 1):
            task, name = folder / f"run{number:02}", f"class{row:02}"
            draw(task / "support" / name / "example.png", letters.images[start])
            draw(task / "query" / name / "item.png", letters.images[start + 1])
    return folder


@pytest.fixture(scope="module")
def run(trained):
    return trained("few-shot", "prototypical")


@pytest.fixture
def predict(status, capsys, run):
    """`predict(tasks, *options)`: status, output, errors."""

    def call(tasks, *options):
        capsys.readouterr()
        found = status("predict", run, "--tasks", tasks, *options)
        return (found, *capsys.readouterr())

    return call


@pytest.fixture
def two(runs, tmp_path) -> Path:
    """A folder of two tasks."""
    for name in ("run01", "run02"):
        shutil.copytree(runs / name, tmp_path / "tasks" / name)
    return tmp_path / "tasks"


def test_twenty_tasks_are_predicted_and_compiled_once(runs, run, predict, tmp_path, monkeypatch):
    from jaxmeta.recipes import predictor

    traced, shared_of, out = [], predictor.shared_of, tmp_path / "made.json"

    def counted(learner, trained):
        traced.append(learner)
        return shared_of(learner, trained)

    monkeypatch.setattr(predictor, "shared_of", counted)
    status, text, error = predict(runs, "--ink", "True", "--out", out)
    assert status == 0, error
    assert len(traced) == 1
    made = json.loads(out.read_text())
    assert [row["task"] for row in made["tasks"]] == [f"run{n:02}" for n in range(1, 21)]
    errors = []
    for row in made["tasks"]:
        assert [own["file"] for own in row["queries"]] == [
            f"query/class{n:02}/item.png" for n in range(1, 21)
        ]
        for number, own in enumerate(row["queries"], 1):
            assert own["true_class"] == f"class{number:02}"
            assert len(own["probabilities"]) == 20
            assert sum(own["probabilities"].values()) == pytest.approx(1, abs=1e-4)
            assert own["probability"] == max(own["probabilities"].values())
            assert own["probabilities"][own["class"]] == own["probability"]
        errors.append(np.mean([own["class"] != own["true_class"] for own in row["queries"]]))
        assert row["error"] == pytest.approx(errors[-1])
    assert made["error"] == pytest.approx(np.mean(errors))
    assert made["error"] < 0.9  # guessing has 0.95
    ci95 = 1.96 * np.std(errors, ddof=1) / np.sqrt(20)
    assert made["error_ci95"] == pytest.approx(ci95) and ci95 > 0
    assert (made["num_tasks"], made["tasks_with_error"], made["learner"]) == (
        20,
        20,
        "prototypical",
    )
    assert f"mean error {100 * made['error']:.1f} ± {100 * ci95:.1f} % over 20 tasks" in text
    assert f"predictions: {out}" in " ".join(text.split())
    assert (made["query_statistics"], made["run"]) == ("training", run.name)


def test_a_task_has_the_predictions_that_it_has_alone(two, run, predict, status, tmp_path):
    out, alone = tmp_path / "made.json", tmp_path / "alone.csv"
    assert predict(two, "--out", out)[0] == 0
    task = two / "run02"
    images = ("--support", task / "support", "--query", task / "query")
    assert status("predict", run, *images, "--out", alone) == 0
    with open(alone, newline="") as file:
        rows = list(csv.DictReader(file))
    found = json.loads(out.read_text())["tasks"][1]["queries"]
    assert [row["image"] for row in rows] == [str(task / own["file"]) for own in found]
    assert [row["class"] for row in rows] == [own["class"] for own in found]
    expected = [float(row["probability"]) for row in rows]
    assert [own["probability"] for own in found] == pytest.approx(expected, abs=1e-5)


@pytest.mark.full
def test_tasks_of_any_size_with_known_classes_or_without(two, predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = two / "run03"  # three classes and one image of unknown class
    for number in (1, 2, 3):
        shutil.copytree(two / f"run01/support/class0{number}", one / f"support/class0{number}")
    shutil.copy(two / "run01/query/class02/item.png", one / "query.png")
    flat = two / "run02/query"  # twenty images of unknown classes
    for number in range(1, 21):
        shutil.move(flat / f"class{number:02}/item.png", flat / f"{number:02}.png")
    (two / "notes.txt").touch()
    for name in ("predictions.json", "predictions-2.json"):
        status, text, error = predict(two)
        assert status == 0, error
        made = json.loads((tmp_path / name).read_text())
    assert ["error" in row for row in made["tasks"]] == [True, False, False]
    assert (made["num_tasks"], made["tasks_with_error"]) == (3, 1)
    assert "error_ci95" not in made
    assert f"mean error {100 * made['error']:.1f} % over 1 task\n" in text
    (own,) = made["tasks"][2]["queries"]
    assert own["file"] == "query.png" and "true_class" not in own
    assert {*own["probabilities"]} == {"class01", "class02", "class03"}


def _remove(*parts):
    return lambda tasks: shutil.rmtree(tasks.joinpath(*parts))


def _empty(tasks):
    (tasks / "run03").mkdir()


def _no_query(tasks):
    (tasks / "run02/query").rename(tasks / "run02/queries")


def _two_queries(tasks):
    shutil.copy(tasks / "run01/query/class02/item.png", tasks / "run02/query.png")


def _broken(tasks):
    (tasks / "run02/query/class07/item.png").write_bytes(b"no image")


def _of_no_class(tasks):
    (tasks / "run02/query/class07").rename(tasks / "run02/query/clas07")


def _no_image(tasks):
    shutil.rmtree(tasks / "run01/query")
    (tasks / "run01/query").mkdir()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_empty, "run03 is not a task: it has no folder support; put the examples"),
        (_remove("run02", "support"), "run02 is not a task: it has no folder support"),
        (_no_query, "run02 is not a task: it has no query; put the images to classify"),
        (_two_queries, "run02 is not a task: it has query and query.png; put"),
        (_no_image, "run01/query holds no image"),
        (_broken, "run02/query/class07/item.png is not an image that can be read"),
        (_of_no_class, "run02/query/clas07/item.png is in no folder of a class, while other"),
        (lambda tasks: [_remove(name)(tasks) for name in ("run01", "run02")], "holds no task"),
        (lambda tasks: _remove()(tasks), "can't read the folder"),
    ],
)
def test_folders_that_are_no_tasks(change, told, two, predict, tmp_path):
    change(two)
    status, text, error = predict(two, "--out", tmp_path / "made.json")
    assert (status, text) == (1, "")
    (line,) = error.splitlines()
    assert told in line and str(two) in line
    assert not (tmp_path / "made.json").exists()


def test_options_that_do_not_fit(two, run, trained, predict, status, capsys, tmp_path):
    out = tmp_path / "made.json"
    out.touch()
    support, query = ("--support", two / "run01/support"), ("--query", two / "run01/query")
    tasks = ("--tasks", two)
    for options, told in (
        ((run, *tasks, *support), "give --support and --query for one task, or --tasks for many"),
        ((run,), "give --support and --query for one task, or --tasks for many"),
        ((run, *support), "give --query, too"),
        ((run, *query), "give --support, too"),
        ((run, *tasks, "--out", tmp_path / "made.png"), "the result of --tasks is JSON"),
        ((run, *tasks, "--out", tmp_path / "absent" / "made.json"), "there is no folder"),
        ((run, *tasks, "--out", out), "made.json exists; give another --out, or --overwrite"),
        ((trained("regression"), *tasks), "--tasks requires a classifier; this is a run of regres"),
    ):
        capsys.readouterr()
        assert status("predict", *options) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert not out.read_bytes()
    assert predict(two, "--out", out, "--overwrite")[0] == 0
    assert json.loads(out.read_text())["num_tasks"] == 2


def test_unsure_predictions_are_marked_and_measured(two, predict, tmp_path):
    out = tmp_path / "made.json"
    status, text, error = predict(two, "--out", out, "--abstain-below", "0.1")
    assert status == 0, error
    made = json.loads(out.read_text())
    queries = [own for row in made["tasks"] for own in row["queries"]]
    for own in queries:
        # Rounding to six digits may cross the threshold.
        assert own["abstains"] == (own["probability"] < 0.1) or abs(own["probability"] - 0.1) < 1e-6
    answered = [own for own in queries if not own["abstains"]]
    assert made["coverage"] == pytest.approx(len(answered) / len(queries))
    wrong = [own["class"] != own["true_class"] for own in answered]
    assert made["risk"] == pytest.approx(np.mean(wrong) if wrong else 0)
    assert made["risk_coverage"]["risk"][0] == pytest.approx(made["error"])
    assert f"{len(answered)} of 40 queries are answered" in " ".join(text.split())

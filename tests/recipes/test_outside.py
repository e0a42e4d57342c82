"""Learners and domains of a user's own, in one module outside the package."""

import json
import sys

import pytest

from jaxmeta.commands.evaluate import Evaluate, evaluate_run
from jaxmeta.recipes import restore


@pytest.fixture
def module(tmp_path, monkeypatch):
    """`module(name, code)` writes a module where only `--recipes` finds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return write


TINY = [
    *("--steps", "4", "--checkpoint-every", "2", "--chunk", "2", "--task-batch", "2"),
    *("--eval-tasks", "6", "--validation-tasks", "4", "--devices", "1"),
]


@pytest.mark.full
def test_the_skeleton_of_a_learner_runs_from_outside(module, contributed, status, tmp_path, capsys):
    module("my_tethered", contributed(0) + "\n\n" + contributed(1))
    options = ["tethered", "--hidden", "8", *TINY, "--out", "run"]
    assert status("regression", *options) == 1  # nothing is known of it
    assert "unknown learner 'tethered'" in capsys.readouterr().err
    options += ["--recipes", "my_tethered"]
    assert status("regression", *options, "--inner-steps", "2") == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("tethered · sinusoids · 5-shot · mean squared error ")
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["learner"]["name"] == "tethered"
    assert "my_tethered" not in json.dumps(config)  # no file says what is imported

    assert status("evaluate", "run", "--recipes", "my_tethered", "--shots", "3") == 0
    assert "3-shot" in capsys.readouterr().out
    (tmp_path / "known.csv").write_text("0,0\n1,0.8\n2,0.9\n")
    (tmp_path / "asked.csv").write_text("0.5\n1.5\n")
    task = ["--support", "known.csv", "--query", "asked.csv", "--recipes", "my_tethered"]
    assert status("predict", "run", *task) == 0
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 3
    run = restore("run", recipes=["my_tethered"], eval_inner_steps=1)
    assert run.experiment.learner.paper == "Authors 2020"  # pyright: ignore


@pytest.mark.full
def test_a_domain_of_ones_own_trains_resumes_evaluates_and_restores(
    module, contributed, status, tmp_path, capsys
):
    module("my_lines", contributed(2))
    options = ["maml", *TINY, "--recipes", "my_lines"]
    assert status("lines", *options, "--out", "run", "--seeds", "0,1") == 0
    capsys.readouterr()
    assert status("lines", *options, "--out", "run/seed_0", "--resume") == 0
    line, folder = capsys.readouterr().out.splitlines()
    assert line.startswith("maml · lines · 5-shot · mean squared error ")
    assert folder.endswith("run/seed_0")
    assert (tmp_path / "run/seed_0/adaptation.png").is_file()
    assert status("evaluate", "run/seed_0", "--recipes", "my_lines", "--shots", "3") == 0
    out = tmp_path / "run/seed_0/evaluation-shots-3.json"
    assert json.loads(out.read_text())["shots"] == 3
    run = restore("run/seed_0", recipes=["my_lines"])
    assert run.experiment.domain.name == "lines"
    results = json.loads((tmp_path / "run/seed_0/results.json").read_text())
    again = evaluate_run(Evaluate(tmp_path / "run/seed_0", out=tmp_path / "again.json"), {})
    assert again["loss"] == pytest.approx(results["loss"], rel=1e-6)


def test_what_a_file_names_is_not_imported(module, contributed, status, tmp_path, capsys):
    """A run of a module that the user does not name is refused, and nothing is imported."""
    module("my_spy", "raise SystemExit('imported')")
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"experiment": "my_spy", "learner": {"name": "my_spy"}, "recipes": ["my_spy"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="unknown entry 'recipes'"):
        restore(folder)
    del config["recipes"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="unknown experiment 'my-spy'"):
        restore(folder)
    assert status("evaluate", folder) == 1
    assert "my_spy" not in sys.modules
    assert status("regression", "--recipes", "no_such_module", "--steps", "2") == 1
    assert "no such module" in capsys.readouterr().err


def test_two_classes_cannot_have_one_name(module, contributed):
    code = contributed(1).replace('"tethered"', '"maml"')
    module("my_maml", contributed(0) + "\n\n" + code)
    from jaxmeta.recipes import known_learners, registry

    known_learners()
    with pytest.raises(
        ValueError, match="'maml' is already declared in jaxmeta.recipes.learners.maml"
    ):
        registry.load(["my_maml"])

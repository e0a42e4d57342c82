"""The command line: options in any order, presets, and one plain line for bad input."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from experiments import command_line, presets, run
from experiments.command_line import folder_of
from jaxmeta.training.config import LEARNERS, REGRESSORS, FewShot, Regression
from jaxmeta.training.options import Anil, FirstOrderMaml, Maml, MetaSgd, Prototypical, Reptile

# --- parsing ------------------------------------------------------------------------------


def parse(experiment: Any, arguments: list[str]) -> tuple[Any, Any]:
    return command_line.parse(experiment, arguments)


def test_the_learner_may_be_left_out():
    options, config = parse(FewShot, [])
    assert config == presets.find(FewShot, Maml, None)
    assert (options.out, options.resume, options.overwrite, options.seeds) == (
        *(None, False, False, None),
    )
    assert parse(Regression, []) == (options, presets.find(Regression, Maml, None))


@pytest.mark.parametrize(
    ("experiment", "learner"),
    [(FewShot, learner) for learner in LEARNERS]
    + [(Regression, learner) for learner in REGRESSORS],
)
def test_every_learner_has_its_own_defaults(experiment, learner):
    _, config = parse(experiment, [learner.name])
    assert type(config.learner) is learner
    assert config == presets.find(experiment, learner, None)


@pytest.mark.parametrize(
    "line",
    [
        "reptile --out X --ways 7 --inner-rate 0.25 --steps 9",
        "reptile --inner-rate 0.25 --steps 9 --ways 7 --out X",
        "--steps 9 --out X reptile --ways 7 --inner-rate 0.25",
        "--ways 7 --steps 9 --out X reptile --inner-rate 0.25",
    ],
)
def test_options_stand_in_any_order(line):
    options, config = parse(FewShot, line.split())
    assert str(options.out) == "X"
    assert isinstance(config.learner, Reptile)
    assert (config.ways, config.steps, config.learner.inner_rate) == (7, 9, 0.25)
    assert config.outer_rate == 1.0  # Reptile's own


@pytest.mark.parametrize("line", ["--inner-rate 0.25 --ways 7", "--ways 7 --inner-rate 0.25"])
def test_options_of_the_default_learner(line):
    _, config = parse(FewShot, line.split())
    assert (config.learner, config.ways) == (Maml(inner_rate=0.25), 7)


def test_seeds():
    options, _ = parse(FewShot, ["--seeds", "3,1,4"])
    assert options.seeds == (3, 1, 4)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("maml --inner-rat 0.1", "--inner-rate"),
        ("maml --initial-rate 0.1 0.2", "--initial-rate"),  # of another learner
        ("--ways five", "five"),
        ("--network resnet", "conv4-stride"),
        ("prototypical --inner-steps 3", "--inner-steps"),
    ],
)
def test_parse_errors_are_those_of_tyro(line, told, status, capsys):
    assert status(FewShot, *line.split()) == 2
    captured = capsys.readouterr()
    assert told in captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("experiment", "learner", "shown", "hidden"),
    [
        (FewShot, "maml", {"--inner-rate": "0.4", "--eval-inner-steps": "3"}, "--initial-rate"),
        (FewShot, "reptile", {"--inner-rate": "0.001", "--outer-rate": "1.0"}, "--differentiate"),
        (FewShot, "meta-sgd", {"--initial-rate": "0.005 0.1"}, "--inner-rate"),
        (FewShot, "prototypical", {"--train-ways": "60", "--distance": "euclidean"}, "--inner"),
        (FewShot, "first-order-maml", {"--inner-steps": "1"}, "--differentiate"),
        (FewShot, "anil", {"--differentiate": "second-order"}, "--initial-rate"),
        (Regression, "maml", {"--inner-rate": "0.001", "--hidden": "40 40"}, "--ways"),
    ],
)
def test_help_shows_each_learners_own_options(experiment, learner, shown, hidden, status, capsys):
    assert status(experiment, learner, "--help") == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for option, default in shown.items():
        *_, after = words.split(f" {option} ", maxsplit=1)
        described = after.split(" --", maxsplit=1)[0]
        assert f"(default: {default})" in described
    assert hidden not in words


# --- presets ------------------------------------------------------------------------------

# As published: the steps, rates and sizes of each method's paper or its authors' code.
_OMNIGLOT_MAML = {"steps": 60_000, "outer_optimizer": "adam", "outer_rate": 1e-3, "width": 64}
_OMNIGLOT_MAML |= {
    "network": "conv4-stride",
    "query_statistics": "batch",
    "outer_schedule": "constant",
}
_REPTILE = {"train_shots": 10, "outer_optimizer": "sgd", "outer_rate": 1.0, "task_batch": 5}
_REPTILE |= {"outer_schedule": "linear"}
_PROTOTYPICAL = {"train_ways": 60, "train_queries": 5, "queries": 15, "network": "conv4-pool"}
_PROTOTYPICAL |= {"outer_rate": 1e-3, "outer_schedule": "halving", "halve_every": 2000}
_PROTOTYPICAL |= {"rotations": "as-classes", "width": 64, "eval_tasks": 1000, "task_batch": 1}
_FIVE, _TWENTY = {"ways": 5, "task_batch": 32}, {"ways": 20, "task_batch": 16}


@pytest.mark.parametrize(
    ("learner", "preset", "settings"),
    [
        *[
            (
                kind(inner_rate=0.4, inner_steps=1, eval_inner_steps=3),
                f"omniglot-5w{shots}s",
                _OMNIGLOT_MAML | _FIVE | {"shots": shots, "train_queries": shots},
            )
            for kind in (Maml, FirstOrderMaml, Anil)
            for shots in (1, 5)
        ],
        *[
            (
                kind(inner_rate=0.1, inner_steps=5, eval_inner_steps=5),
                "omniglot-20w1s",
                _OMNIGLOT_MAML | _TWENTY | {"shots": 1},
            )
            for kind in (Maml, FirstOrderMaml, Anil)
        ],
        (
            MetaSgd(initial_rate=(0.005, 0.1), inner_steps=1, eval_inner_steps=1),
            "omniglot-5w1s",
            _OMNIGLOT_MAML | _FIVE,
        ),
        (
            Reptile(5, 50, 10, 1e-3, "rmsprop"),
            "omniglot-5w1s",
            _REPTILE | {"ways": 5, "steps": 100_000},
        ),
        (
            Reptile(10, 50, 20, 5e-4, "rmsprop"),
            "omniglot-20w5s",
            _REPTILE | {"ways": 20, "shots": 5, "steps": 200_000},
        ),
        (Prototypical(), "omniglot-5w1s", _PROTOTYPICAL | {"ways": 5, "train_shots": 1}),
        (Prototypical(), "omniglot-20w5s", _PROTOTYPICAL | {"ways": 20, "train_shots": 5}),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "name", ""),
)
def test_presets_are_the_published_settings(learner, preset, settings):
    _, config = parse(FewShot, [learner.name, "--preset", preset])
    assert config.learner == learner
    assert config.dataset == "omniglot"
    assert {name: getattr(config, name) for name in settings} == settings


def test_the_sinusoid_preset_is_the_published_setting():
    _, config = parse(Regression, ["maml", "--preset", "sinusoid"])
    assert config.learner == Maml(inner_rate=1e-3, inner_steps=1, eval_inner_steps=10)
    assert (config.steps, config.task_batch, config.hidden) == (70_000, 25, (40, 40))
    assert (config.outer_optimizer, config.outer_rate) == ("adam", 1e-3)
    assert (config.train_shots, config.shots) == (10, 5)
    assert config.amplitude == (0.1, 5.0)
    assert config.phase == (0.0, math.pi)
    assert config.domain == (-5.0, 5.0)
    _, config = parse(Regression, ["meta-sgd", "--preset", "sinusoid-frequency"])
    assert (config.frequency, config.train_shots, config.shots) == ((0.8, 1.2), 5, 5)


def test_a_task_without_a_preset_has_the_settings_of_its_own():
    learner = "conditional-neural-process"
    for task, preset in (("gp", "gp"), ("images", "completion")):
        _, config = parse(Regression, [learner, "--task", task, "--steps", "7"])
        _, expected = parse(Regression, [learner, "--preset", preset, "--steps", "7"])
        assert config == expected
    _, config = parse(Regression, ["--preset", "gp-random", "--task", "gp"])
    assert config.points == (3, 50)


@pytest.mark.parametrize("line", ["--steps 7 --preset {} {}", "{1} --preset {0} --steps 7"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_options_override_presets(line, learner):
    preset = parse(FewShot, [learner.name, "--preset", "omniglot-20w5s"])[1]
    _, config = parse(FewShot, line.format("omniglot-20w5s", learner.name).split())
    assert config.steps == 7
    assert (config.ways, config.shots, config.learner) == (20, 5, preset.learner)


def test_presets_say_how_to_run_them_and_what_to_expect():
    for functions in presets.PRESETS.values():
        for name, function in functions.items():
            text = function.__doc__ or presets.omniglot.__doc__ or ""
            assert "--preset" in text, name
            assert "xpected" in text, name
            assert "CPU" in text, name
    named = presets.omniglot.__doc__ or ""
    for learner in LEARNERS:
        assert re.search(rf"\| [a-z0-9, -]*\b{learner.name}\b[a-z0-9, -]* \|", named), learner.name


# --- errors -------------------------------------------------------------------------------


@pytest.fixture
def refused(status, capsys, monkeypatch, tmp_path):
    """`refused(experiment, *arguments)`: the one line that refuses, before any training."""

    def trains(*arguments, **options):
        pytest.fail("it trains")

    monkeypatch.setattr(run, "train", trains)
    monkeypatch.chdir(tmp_path)

    def refused(experiment, *arguments):
        assert status(experiment, *arguments) == 1
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        assert captured.out == ""
        return line

    return refused


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--ways 4", "4-way tasks need 4 classes and the split has 3"),
        ("--ways 3 --train-ways 7", "7-way tasks need 7 classes and the split has 6"),
        ("--shots 3 --queries 6", "3 shots and 6 queries need 9 images of every class"),
        ("--ways 1", "--ways 1: "),
        ("--shots 0", "--shots 0: "),
        ("--queries 0", "--queries 0: "),
        ("--steps 0", "--steps 0: "),
        ("--steps -3", "--steps -3: "),
        ("--task-batch 0", "--task-batch 0: "),
        ("--task-batch 4 --tasks-at-once 3", "give a number that divides 4"),
        ("--inner-rate -0.1", "--inner-rate -0.1: "),
        ("--inner-rate nan", "--inner-rate nan: "),
        ("--outer-rate nan", "--outer-rate nan: "),
        ("--outer-rate inf", "--outer-rate inf: "),
        ("--split 6/3", "6/3"),
        ("--split 7/3/3", "12"),
    ],
)
def test_bad_numbers(options, told, tiny_images, refused, tmp_path):
    given = options.split()
    line = refused(FewShot, *tiny_images, "--out", tmp_path / "run", *given)
    assert told in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("experiment", "options", "told"),
    [
        (FewShot, "--dataset omniglo", "omniglot"),
        (FewShot, "--dataset glyfs", "glyphs"),
        (FewShot, "--preset omniglot-5w2s", "omniglot-5w1s"),
        (FewShot, "reptile --preset omniglot-5ways", "omniglot-5w"),
        (Regression, "--preset sinusiod", "sinusoid"),
        (FewShot, "meta-sgd --initial-rate nan 0.1", "--initial-rate nan 0.1"),
        (Regression, "--amplitude 5 1", "amplitude"),
        (Regression, "--shots 0", "--shots 0: "),
        (FewShot, "--seeds 3", "give two or more numbers that differ"),
        (FewShot, "--seeds 3,3", "give two or more numbers that differ"),
        (FewShot, "--seeds 0,one", "give two or more numbers that differ"),
        (Regression, "cavia --conditions nosuch", "no parameter is selected to adapt; there are"),
        (FewShot, "--truncate 9", "there are 1 inner steps; give fewer"),
        (Regression, "--task gp --amplitude 1 2", "gp has none; sinusoids has"),
        (Regression, "--kernel-period 1 2", "sinusoids has none; gp has"),
        (Regression, "--points 3 9", "sinusoids has none; gp and images have"),
        (Regression, "reptile --inner-rate nan", "--inner-rate nan: "),
        (FewShot, "reptile --outer-optimizer adam", "--inner-optimizer adam"),
    ],
)
def test_unknown_names_and_bad_ranges(experiment, options, told, refused, tmp_path):
    assert told in refused(experiment, *options.split(), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


def test_bad_folders(refused, draw_classes, tmp_path):
    absent = tmp_path / "absent"
    assert str(absent) in refused(FewShot, "--dataset", absent)

    a_file = tmp_path / "file.png"
    a_file.write_text("")
    assert str(a_file) in refused(FewShot, "--dataset", a_file)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} holds no class" in refused(FewShot, "--dataset", empty)

    one = draw_classes(tmp_path / "one", 1, 3)
    assert f"{one} holds one class" in refused(FewShot, "--dataset", one)

    hollow = draw_classes(tmp_path / "hollow", 7, 3)
    (hollow / "class-xx").mkdir()
    assert f"{hollow / 'class-xx'} holds no image" in refused(FewShot, "--dataset", hollow)

    broken = draw_classes(tmp_path / "broken", 7, 3)
    image = broken / "class-03" / "1.png"
    image.write_bytes(image.read_bytes()[:40])
    assert str(image) in refused(FewShot, "--dataset", broken)


def test_run_folders_that_cannot_be_used(refused, tiny_curves, tmp_path):
    a_file = tmp_path / "file"
    a_file.write_text("not a folder")
    assert str(a_file) in refused(Regression, *tiny_curves, "--out", a_file)
    below = a_file / "run"
    assert str(a_file) in refused(Regression, *tiny_curves, "--out", below)
    assert a_file.read_text() == "not a folder"

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    line = refused(Regression, *tiny_curves, "--out", other, "--overwrite")
    assert "holds no run; give another --out" in line
    assert (other / "thesis.tex").exists()


@pytest.fixture
def finished(trained_curves):
    return trained_curves("maml")


def test_a_folder_with_a_run(finished, refused, tiny_curves):
    folder = finished
    before = (folder / "results.json").read_bytes()
    line = refused(Regression, "maml", *tiny_curves, "--out", folder)
    assert "--resume" in line
    assert "--overwrite" in line
    for learner, options in (("maml", ["--steps", "9"]), ("reptile", []), ("maml", ["--seed", 1])):
        line = refused(Regression, learner, *tiny_curves, "--out", folder, "--resume", *options)
        assert "holds a run with another configuration" in line
        assert "another --out, or --overwrite" in line
        assert f"the options it began with, which {folder / 'config.json'} has" in line
    line = refused(Regression, "anil", *tiny_curves, "--out", folder)
    assert "(learner: maml there, anil here" in line
    line = refused(Regression, *tiny_curves, "--out", folder, "--resume", "--steps", "9")
    assert "steps: 6 there, 9 here" in line
    assert (folder / "results.json").read_bytes() == before


def test_without_out_the_last_run_of_that_name_is_resumed(refused):
    _, config = parse(FewShot, ["maml"])
    assert "there is no runs/maml-glyphs-5w1s-seed0; give --out" in refused(FewShot, "--resume")
    for name in ("", "-2", "-3"):
        folder = Path(f"runs/maml-glyphs-5w1s-seed0{name}")
        assert folder_of(config, many_seeds=False, resume=False) == folder
        folder.mkdir(parents=True)
        assert folder_of(config, many_seeds=False, resume=True) == folder


def test_the_checkpoint_of_another_model(status, trained_curves, tiny_curves, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained_curves("maml"), folder)
    fields = json.loads((folder / "config.json").read_text())
    fields["config"]["hidden"] = [9]
    (folder / "config.json").write_text(json.dumps(fields))
    options = [*tiny_curves, "--hidden", "9", "--out", folder, "--resume"]
    capsys.readouterr()
    assert status(Regression, *options) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: The checkpoint ")
    assert "another learner, model or optimizer" in line


def test_overwrite_starts_anew(status, trained_curves, tiny_curves, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained_curves("maml"), folder)
    assert status(Regression, *tiny_curves, "--out", folder, "--overwrite", "--seed", 5) == 0
    results = json.loads((folder / "results.json").read_text())
    assert (results["seed"], results["resumed_from_step"]) == (5, None)


def test_a_misspelt_learner_is_told_its_nearest(status, capsys):
    assert status(FewShot, "protypical", "--ways", "3") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: unknown learner 'protypical'; the nearest are prototypical, ")


def test_help_names_the_presets(capsys):
    for experiment, preset in ((FewShot, "omniglot-20w1s"), (Regression, "gp-random")):
        with pytest.raises(SystemExit, match="0"):
            command_line.parse(experiment, ["--help"])
        assert preset in capsys.readouterr().out


def test_interrupts_have_their_own_status(monkeypatch, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_main", interrupt)
    assert command_line.main(Regression, []) == 130
    assert capsys.readouterr().err == "interrupted.\n"


@pytest.mark.parametrize(
    ("module", "line", "status", "told"),
    [
        ("few_shot", "--dataset glyfs", 1, "glyphs"),
        pytest.param("few_shot", "maml --ways five", 2, "five", marks=pytest.mark.slow),
        pytest.param(
            *("evaluate", "no-such-run", 1, "no-such-run is no run folder"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("predict", "no-such-run --support a --query b", 1, "no-such-run is no run folder"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_statuses_of_real_processes(module, line, status, told, start):
    process: subprocess.Popen[str] = start(module, *line.split())
    out, err = process.communicate()
    assert process.returncode == status
    assert told in out + err
    assert "Traceback" not in err
    if status == 1:
        assert len(err.splitlines()) == 1

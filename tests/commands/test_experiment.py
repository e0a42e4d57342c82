"""The command line of experiments: options in any order, presets, one plain line for bad input."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from jaxmeta.commands import experiment as command
from jaxmeta.commands.experiment import RunOptions, folder_of
from jaxmeta.recipes import find_domain, find_learner, known_domains, known_learners, start

DOMAINS = sorted(known_domains())
PAIRS = [
    (domain, learner)
    for domain, kind in sorted(known_domains().items())
    for learner in known_learners(kind.kind)
]


def parse(domain: str, line: str = "") -> tuple[RunOptions, Any]:
    return command.parse(find_domain(domain), line.split())


def values(settings: Any) -> dict[str, Any]:
    """All settings by name, nested ones included."""
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        found |= values(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


# --- parsing ------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_learner_may_be_left_out(domain):
    options, experiment = parse(domain)
    assert options == RunOptions()
    assert (options.out, options.resume, options.overwrite, options.seeds) == (
        *(None, False, False, None),
    )
    kind = find_domain(domain)
    assert experiment == start(kind, find_learner(kind.default_learner))


@pytest.mark.full
@pytest.mark.parametrize(("domain", "learner"), PAIRS)
def test_every_learner_has_its_own_defaults(domain, learner):
    _, experiment = parse(domain, learner)
    assert type(experiment.learner) is find_learner(learner)
    assert experiment == start(find_domain(domain), find_learner(learner))


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
    options, experiment = parse("few-shot", line)
    assert str(options.out) == "X"
    assert experiment.learner.name == "reptile"
    assert (experiment.domain.episode.ways, experiment.training.steps) == (7, 9)
    assert experiment.learner.inner_rate == 0.25
    assert experiment.training.outer_rate == 1.0  # Reptile's own


@pytest.mark.parametrize("line", ["--inner-rate 0.25 --ways 7", "--ways 7 --inner-rate 0.25"])
def test_options_of_the_default_learner(line):
    _, experiment = parse("few-shot", line)
    assert experiment.learner == find_learner("maml")(inner_rate=0.25)
    assert experiment.domain.episode.ways == 7


def test_seeds():
    options, _ = parse("few-shot", "--seeds 3,1,4")
    assert options.seeds == (3, 1, 4)


def test_first_order_maml_is_maml_with_another_default():
    line = "--preset omniglot-20w1s --steps 7"
    _, first_order = parse("few-shot", f"first-order-maml {line}")
    _, same = parse("few-shot", f"maml --differentiation first-order {line}")
    assert values(first_order.learner) == values(same.learner)
    assert (first_order.domain, first_order.training) == (same.domain, same.training)
    assert dataclasses.astuple(find_learner("first-order-maml")()) == dataclasses.astuple(
        find_learner("maml")(differentiation="first-order")
    )


@pytest.mark.parametrize(
    ("domain", "line", "told"),
    [
        ("few-shot", "maml --inner-rat 0.1", "--inner-rate"),
        ("few-shot", "maml --initial-rate 0.1 0.2", "--initial-rate"),  # of another learner
        ("few-shot", "--ways five", "five"),
        ("few-shot", "--network resnet", "conv4-stride"),
        ("few-shot", "prototypical --inner-steps 3", "--inner-steps"),
        ("sequence", "lstm --slots 4", "--slots"),
        ("regression", "--ways 3", "--ways"),
    ],
)
def test_parse_errors_are_those_of_tyro(domain, line, told, status, capsys):
    assert status(domain, *line.split()) == 2
    captured = capsys.readouterr()
    assert told in captured.out + captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("domain", "learner", "shown", "hidden"),
    [
        ("few-shot", "maml", {"inner-rate": "0.4", "eval-inner-steps": "3"}, "initial-rate"),
        ("few-shot", "reptile", {"inner-rate": "0.001", "outer-rate": "1.0"}, "differentiation"),
        ("few-shot", "meta-sgd", {"initial-rate": "0.005 0.1"}, "inner-rate"),
        ("few-shot", "prototypical", {"train-ways": "60", "distance": "euclidean"}, "inner-rate"),
        ("few-shot", "first-order-maml", {"differentiation": "first-order"}, "distance"),
        ("few-shot", "anil", {"differentiation": "second-order"}, "initial-rate"),
        ("regression", "maml", {"inner-rate": "0.001", "hidden": "40 40"}, "ways"),
        ("sequence", "lstm", {"width": "256", "clip": "10.0"}, "slots"),
        ("optimizers", "mlp-optimizer", {"window": "20", "family": "quadratics"}, "inner-rate"),
        ("pretrain", "supervised", {"batch-size": "32", "dataset": "grocery"}, "ways"),
    ],
)
def test_help_shows_each_learners_own_options(domain, learner, shown, hidden, status, capsys):
    assert status(domain, learner, "--help") == 0
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for option, default in shown.items():
        after = words.rpartition(f" --{option} ")[2]
        described = after.split(" --", maxsplit=1)[0]
        assert f"(default: {default})" in described
    assert f"--{hidden} " not in words


@pytest.mark.parametrize("domain", DOMAINS)
def test_help_names_the_presets_and_learners(domain, status, capsys):
    kind = find_domain(domain)
    assert status(domain, "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    for preset in kind.presets:
        assert preset.pattern in words
    if len(learners := known_learners(kind.kind)) > 1:
        assert all(learner in words for learner in learners)


# --- presets ------------------------------------------------------------------------------

# As published: the steps, rates and sizes of each method's paper or its authors' code.
_OMNIGLOT_MAML = {"steps": 60_000, "outer_optimizer": "adam", "outer_rate": 1e-3, "width": 64}
_OMNIGLOT_MAML |= {
    "network": "conv4-stride",
    "query_statistics": "batch",
    "outer_schedule": "constant",
}
_REPTILE = {"train_shots": 10, "outer_optimizer": "sgd", "outer_rate": 1.0, "task_batch": 5}
_REPTILE |= {"outer_schedule": "linear", "eval_inner_steps": 50, "inner_optimizer": "rmsprop"}
_PROTOTYPICAL = {"train_ways": 60, "train_queries": 5, "queries": 15, "network": "conv4-pool"}
_PROTOTYPICAL |= {"outer_rate": 1e-3, "outer_schedule": "halving", "halve_every": 2000}
_PROTOTYPICAL |= {"rotations": "as-classes", "width": 64, "eval_tasks": 1000, "task_batch": 1}
_FIVE, _TWENTY = {"ways": 5, "task_batch": 32}, {"ways": 20, "task_batch": 16}
_FIVE_INNER = {"inner_rate": 0.4, "inner_steps": 1, "eval_inner_steps": 3}
_TWENTY_INNER = {"inner_rate": 0.1, "inner_steps": 5, "eval_inner_steps": 5}
_LIKE_MAML = ("maml", "first-order-maml", "anil")


@pytest.mark.parametrize(
    ("learner", "preset", "settings"),
    [
        *[
            (
                learner,
                f"omniglot-5w{shots}s",
                _OMNIGLOT_MAML | _FIVE | _FIVE_INNER | {"shots": shots, "train_queries": shots},
            )
            for learner in _LIKE_MAML
            for shots in (1, 5)
        ],
        *[
            (learner, "omniglot-20w1s", _OMNIGLOT_MAML | _TWENTY | _TWENTY_INNER | {"shots": 1})
            for learner in _LIKE_MAML
        ],
        (
            "meta-sgd",
            "omniglot-5w1s",
            _OMNIGLOT_MAML
            | _FIVE
            | {"initial_rate": (0.005, 0.1), "inner_steps": 1, "eval_inner_steps": 1},
        ),
        (
            "reptile",
            "omniglot-5w1s",
            _REPTILE
            | {"ways": 5, "steps": 100_000, "inner_steps": 5, "inner_batch": 10}
            | {"inner_rate": 1e-3},
        ),
        (
            "reptile",
            "omniglot-20w5s",
            _REPTILE
            | {"ways": 20, "shots": 5, "steps": 200_000, "inner_steps": 10, "inner_batch": 20}
            | {"inner_rate": 5e-4},
        ),
        ("prototypical", "omniglot-5w1s", _PROTOTYPICAL | {"ways": 5, "train_shots": 1}),
        ("prototypical", "omniglot-20w5s", _PROTOTYPICAL | {"ways": 20, "train_shots": 5}),
        (
            "maml-plus-plus",
            "omniglot-5w1s",
            _OMNIGLOT_MAML
            | {"ways": 5, "task_batch": 8, "steps": 50_000, "network": "conv4-pool"}
            | {"outer_schedule": "cosine", "inner_rate": 0.1, "inner_steps": 5},
        ),
        ("imaml", "omniglot-20w1s", {"inner_steps": 25, "strength": 0.05, "damping": 24.0}),
    ],
)
def test_presets_are_the_published_settings(learner, preset, settings):
    _, experiment = parse("few-shot", f"{learner} --preset {preset}")
    assert experiment == start(find_domain("few-shot"), find_learner(learner), preset)
    resolved = experiment.resolved()
    found = values(resolved.domain) | values(resolved.learner) | values(resolved.training)
    assert resolved.learner.name == learner
    assert found["dataset"] == "omniglot"
    assert {name: found[name] for name in settings} == settings


def test_the_sinusoid_preset_is_the_published_setting():
    _, experiment = parse("regression", "maml --preset sinusoid")
    assert experiment.learner == find_learner("maml")(
        inner_rate=1e-3, inner_steps=1, eval_inner_steps=10
    )
    training, domain = experiment.training, experiment.domain
    assert (training.steps, training.task_batch, domain.hidden) == (70_000, 25, (40, 40))
    assert (training.outer_optimizer, training.outer_rate) == ("adam", 1e-3)
    assert (domain.points.train_shots, domain.points.shots) == (10, 5)
    assert domain.sinusoids.amplitude == (0.1, 5.0)
    assert domain.sinusoids.phase == (0.0, math.pi)
    assert domain.sinusoids.domain == (-5.0, 5.0)
    _, experiment = parse("regression", "meta-sgd --preset sinusoid-frequency")
    assert experiment.domain.sinusoids.frequency == (0.8, 1.2)
    assert (experiment.domain.points.train_shots, experiment.domain.points.shots) == (5, 5)


def test_a_task_without_a_preset_has_the_settings_of_its_own():
    learner = "conditional-neural-process"
    for task, preset in (("gp", "gp"), ("images", "completion")):
        _, experiment = parse("regression", f"{learner} --task {task} --steps 7")
        _, expected = parse("regression", f"{learner} --preset {preset} --steps 7")
        assert experiment == expected
    _, experiment = parse("regression", "--preset gp-random --task gp")
    assert experiment.domain.points.points == (3, 50)


@pytest.mark.full
@pytest.mark.parametrize("line", ["--steps 7 --preset {} {}", "{1} --preset {0} --steps 7"])
@pytest.mark.parametrize("learner", known_learners("classification"))
def test_options_override_presets(line, learner):
    _, preset = parse("few-shot", f"{learner} --preset omniglot-20w5s")
    _, experiment = parse("few-shot", line.format("omniglot-20w5s", learner))
    assert experiment == preset.changed(steps=7)
    assert experiment.training.steps == 7
    assert (experiment.domain.episode.ways, experiment.domain.episode.shots) == (20, 5)


def test_presets_of_images_say_how_long_they_take():
    kind = find_domain("few-shot")
    for name, learner in known_learners(kind.kind).items():
        if name == "meta-transfer":  # which has a network only for photographs
            continue
        omniglot = [own for own in learner.presets if own.pattern == "few-shot/omniglot-*"]
        assert any("CPU" in own.wall_time for own in omniglot), name
        for own in learner.presets:
            for preset in own.published:
                known = {of_domain.pattern for of_domain in kind.presets} | {"labels"}
                known |= {of_domain.pattern for of_domain in find_domain("regression").presets}
                assert preset in known, f"{name} has a published result of the unknown {preset}"


# --- errors -------------------------------------------------------------------------------


@pytest.fixture
def refused(status, capsys, monkeypatch, tmp_path):
    """`refused(domain, *arguments)`: the one line that refuses, before any training."""
    from jaxmeta.recipes import runner

    def trains(*arguments, **options):
        pytest.fail("it trains")

    monkeypatch.setattr(runner, "train_with_checkpoints", trains)
    monkeypatch.chdir(tmp_path)

    def refused(domain, *arguments):
        capsys.readouterr()
        assert status(domain, *arguments) == 1
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        assert captured.out == ""
        return line

    return refused


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--ways 7", "7-way tasks require 7 classes, but there are 6"),
        ("--ways 3 --train-ways 7", "7-way tasks require 7 classes, but there are 6"),
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
        ("--split 13/3/3", "18"),
        (
            "--ways 3 --train-ways 5",
            "requires tasks of 5 classes, not 3",
        ),  # MAML has an output for each
    ],
)
def test_bad_numbers(options, told, tiny, refused, tmp_path):
    line = refused("few-shot", *tiny("few-shot"), "--out", tmp_path / "run", *options.split())
    assert told in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("domain", "options", "told"),
    [
        ("few-shot", "--dataset omniglo", "omniglot"),
        ("few-shot", "--dataset glyfs", "glyphs"),
        ("few-shot", "--preset omniglot-5w2s", "omniglot-5w1s"),
        ("few-shot", "reptile --preset omniglot-5ways", "omniglot-5w"),
        ("regression", "--preset sinusiod", "sinusoid"),
        ("few-shot", "meta-sgd --initial-rate nan 0.1", "--initial-rate nan 0.1"),
        ("regression", "--amplitude 5 1", "amplitude"),
        ("regression", "--shots 0", "--shots 0: "),
        ("few-shot", "--seeds 3", "give two or more different numbers"),
        ("few-shot", "--seeds 3,3", "give two or more different numbers"),
        ("few-shot", "--seeds 0,one", "give two or more different numbers"),
        (
            "regression",
            "cavia --conditions nosuch",
            "no parameter is selected to adapt; choose from",
        ),
        ("few-shot", "--truncate 9", "exceeds --inner-steps 1; give at most 1"),
        (
            "regression",
            "--task gp --amplitude 1 2",
            "--amplitude 1.0 2.0 applies only to --task sinusoids",
        ),
        ("regression", "--kernel-period 1 2", "--kernel-period 1.0 2.0 applies only to --task gp"),
        ("regression", "--points 3 9", "sinusoids require --shots"),
        ("regression", "--task gp --shots 3", "require --points instead"),
        ("regression", "reptile --inner-rate nan", "--inner-rate nan: "),
        ("few-shot", "reptile --outer-optimizer adam", "--inner-optimizer adam"),
        ("few-shot", "--unlabelled 2", "this learner requires a label for every example"),
        ("few-shot", "--distractors 2", "require --unlabelled"),
        ("few-shot", "--hard-tasks --distortions", "--hard-tasks cannot be combined with"),
        ("few-shot", "--hard-tasks --device-budget 1e-6", "--hard-tasks requires tasks that are"),
        ("few-shot", "snail --hard-tasks", "--hard-tasks requires tasks that are drawn on the"),
        ("few-shot", "multi-task --hard-tasks", "--hard-tasks requires tasks that are drawn"),
        ("few-shot", "mann --pipeline stream", "give --pipeline device"),
        (
            "sequence",
            "--bits 3 --task labels",
            "--bits 3 applies only to --task copy or repeat-copy",
        ),
        ("sequence", "--ways 3", "--ways 3 applies only to --task labels"),
        ("sequence", "--repeats 2 3", "--repeats 2 3 applies only to --task repeat-copy"),
        ("optimizers", "--steps 0", "--steps 0: "),
        ("pretrain", "--light 1.5", "--light 1.5: give a number that is between 0 and 1"),
    ],
)
def test_unknown_names_and_bad_ranges(domain, options, told, refused, tmp_path):
    assert told in refused(domain, *options.split(), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_misspelt_learner_is_told_its_nearest(refused):
    told = refused("few-shot", "protypical", "--ways", "3")
    assert told.startswith("error: unknown learner 'protypical'; the nearest are prototypical, ")


def test_bad_folders_of_images(refused, draw_classes, tmp_path):
    absent = tmp_path / "absent"
    assert str(absent) in refused("few-shot", "--dataset", absent)

    a_file = tmp_path / "file.png"
    a_file.write_text("")
    assert str(a_file) in refused("few-shot", "--dataset", a_file)

    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} holds no class" in refused("few-shot", "--dataset", empty)

    one = draw_classes(tmp_path / "one", 1, 3)
    assert f"{one} holds one class" in refused("few-shot", "--dataset", one)

    hollow = draw_classes(tmp_path / "hollow", 7, 3)
    (hollow / "class-xx").mkdir()
    assert f"{hollow / 'class-xx'} holds no image" in refused("few-shot", "--dataset", hollow)

    broken = draw_classes(tmp_path / "broken", 7, 3)
    image = broken / "class-03" / "1.png"
    image.write_bytes(image.read_bytes()[:40])
    assert str(image) in refused("few-shot", "--dataset", broken)


# --- run folders --------------------------------------------------------------------------


def test_run_folders_that_cannot_be_used(refused, tiny, tmp_path):
    options = tiny("regression")
    a_file = tmp_path / "file"
    a_file.write_text("not a folder")
    assert str(a_file) in refused("regression", *options, "--out", a_file)
    assert str(a_file) in refused("regression", *options, "--out", a_file / "run")
    assert a_file.read_text() == "not a folder"

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    line = refused("regression", *options, "--out", other, "--overwrite")
    assert "is not a run folder; give another --out" in line
    assert (other / "thesis.tex").exists()


@pytest.fixture
def finished(trained):
    return trained("regression")


@pytest.mark.full
def test_a_folder_with_another_run(finished, refused, tiny):
    folder = finished
    before = (folder / "results.json").read_bytes()
    for learner, options in (("maml", ["--steps", "9"]), ("reptile", []), ("maml", ["--seed", 1])):
        own = [*tiny("regression", learner), "--out", folder, "--resume", *options]
        line = refused("regression", *own)
        assert "holds a run with another configuration" in line
        assert "another --out, or --overwrite" in line
        assert f"its original options (see {folder / 'config.json'})" in line
    line = refused("regression", *tiny("regression", "anil"), "--out", folder)
    assert "(learner: maml there, anil here" in line
    line = refused("sequence", *tiny("sequence"), "--out", folder)
    assert "(experiment: regression there, sequence here; learner: maml there, lstm here" in line
    assert (folder / "results.json").read_bytes() == before


def test_without_out_the_last_run_of_that_name_is_resumed(refused):
    line = refused("few-shot", "--resume")
    assert "runs/maml-glyphs-5w1s-seed0 does not exist; give the run folder" in line
    line = refused("few-shot", "--resume", "--out", "runs/mistyped")
    assert "runs/mistyped does not exist; give the folder of a run that was started" in line
    options, experiment = parse("few-shot", "maml")
    resumed, _ = parse("few-shot", "maml --resume")
    for name in ("", "-2", "-3"):
        folder = Path(f"runs/maml-glyphs-5w1s-seed0{name}")
        assert folder_of(experiment, options) == folder
        folder.mkdir(parents=True)
        assert folder_of(experiment, resumed) == folder
    seeds, _ = parse("few-shot", "maml --seeds 0,1")
    assert folder_of(experiment, seeds) == Path("runs/maml-glyphs-5w1s")


@pytest.mark.full
def test_the_checkpoint_of_another_model(status, trained, tiny, tmp_path, capsys):
    folder = shutil.copytree(trained("regression"), tmp_path / "run")
    fields = json.loads((folder / "config.json").read_text())
    fields["tasks"]["hidden"] = [9]
    (folder / "config.json").write_text(json.dumps(fields))
    options = [*tiny("regression"), "--hidden", "9", "--out", folder, "--resume"]
    capsys.readouterr()
    assert status("regression", *options) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: The checkpoint ")
    assert "another learner, model or optimizer" in line


@pytest.mark.full
def test_overwrite_starts_anew(status, trained, tiny, tmp_path):
    folder = shutil.copytree(trained("regression"), tmp_path / "run")
    options = [*tiny("regression"), "--out", folder, "--overwrite", "--seed", "5"]
    assert status("regression", *options) == 0
    results = json.loads((folder / "results.json").read_text())
    assert (results["seed"], results["resumed_from_step"]) == (5, None)


# --- several processes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--num-processes 2", "--num-processes 2 without --coordinator"),
        ("--process-id 1", "--process-id 1 without --coordinator"),
        ("--coordinator localhost:1", "several processes require --out"),
        ("--coordinator localhost:1 --out x", "each process its own id from 0"),
        ("--coordinator here --num-processes 1 --process-id 0 --out x", "give HOST:PORT"),
    ],
)
def test_processes_that_cannot_join(options, told, refused, tiny):
    assert told in refused("regression", *tiny("regression"), *options.split())


@pytest.mark.parametrize(
    "line", ["--steps 3 --inner-rate 0.1 --steps 5", "--inner-rate 0.1 --steps 5"]
)
def test_options_of_the_run_and_of_an_unnamed_learner_come_in_any_order(line):
    _, experiment = parse("few-shot", line)
    assert (experiment.training.steps, experiment.learner.inner_rate) == (5, 0.1)


@pytest.mark.parametrize("line", ["--steps 3 maml --steps 5", "--steps=3 maml --steps=5"])
def test_an_option_on_both_sides_of_the_learner_is_told(line):
    with pytest.raises(ValueError, match="--steps is given before and after maml; give it once"):
        parse("few-shot", line)
    assert parse("few-shot", "--steps 3 maml --ways 4")[1].training.steps == 3

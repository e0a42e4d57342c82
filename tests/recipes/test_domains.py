"""What every domain has from the one runner: each option of a run, shown for each domain."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxmeta.commands.compare import compare
from jaxmeta.commands.evaluate import Evaluate, evaluate_run
from jaxmeta.commands.experiment import parse
from jaxmeta.recipes import (
    find_domain,
    find_learner,
    known_domains,
    known_learners,
    restore,
    runner,
    settings,
    start,
)
from jaxmeta.recipes.folders import read_config
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.results import read_per_task
from jaxmeta.training import checkpoints
from jaxmeta.training.checkpoints import parameters_sha256

NAMES = sorted(
    name for name, kind in known_domains().items() if kind.__module__.startswith("jaxmeta.")
)
MARKS = {"regression": (), "sequence": pytest.mark.full}
DOMAINS = [pytest.param(name, marks=MARKS.get(name, pytest.mark.slow)) for name in NAMES]


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_run_folder_is_whole(domain, trained):
    folder = trained(domain)
    results, stored = results_of(folder), read_config(folder)
    assert results["experiment"] == stored.experiment.domain.name == domain
    assert results["learner"] == stored.experiment.learner.name
    assert stored.experiment.resolved() == stored.experiment
    assert (results["seed"], results["steps"], results["resumed_from_step"]) == (0, 4, None)
    assert results["num_tasks"] == 6
    assert {"jaxmeta", "jax", "optax"} <= results["versions"].keys()
    assert "commit" in results
    assert results["protocol"]["selected_on"].endswith("4 tasks every 2 steps")
    # The values of single tasks are there, and their mean is the figure.
    for name, of_test in read_per_task(folder / "per_task.npz").items():
        row = results["tests"][name] if "tests" in results else results
        for metric, values in of_test.values.items():
            assert values.shape == (6,)
            assert values.mean() == pytest.approx(row[metric], rel=1e-4, abs=1e-6)
    assert (folder / "learning_curve.png").is_file()
    assert {"checkpoints", "tensorboard", "metrics.jsonl"} <= {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_run_cut_short_resumes_bit_for_bit(domain, trained, tiny, status, tmp_path, monkeypatch):
    """Dead while it writes the last checkpoint, resumed from the one before."""
    save, saved = checkpoints.save, []

    def dies(folder, step, *rest, **options):
        if step == 4 and not saved:
            saved.append(step)
            raise OSError("the disk is gone")
        save(folder, step, *rest, **options)

    monkeypatch.setattr(checkpoints, "save", dies)
    folder = tmp_path / "run"
    assert status(domain, *tiny(domain), "--out", folder) == 1
    assert not (folder / "results.json").exists()
    assert status(domain, *tiny(domain), "--out", folder, "--resume") == 0
    found, expected = results_of(folder), results_of(trained(domain))
    assert found["resumed_from_step"] == 2
    for name in ("parameters_sha256", "evaluated_parameters_sha256", "best_step"):
        assert found[name] == expected[name]
    tasks, of_whole = (read_per_task(path / "per_task.npz") for path in (folder, trained(domain)))
    for name, of_test in tasks.items():
        assert of_test.tasks == of_whole[name].tasks
        for metric, values in of_test.values.items():
            np.testing.assert_array_equal(values, of_whole[name].values[metric])


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_folder_is_taken_for_the_same_run_alone(domain, trained, tiny, status, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes((trained(domain) / "config.json").read_bytes())
    written = ("results.json", "per_task.npz", "evaluation.json", "evaluation-ways-20.json")
    for name in (*written, "my-notes.txt"):
        (folder / name).write_text("of the run before")
    # The same run: neither resumed nor overwritten, or both.
    assert status(domain, *tiny(domain), "--out", folder) == 1
    assert "give --resume to continue it or --overwrite to replace it" in capsys.readouterr().err
    assert status(domain, *tiny(domain), "--out", folder, "--resume", "--overwrite") == 1
    assert "give one of them" in capsys.readouterr().err
    # Another run.
    other = [*tiny(domain), "--steps", "6", "--out", folder]
    assert status(domain, *other, "--resume") == 1
    assert "steps: 4 there, 6 here" in capsys.readouterr().err
    # Started anew, nothing of the run before is left.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runner, "train_with_checkpoints", _stops)
        assert status(domain, *other, "--overwrite") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "my-notes.txt"]
    assert read_config(folder).experiment.training.steps == 6


def _stops(*arguments, **options):
    raise ValueError("it trains")


@pytest.mark.slow
@pytest.mark.parametrize("domain", NAMES)
def test_seeds_report_mean_and_interval(domain, tiny, status, tmp_path, capsys):
    folder = tmp_path / "run"
    assert status(domain, *tiny(domain), "--seeds", "0,1", "--out", folder) == 0
    summary = results_of(folder)
    runs = [results_of(folder / f"seed_{seed}") for seed in (0, 1)]
    assert summary["seeds"] == [0, 1]
    assert summary["runs"] == runs
    (metric,) = (name.removesuffix("_std_between_seeds") for name in summary if "between" in name)
    values = [run[metric] for run in runs]
    assert summary[metric] == pytest.approx(np.mean(values))
    half = 12.706 * np.std(values, ddof=1) / 2**0.5  # Student's t with one degree of freedom
    assert summary[f"{metric}_ci95"] == pytest.approx(half, rel=1e-4, abs=1e-12)
    assert len({run["parameters_sha256"] for run in runs}) == 2
    assert "over 2 seeds" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("domain", NAMES)
def test_devices_share_the_tasks(domain, tiny, steady, status, tmp_path, capsys):
    folder = tmp_path / "run"
    line, own = tiny(domain), steady(domain)
    assert status(domain, *line, "--out", tmp_path / "one", *own) == 0
    assert status(domain, *line, "--out", folder, "--devices", "2", *own) == 0
    results, alone = results_of(folder), results_of(tmp_path / "one")
    assert "× 2" in results["device"]
    assert results["loss"] == pytest.approx(alone["loss"], rel=1e-3)
    assert status(domain, *tiny(domain), "--devices", "9", "--out", tmp_path / "none") == 1
    assert "give 1 to 8" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("domain", NAMES)
def test_presets_and_learners_of_every_domain(domain):
    kind = find_domain(domain)
    for preset in kind.presets:
        for learner in known_learners(kind.kind).values():  # of the default kind of its tasks
            settings.check(start(kind, learner, preset.pattern).changed(steps=7))
        default = kind.default_learner
        _, experiment = parse(kind, [default, "--preset", preset.pattern, "--steps", "7"])
        expected = start(kind, find_learner(default), preset.pattern).changed(steps=7)
        assert experiment == expected
    with pytest.raises(ValueError, match="unknown preset 'defautl'; the nearest are .*default"):
        parse(kind, ["--preset", "defautl"])


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_run_is_restored_and_evaluated_again(domain, trained, tmp_path, capsys):
    folder = trained(domain)
    results, run = results_of(folder), restore(folder)
    assert run.step == results["best_step"]
    assert parameters_sha256(run.meta_params) == results["evaluated_parameters_sha256"]
    out = tmp_path / "again.json"
    again = evaluate_run(Evaluate(folder, out=out), {})
    for name in ("protocol", "num_tasks"):
        assert again[name] == results[name]
    for name in ("loss", "loss_ci95"):
        assert again[name] == pytest.approx(results[name], rel=1e-6)
    _, differences = compare((folder, out))
    for row in differences:
        assert (row.mean, row.tasks) == (pytest.approx(0, abs=1e-5), 6)
    # On other tasks there is nothing to compare.
    evaluate_run(Evaluate(folder, seed=3, out=tmp_path / "other.json"), {})
    with pytest.raises(ValueError, match="were not tested on the same tasks"):
        compare((folder, tmp_path / "other.json"))


def test_a_run_that_trains_in_silence(tiny, tmp_path):
    """The runner as a function, without a command line."""
    _, experiment = parse(find_domain("regression"), tiny("regression"))
    results, tasks = runner.run(
        experiment, tmp_path / "run", devices=1, progress=Progress(quiet=True)
    )
    assert results == results_of(tmp_path / "run")
    assert tasks.title == "sinusoids · 5-shot"

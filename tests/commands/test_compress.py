"""A run compressed: the same test tasks, paired differences, further training, what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxmeta import plots
from jaxmeta.commands.compare import compare
from jaxmeta.compress import pruned as pruned_weights
from jaxmeta.compress import stored_bytes
from jaxmeta.recipes import restore
from jaxmeta.recipes.compressing import costs, pruned_at_once
from jaxmeta.recipes.folders import read_config
from jaxmeta.recipes.loading import load
from jaxmeta.recipes.results import read_per_task
from jaxmeta.training.estimates import estimate
from jaxmeta.training.update import Trained


@pytest.fixture
def compressed(status, capsys):
    """`compressed(folder, *options)`: status, lines, errors."""

    def run(folder, *options):
        capsys.readouterr()
        found = status("compress", folder, *options)
        captured = capsys.readouterr()
        return found, captured.out.splitlines(), captured.err

    return run


@pytest.fixture
def folder(trained, tmp_path):
    """`folder(domain, learner=None)`: a copy of a tiny run, to be written to."""
    # Batch statistics would amplify the rounding errors of two programs.
    options = {"few-shot": ("--query-statistics", "none")}

    def copy(domain, learner=None):
        found = trained(domain, learner, *options.get(domain, ()))
        return shutil.copytree(found, tmp_path / found.name)

    return copy


def rows_of(path):
    result = json.loads(path.read_text())
    return result, {row["name"]: row for row in result["rows"]}


@pytest.mark.full
def test_pruned_on_the_test_tasks_of_the_run(folder, compressed):
    run = folder("few-shot", "maml")
    status, lines, _ = compressed(run, "--sparsity", "0.5", "0.9")
    assert status == 0
    path = run / "compression-prune.json"
    assert lines[-1] == f"result: {path}"
    results = json.loads((run / "results.json").read_text())
    result, rows = rows_of(path)
    assert list(rows) == ["uncompressed", "prune 50 %", "prune 90 %"]
    assert result["protocol"] == results["protocol"]
    assert result["num_tasks"] == results["num_tasks"]
    whole, half, tenth = rows.values()
    assert whole["accuracy"] == pytest.approx(results["accuracy"])
    assert (whole["difference"], whole["difference_ci95"]) == (0, 0)
    params = restore(run).meta_params
    assert (
        whole["bytes"]
        == stored_bytes(params)
        == 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    )
    assert whole["bytes"] > half["bytes"] > tenth["bytes"]
    assert all(row["milliseconds"] > 0 for row in rows.values())
    # Differences are taken task by task.
    (before,) = read_per_task(run / "per_task.npz").values()
    after = read_per_task(path.with_suffix(".npz"))
    for name in ("prune 50 %", "prune 90 %"):
        assert after[name].tasks == before.tasks
        mean, ci95 = estimate(after[name].values["accuracy"] - before.values["accuracy"])
        assert rows[name]["difference"] == pytest.approx(mean, abs=1e-6)
        assert rows[name]["difference_ci95"] == pytest.approx(ci95, abs=1e-6)
    # The table has a line for each.
    assert [line.split("  ")[0] for line in lines[2:5]] == list(rows)
    assert "–" in lines[2] and f"{half['bytes']:,}" in lines[3]
    assert (run / "compression.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_one_version_can_be_compared_with_its_run(folder, compressed):
    run = folder("few-shot", "maml")
    assert compressed(run, "--method", "int8")[0] == 0
    path = run / "compression-int8.json"
    _, rows = rows_of(path)
    # Eight bits and a scale per channel; here biases are a good part.
    assert rows["int8"]["bytes"] < 0.4 * rows["uncompressed"]["bytes"]
    metric, (difference,) = compare((run, path))
    assert metric == "accuracy"
    assert difference.mean == pytest.approx(rows["int8"]["difference"], abs=1e-6)


@pytest.mark.full
def test_other_settings_do_not_replace_a_result(folder, compressed, monkeypatch):
    run, drawn = folder("few-shot", "maml"), []
    monkeypatch.setattr(plots, "size_and_result", lambda path, names, *_, **__: drawn.append(names))
    for sparsity in ("0.5", "0.9", "0.5"):
        assert compressed(run, "--sparsity", sparsity)[0] == 0
    # The picture shows the results of all calls.
    assert drawn[-1] == ["uncompressed", "prune 50 %", "prune 90 %"]
    first, second = sorted(run.glob("compression-prune*.json"))
    names = {name for path in (first, second) for name in rows_of(path)[1]}
    assert names == {"uncompressed", "prune 50 %", "prune 90 %"}


@pytest.mark.slow
def test_all_methods_of_a_prototypical_network(trained, compressed, tmp_path):
    """With statistics of training images, which were folded into the network that is tested."""
    options = ("--query-statistics", "training", "--network", "conv4-stride", "--width", "4")
    run = shutil.copytree(trained("few-shot", "prototypical", *options), tmp_path / "run")
    assert (run / "finished").exists()
    options = ["--sparsity", "0.5", "--steps", "4"]
    status, _, error = compressed(run, "--method", "all", *options)
    assert status == 0, error
    result, rows = rows_of(run / "compression-all.json")
    names = ["uncompressed", "prune 50 %", "gradual 50 %", "int8", "bfloat16", "distil to width 2"]
    assert list(rows) == names
    assert result["settings"]["steps"] == 4
    whole, pruned, gradual, *smaller = (rows[name]["bytes"] for name in names)
    assert pruned == gradual < whole and max(smaller) < 0.7 * whole
    # Further training has changed the weights.
    values = read_per_task(run / "compression-all.npz")
    assert (values["gradual 50 %"].values["loss"] != values["prune 50 %"].values["loss"]).any()
    # Statistics are taken out and folded in again: without zeros, it is the same network; with
    # them, it is not the network with the statistics of before.
    loaded, params = load(read_config(run)[0]), restore(run).meta_params
    cost = costs(loaded, result["num_tasks"], None)
    same = cost(pruned_at_once(loaded, Trained(params), 0.0).trained).values["loss"]
    np.testing.assert_allclose(same, cost(Trained(params)).values["loss"], rtol=0.05, atol=0.01)
    stale = cost(Trained(pruned_weights(params, 0.5))).values["loss"]
    assert not np.allclose(values["prune 50 %"].values["loss"], stale, rtol=0.05, atol=0.01)
    assert (run / "compression.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_regression_has_an_error_and_no_distillation(folder, compressed):
    run = folder("regression")
    options = ["--method", "all", "--sparsity", "0.8", "--steps", "4"]
    status, lines, error = compressed(run, *options)
    assert status == 0
    assert "note: --method distil matches class probabilities" in " ".join(error.split())
    _, rows = rows_of(run / "compression-all.json")
    assert list(rows) == ["uncompressed", "prune 80 %", "gradual 80 %", "int8", "bfloat16"]
    assert "mean squared error" in lines[1]
    assert rows["prune 80 %"]["loss"] > 0


@pytest.mark.slow
def test_a_shipped_learner_writes_into_the_working_folder(compressed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, lines, _ = compressed("maml-glyphs", "--method", "bfloat16", "--eval-tasks", "4")
    assert status == 0
    assert lines[-1] == "result: maml-glyphs-compression-bfloat16.json"
    result, rows = rows_of(tmp_path / "maml-glyphs-compression-bfloat16.json")
    assert result["num_tasks"] == 4
    assert rows["bfloat16"]["bytes"] == pytest.approx(rows["uncompressed"]["bytes"] / 2, rel=0.01)


@pytest.mark.parametrize(
    ("domain", "options", "told"),
    [
        ("few-shot", "--sparsity 1", "--sparsity 1.0: give a number that is at least 0 and below"),
        ("few-shot", "--method distil --temperature 0", "--temperature 0.0: "),
        ("few-shot", "--method gradual --steps 1", "--steps 1: gradual pruning requires 2 or more"),
        ("few-shot", "--method distil --width 4", "--width 4: the network would have "),
        ("regression", "--method distil", "regression has tasks of the kind regression"),
        ("regression", "--out missing/result.json", "there is no folder missing"),
    ],
)
def test_what_cannot_be_compressed(domain, options, told, folder, compressed):
    run = folder(domain, "maml")
    status, _, error = compressed(run, *options.split())
    assert status == 1
    assert told in " ".join(error.splitlines()[-1].split())
    assert not list(run.glob("compression*"))


def test_no_run_there(status, capsys):
    assert status("compress", "no-such-run") == 1
    assert "no-such-run is not a run folder" in capsys.readouterr().err

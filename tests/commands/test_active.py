"""Active learning of a run: the same tasks for every rule, results that continue, refusals."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxmeta.commands import active
from jaxmeta.data._whole_pools import candidate_pools
from jaxmeta.data.pool_sets.table import table_pools
from jaxmeta.recipes import restore
from jaxmeta.recipes.pool_report import judge_of
from jaxmeta.recipes.results import read_per_task
from jaxmeta.training.estimates import estimate

SMALL = ("--pool", "4", "--queries", "2", "--labels", "4", "--eval-tasks", "6")


@pytest.fixture
def labelled(status, capsys):
    """`labelled(folder, *options)`: status, lines, errors."""

    def run(folder, *options):
        capsys.readouterr()
        found = status("active", folder, *SMALL, *options)
        captured = capsys.readouterr()
        return found, captured.out.splitlines(), " ".join(captured.err.split())

    return run


@pytest.fixture
def folder(trained, tmp_path):
    """`folder(learner, *options)`: a copy of a tiny run, to be written to."""

    def copy(learner, *options):
        found = trained("few-shot", learner, *(options or ("--query-statistics", "none")))
        return shutil.copytree(found, tmp_path / found.name)

    return copy


def rows_of(path):
    result = json.loads(path.read_text())
    return result, {row["name"]: row for row in result["rows"]}


@pytest.mark.full
def test_rules_on_the_same_tasks(folder, labelled):
    run = folder("prototypical")
    status, lines, error = labelled(run, "--rules", "k-centre", "margin")
    assert status == 0, error
    path = run / "active.json"
    assert lines[-1] == f"result: {path}"
    result, rows = rows_of(path)
    assert list(rows) == ["random", "margin", "k-centre"]
    assert result["labels"] == [0, 1, 2, 3, 4]
    assert result["num_tasks"] == 6
    assert [line.split()[0] for line in lines[2:5]] == list(rows)
    assert "–" in lines[2]
    values = read_per_task(path.with_suffix(".npz"))
    random = values["random"].values["area"]
    for name, row in rows.items():
        assert values[name].tasks == values["random"].tasks
        assert len(row["accuracy"]) == len(row["accuracy_ci95"]) == 5
        assert row["accuracy"][0] == pytest.approx(1 / 3)  # without a label
        # The area is that under the mean accuracy, and differences are taken task by task.
        assert row["area"] == pytest.approx(np.trapezoid(row["accuracy"]) / 4, rel=1e-5)
        mean, ci95 = estimate(values[name].values["area"] - random)
        assert row["difference"] == pytest.approx(mean, abs=1e-6)
        assert row["difference_ci95"] == pytest.approx(ci95, abs=1e-6)
        assert row["accuracy"][-1] == pytest.approx(values[name].values["accuracy"].mean())
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.full
def test_a_result_that_was_cut_short_is_continued(folder, labelled, monkeypatch):
    run = folder("prototypical")
    measure, measured = active._measure, []

    def killed(name, *rest):
        if name == "k-centre" and "k-centre" not in measured:
            measured.append(name)
            raise OSError("killed")
        measured.append(name)
        return measure(name, *rest)

    monkeypatch.setattr(active, "_measure", killed)
    assert labelled(run, "--rules", "margin", "k-centre")[0] == 1
    _, rows = rows_of(run / "active.json")
    assert list(rows) == ["random", "margin"]
    status, lines, _ = labelled(run, "--rules", "margin", "k-centre")
    assert status == 0
    assert measured == ["random", "margin", "k-centre", "k-centre"]
    _, after = rows_of(run / "active.json")
    assert list(after) == ["random", "margin", "k-centre"]
    assert {name: after[name] for name in rows} == rows
    assert [line.split()[0] for line in lines[2:5]] == list(after)
    # Other settings have another file.
    assert labelled(run, "--rules", "margin", "--start", "1")[0] == 0
    other, _ = rows_of(run / f"active-{_made_from(run)}.json")
    assert other["labels"] == [3, 4, 5, 6, 7]


def _made_from(run):
    (found,) = (path for path in run.glob("active-*.json"))
    return found.stem.removeprefix("active-")


@pytest.mark.slow
def test_a_learner_that_adapts_and_a_committee(folder, labelled, tmp_path):
    run, other = folder("maml"), folder("prototypical")
    options = ("--rules", "bald", "learned", "--committee", other)
    status, _, error = labelled(run, *options, "--steps", "2", "--task-batch", "2")
    assert status == 0, error
    _, rows = rows_of(run / "active.json")
    assert list(rows) == ["random", "bald", "learned"]


@pytest.mark.parametrize(
    ("learner", "options", "told"),
    [
        ("prototypical", "--rules bald", "--rules bald requires a committee"),
        ("prototypical", "--committee a --samples 3", "give --committee or --samples, not both"),
        ("prototypical", "--samples 3", "predictions of this run do not depend on the key"),
        ("prototypical", "--labels 13", "--labels 13: the pool has 12 examples (4 of each of 3"),
        ("prototypical", "--labels 10 --start 1", "3 labelled at the start; give at most 9"),
        ("prototypical", "--pool 8", "lower the shots or the queries"),
        ("prototypical", "--committee no-such-run", "no-such-run is not a run folder"),
        ("maml", "--ways 4", "requires tasks of 3 classes, not 4"),
        ("prototypical", "--rules greedy", "--rules greedy requires two classes; the run's tasks"),
        ("prototypical", "--out missing/result.json", "there is no folder missing"),
    ],
)
def test_what_cannot_be_done(learner, options, told, folder, labelled):
    run = folder(learner)
    status, _, error = labelled(run, *options.split())
    assert status == 1
    assert told in error
    assert not list(run.glob("active*.json"))


@pytest.mark.full
def test_statistics_of_several_examples_are_refused(folder, labelled):
    run = folder("maml", "--query-statistics", "batch")
    status, _, error = labelled(run)
    assert status == 1
    assert "--query-statistics batch: the network of this run normalises by statistics of" in error


@pytest.mark.full
@pytest.mark.parametrize(
    ("domain", "options", "told"),
    [
        (
            "regression",
            "",
            "active learning requires a run of few-shot classification, or of pools",
        ),
        ("pools", "", "pools of examples require a label of each class at the start, at least"),
        ("pools", "--start 1 --ways 3", "--ways 3: pools have the classes of their data set"),
        ("pools", "--start 1 --labels 99", "none of 6 pools has 101 candidates, 1 of each class"),
    ],
)
def test_tasks_that_are_refused(domain, options, told, trained, labelled):
    status, _, error = labelled(trained(domain), *options.split())
    assert status == 1
    assert told in error


@pytest.mark.slow
def test_pools_of_numbers_are_refused(trained, labelled):
    run = trained("pools", "conditional-neural-process", "--target-column", "size")
    status, _, error = labelled(run, "--start", "1")
    assert status == 1
    assert "active learning requires classes; " in error and "targets that are numbers" in error


OF_POOLS = ("--pool", "2", "--queries", "3", "--start", "1", "--labels", "2")


@pytest.mark.full
def test_pools_after_all_labels_are_as_in_an_evaluation(trained, labelled, table, tmp_path):
    """Four candidates, of which all have a label at the end, whatever the rule."""
    run = shutil.copytree(trained("pools"), tmp_path / "pools")
    options = (*OF_POOLS, "--rules", "entropy", "greedy")
    status, _, error = labelled(run, *options, "--eval-tasks", "50")
    assert status == 0, error
    path = run / "active.json"
    result, rows = rows_of(path)
    assert (result["metric"], result["num_tasks"], result["pool"]) == (
        "average_precision_gain",
        6,
        4,
    )
    assert result["labels"] == [2, 3, 4]
    assert list(rows) == ["random", "entropy", "greedy"]

    dataset, restored = table_pools(table), restore(run)
    stream, chosen = candidate_pools(
        dataset.test, ways=2, candidates=4, queries=6, start=1, labels=2, order="stratified"
    )
    judge, given = judge_of(dataset), (restored.learner, restored.trained)
    tasks = [stream.prepare(stream.tasks[index]) for index in range(6)]
    metrics = [judge(jax.random.key(0), *given, task)[1] for task in tasks]
    values = read_per_task(path.with_suffix(".npz"))
    random = values["random"].values
    for name, own in values.items():
        for metric in ("average_precision_gain", "auroc", "accuracy"):
            expected = [float(found[metric]) for found in metrics]
            np.testing.assert_allclose(own.values[metric], expected, atol=1e-5)
            assert rows[name][metric][-1] == pytest.approx(np.mean(expected), abs=1e-5)
        for suffix, metric in (("", "average_precision_gain"), ("_auroc", "auroc")):
            area = np.trapezoid(rows[name][metric]) / 2
            assert rows[name][f"area{suffix}"] == pytest.approx(area, abs=1e-5)
            lead = estimate(own.values[f"area{suffix}"] - random[f"area{suffix}"])
            assert rows[name][f"difference{suffix}"] == pytest.approx(lead.mean, abs=1e-6)
            assert rows[name][f"difference{suffix}_ci95"] == pytest.approx(lead.ci95, abs=1e-6)
    assert len(chosen) == 6 and all(task.query.mask.sum() <= 6 for task in tasks)


@pytest.mark.slow
def test_the_learned_rule_and_a_committee_on_pools(trained, labelled, tmp_path):
    run = shutil.copytree(trained("pools"), tmp_path / "pools")
    other = trained("pools", "bayesian-last-layer")
    options = ("--rules", "bald", "learned", "--committee", other, "--steps", "2")
    status, _, error = labelled(run, *OF_POOLS, *options)
    assert status == 0, error
    assert list(rows_of(run / "active.json")[1]) == ["random", "bald", "learned"]

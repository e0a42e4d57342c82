"""The optimizers command: trained, compared, resumed; and the comparison's own arithmetic."""

import json

import jax
import numpy as np
import optax
import pytest

from experiments import optimizers
from experiments.command_line import guarded
from experiments.comparison import Course, compare, summary
from jaxmeta.data.synthetic.optimization import quadratics
from jaxmeta.learners.optimizers import lstm_optimizer

SMALL = {
    "steps": 4,
    "task_batch": 2,
    "checkpoint_every": 2,
    "chunk": 2,
    "validation_tasks": 4,
    "eval_tasks": 6,
    "horizon": 6,
    "window": 3,
}


@pytest.fixture
def one_course(monkeypatch):
    """A comparison of a second: on unseen problems alone."""
    every = optimizers.courses
    monkeypatch.setattr(
        optimizers, "courses", lambda settings: dict(list(every(settings).items())[:1])
    )


@pytest.mark.slow
def test_a_run_writes_results_and_pictures(tmp_path, capsys, one_course):
    settings = optimizers.Optimizers(rule="mlp", out=tmp_path / "run", **SMALL)
    optimizers.main(settings)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["comparison"]) == {"unseen problems"}
    for rows in results["comparison"].values():
        assert set(rows) == {"learned", "adam", "momentum", "rmsprop"}
        assert rows["learned"]["rate"] is None
        assert rows["adam"]["rate"] > 0
    assert {path.name for path in (tmp_path / "run").glob("*.png")} == {
        "comparison.png",
        "learning_curve.png",
    }
    weights = np.load(tmp_path / "run" / "rule.npz")
    assert len(weights.files) >= 4
    assert "unseen problems: learned" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("training", ["full", "persistent", "evolution"])
def test_every_way_of_training_leaves_a_rule(training, tmp_path, one_course):
    settings = optimizers.Optimizers(training=training, **SMALL)
    results = optimizers.run(settings, tmp_path / "run", optimizers.Progress(quiet=True))
    assert results["comparison"]["unseen problems"]["learned"]["final_loss"] > 0
    weights = np.load(tmp_path / "run" / "rule.npz")
    start = optimizers.rule_of(settings).init(jax.random.split(jax.random.key(0), 3)[0])
    named = {
        jax.tree_util.keystr(place, simple=True, separator="/"): leaf.shape
        for place, leaf in jax.tree_util.tree_leaves_with_path(start)
    }
    assert {name: weights[name].shape for name in weights.files} == named


@pytest.mark.slow
def test_a_run_resumes_where_it_would_have_been(tmp_path, one_course):
    settings = optimizers.Optimizers(**SMALL)
    quiet = optimizers.Progress(quiet=True)
    expected = optimizers.run(settings, tmp_path / "whole", quiet)["parameters_sha256"]
    half = optimizers.Optimizers(**{**SMALL, "steps": 2})
    optimizers.run(half, tmp_path / "half", quiet)
    other = optimizers.Optimizers(out=tmp_path / "half", resume=True, **SMALL)
    assert guarded(lambda: optimizers.main(other)) == 1  # another number of steps
    again = optimizers.Optimizers(out=tmp_path / "whole", **SMALL)
    assert guarded(lambda: optimizers.main(again)) == 1  # neither resumed nor overwritten
    resumed = optimizers.Optimizers(resume=True, **SMALL)
    found = optimizers.run(resumed, tmp_path / "whole", quiet)
    assert found["parameters_sha256"] == expected


@pytest.mark.slow
def test_every_family_has_its_courses():
    digits = optimizers.courses(optimizers.Optimizers(family="digits"))
    assert set(digits) == {
        "unseen problems",
        "500 steps",
        "twice the width",
        "activation elu",
        "on glyphs",
    }
    sizes = {
        name: course.family.sample(jax.random.key(0)).support.inputs["units"].shape[-1]
        for name, course in digits.items()
    }
    assert sizes["twice the width"] == 2 * sizes["unseen problems"]
    assert digits["500 steps"].steps == 500


@pytest.mark.slow
def test_tuned_rates_lie_inside_the_grid_and_are_the_best(tmp_path):
    rule = lstm_optimizer(hidden=2)
    learned = rule.transformation(rule.init(jax.random.key(0)))
    course = Course(quadratics(3), 5)
    curves = compare(course, learned, jax.random.key(1), 8, 8)
    for name, make in {"adam": optax.adam, "rmsprop": optax.rmsprop}.items():
        rate = curves[name].rate
        assert rate is not None
        for factor in (10**-0.5, 10**0.5):
            other = compare(course, make(rate * factor), jax.random.key(1), 8, 8)["learned"]
            assert other.losses[:, -1].mean() >= curves[name].losses[:, -1].mean()
    rows = summary(curves)
    difference = curves["learned"].losses[:, -1] - curves["adam"].losses[:, -1]
    np.testing.assert_allclose(rows["adam"]["learned_minus_this"], difference.mean())
    assert rows["learned"]["learned_minus_this"] == 0
    # All start alike: the same problems, the same beginnings.
    starts = np.stack([curve.losses[:, 0] for curve in curves.values()])
    np.testing.assert_allclose(starts, starts[:1].repeat(4, axis=0))

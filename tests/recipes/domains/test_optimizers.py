"""Learned optimizers: trained in every way, compared; and the comparison's own arithmetic."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta.data.synthetic.optimization import quadratics
from jaxmeta.recipes import find_domain, restore
from jaxmeta.recipes.domains import optimizers
from jaxmeta.recipes.domains.optimizers import TUNED, Course, Curve, compare, losses_of, summary


@pytest.mark.slow
def test_a_run_writes_results_and_pictures(trained, capsys):
    capsys.readouterr()
    folder = trained("optimizers", "mlp-optimizer")
    results = json.loads((folder / "results.json").read_text())
    courses = {"unseen problems", "20 steps", "twice the dimensions"}
    assert results["comparison"].keys() == results["tests"].keys() == courses
    for name, rows in results["comparison"].items():
        assert set(rows) == {"learned", "adam", "momentum", "rmsprop"}
        assert rows["learned"]["rate"] is None
        assert rows["learned"]["final_loss"] == pytest.approx(
            results["tests"][name]["final_loss"], rel=1e-5
        )
        assert rows["adam"]["rate"] > 0
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {"comparison.png", "learning_curve.png"}
    assert len(np.load(folder / "rule.npz").files) >= 4
    said = capsys.readouterr().out
    assert not said or "unseen problems: learned" in said


@pytest.mark.slow
@pytest.mark.parametrize("training", ["full", "persistent", "evolution"])
def test_every_way_of_training_leaves_a_rule(training, tiny, status, tmp_path, monkeypatch):
    # A comparison of a second: on unseen problems alone.
    every = optimizers.Optimizers.courses
    monkeypatch.setattr(
        optimizers.Optimizers, "courses", lambda self, seed: dict([*every(self, seed).items()][:1])
    )
    folder = tmp_path / "run"
    line = [*tiny("optimizers"), "--meta-gradient", training, "--out", folder]
    assert status("optimizers", *line) == 0
    results = json.loads((folder / "results.json").read_text())
    assert results["comparison"]["unseen problems"]["learned"]["final_loss"] > 0
    assert results["protocol"]["inner"]["meta_gradient"] == training
    # The rule for use elsewhere is what was restored.
    weights = np.load(folder / "rule.npz")
    named = {
        jax.tree_util.keystr(place, simple=True, separator="/"): leaf
        for place, leaf in jax.tree_util.tree_leaves_with_path(restore(folder).meta_params)
    }
    assert {*weights.files} == named.keys()
    for name, leaf in named.items():
        np.testing.assert_array_equal(weights[name], leaf)


@pytest.mark.slow
def test_every_family_has_its_courses():
    own: Any = find_domain("optimizers")
    digits = own(family="digits").courses(0)
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
    assert digits["500 steps"].horizon == 500
    assert set(own().courses(0)) == {"unseen problems", "500 steps", "twice the dimensions"}


@pytest.mark.slow
def test_tuned_rates_lie_inside_the_grid_and_are_the_best():
    course, key = Course(quadratics(3), 5), jax.random.key(1)
    curves = compare(course, key, 8, 8)
    keys = jax.random.split(key, 8)
    assert curves.keys() == TUNED.keys()
    for name, make in TUNED.items():
        rate = curves[name].rate
        assert rate is not None
        assert curves[name].inside
        of_rate = losses_of(course, make)
        best = of_rate(jnp.asarray(rate), keys)
        np.testing.assert_allclose(best, curves[name].losses, rtol=1e-6)
        for factor in (10**-0.5, 10**0.5):
            other = of_rate(jnp.asarray(rate * factor), keys)
            assert other[:, -1].mean() >= best[:, -1].mean()
    # All start alike: the same problems, the same beginnings.
    starts = np.stack([curve.losses[:, 0] for curve in curves.values()])
    np.testing.assert_allclose(starts, starts[:1].repeat(len(curves), axis=0))


def test_the_summary_by_hand():
    learned, adam = np.array([[4.0, 2.0, 1.0], [8.0, 2.0, 3.0]]), np.full((2, 3), 5.0)
    rows = summary({"learned": Curve(learned, None), "adam": Curve(adam, 0.1, inside=False)})
    assert rows["learned"]["final_loss"] == 2.0
    assert rows["learned"]["final_loss_ci95"] == pytest.approx(1.96 * 2**0.5 / 2**0.5, rel=1e-3)
    assert rows["learned"]["mean_loss"] == 2.0  # without where they start
    assert rows["learned"]["learned_minus_this"] == 0
    assert rows["adam"]["learned_minus_this"] == -3.0
    assert (rows["adam"]["rate"], rows["adam"]["rate_inside_grid"]) == (0.1, False)
    assert rows["adam"]["diverged"] == 0


def test_a_learned_optimizer_sees_the_problems_of_the_tuned_ones():
    """The same keys give the same problems and the same beginnings."""
    course, keys = Course(quadratics(3), 2), jax.random.split(jax.random.key(1), 3)
    losses = losses_of(course, lambda rate: optax.sgd(rate))(jnp.asarray(0.0), keys)
    assert losses.shape == (3, 3)
    np.testing.assert_allclose(losses, losses[:, :1].repeat(3, axis=1))  # a rate of 0 stays there

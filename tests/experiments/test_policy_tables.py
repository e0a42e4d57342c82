"""Tables of policies from small result files."""

import json

import pytest

from experiments.policy_tables import (
    bandits_table,
    control_speed_table,
    dynamics_tables,
    returns_tables,
)
from experiments.table import optimizers_tables, processes_table


@pytest.fixture
def write(tmp_path):
    def write(run, name="results.json", **content):
        (tmp_path / run).mkdir(parents=True, exist_ok=True)
        (tmp_path / run / name).write_text(json.dumps(content))

    return write


def curve(*returns):
    return {"after_inner_steps": {"return": returns, "return_ci95": [0.5] * len(returns)}}


def test_returns_of_one_run_and_of_several_seeds(write, tmp_path):
    own = {"experiment": "control", "learner": "maml-rl", "environment": "navigation"}
    write("maml-rl-navigation", **own, seeds=[0, 1], runs=[curve(-40, -12.0), curve(-38, -10.0)])
    write("maml-rl-navigation-no-adaptation", **own, **curve(-39, -14.0))
    write("maml-rl-navigation", "evaluation-later.json", **own, **curve(-39, -11.0))
    write("other", experiment="regression", learner="maml")
    found = returns_tables(tmp_path).splitlines()
    assert found[:3] == ["### navigation", "", "| learner | before | 1 step |"]
    # Student's t with one degree of freedom: 12.706 · √2 / √2 and the same of the second column.
    assert "[maml-rl, 2 seeds]" in found[4] and "| -39.0 ± 12.7 | -11.0 ± 12.7 |" in found[4]
    assert "[maml-rl, later](../../experiments/results/maml-rl-navigation/eval" in found[5]
    assert "[maml-rl, no adaptation]" in found[6] and found[6].endswith("| -14.0 ± 0.5 |")
    assert found[7] == "| maml-rl, published | −40.41 | −11.68 |"
    assert len(found) == 8


def test_evaluations_of_seeds_are_one_row(write, tmp_path):
    own = {"experiment": "control", "learner": "promp", "environment": "corners"}
    for seed, after in enumerate((-3.0, -5.0)):
        name = "evaluation-later-rate-0.25.json"
        write(f"promp-corners/seed_{seed}", name, **own, seed=seed, **curve(-40, after))
    found = returns_tables(tmp_path).splitlines()
    place = "../../experiments/results/promp-corners/seed_0/evaluation-later-rate-0.25.json"
    assert found[4] == (
        f"| [promp, later rate 0.25, 2 seeds]({place}) | -40.0 ± 0.0 | -4.0 ± 12.7 |"
    )
    assert len(found) == 5


def test_bandits_beside_their_rivals(write, tmp_path):
    row = {"return": 74.0, "return_ci95": 0.5, "learned_minus_this": 1.5}
    comparison = {name: {**row, "learned_minus_this_ci95": 0.1} for name in ("learned", "UCB1")}
    write("a", experiment="bandits", learner="rl-squared", arms=5, comparison=comparison)
    lines = bandits_table(tmp_path).splitlines()
    link = "[rl-squared](../../experiments/results/a/results.json)"
    assert lines[2:] == [
        f"| 5 | {link} | 74.00 ± 0.50 |  |",
        "| 5 | UCB1 | 74.00 ± 0.50 | +1.50 ± 0.10 |",
    ]
    assert not optimizers_tables(tmp_path)  # which have a comparison, too


def test_models_of_dynamics(write, tmp_path):
    errors = {"error": [0.1, 0.2, 0.4], "error_ci95": [0.01, 0.02, 0.04]}
    played = {"return": -205.4, "return_ci95": 31.2, "gap_closed": 0.95, "gap_closed_ci95": 0.036}
    own = {"experiment": "dynamics", "learner": "alpaca", "environment": "pendulum"}
    control = {"models": {"adapted": played, "true model": played}}
    write("a", **own, open_loop={"adapted": errors}, control=control, log_likelihood=4.5)
    lines = dynamics_tables(tmp_path).splitlines()
    assert lines[0] == "#### pendulum, [alpaca](../../experiments/results/a/results.json)"
    assert "| error, 3 steps |" in lines[2]
    assert lines[4:] == [
        "| adapted | 0.1 ± 0.01 | 0.4 ± 0.04 | -205 ± 31 | 95 ± 4 |",
        "| true model | – | – | -205 ± 31 | 95 ± 4 |",
    ]
    assert len(processes_table(tmp_path).splitlines()) == 2  # no row of a neural process


def test_speed_of_policies(write, tmp_path):
    row = {"seconds": 0.5, "environment_steps_per_second": 160000.0, "ratio_to_peer": 11.54}
    write("control-speed-cpu", "control.json", meta_updates={"navigation, ProMP": row})
    place = "../../experiments/results/control-speed-cpu/control.json"
    expected = f"| [navigation, ProMP]({place}) | 0.50 | 160,000 | 11.5 |"
    assert control_speed_table(tmp_path).splitlines()[2] == expected

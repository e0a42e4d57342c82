"""The contestants of the benchmark compute one thing, and its figures are whole."""

import json

import jax
import pytest

from experiments import benchmark as bench
from experiments import workloads
from experiments.benchmark import Benchmark
from experiments.contestants import CONTESTANTS, PEERS, InProcess
from experiments.workloads import WORKLOADS, jaxmeta_contestant

# One small task of every problem that the workloads pose, but one step instead of several.
SMALL = {
    name: workload._replace(tasks=1, queries=2, length=1)
    for name, workload in WORKLOADS.items()
    if not name.endswith(("-5-steps", "-10-steps", "-5-shot", "84x84"))
}
COLOUR = WORKLOADS["max-pool-84x84"].problem._replace(steps=1, size=40, width=4)  # 2×2 positions
SMALL["max-pool-colour"] = WORKLOADS["max-pool-84x84"]._replace(
    problem=COLOUR, tasks=1, queries=2, length=1
)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize(
    "name",
    [  # XLA takes long over the gradients of `lax.conv`; the benchmark itself asks all of them
        name if name == "sinusoid-1-step" else pytest.param(name, marks=pytest.mark.slow)
        for name in SMALL
    ],
)
def test_contestants_agree(name, peer, x64):
    if peer.startswith("torch"):
        pytest.importorskip("torch", reason="PyTorch is for benchmarks only")
    workload = SMALL[name]
    contestants = {
        "jaxmeta": jaxmeta_contestant(workload),
        peer: CONTESTANTS[peer](workload),
    }
    bench.assert_agreement(workload, contestants, "float64", 1e-8)


@pytest.mark.full
@pytest.mark.parametrize("peer", ["torch_vmap", "plain_jax"])
def test_contestants_agree_on_features_at_several_positions(peer, x64):
    """The loss after a step; gradients of the outer loop would compile for minutes."""
    if peer.startswith("torch"):
        pytest.importorskip("torch", reason="PyTorch is for benchmarks only")
    workload = SMALL["max-pool-colour"]
    workload = workload._replace(problem=COLOUR._replace(method="evaluation"))
    params, tasks = workloads.initial(workload.problem), workloads.draw(workload)
    found = [CONTESTANTS[name](workload).measure(params, tasks)[0] for name in ("jaxmeta", peer)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_contestants_that_differ_are_told():
    workload = SMALL["sinusoid-1-step"]
    ours = jaxmeta_contestant(workload)
    faster = workload._replace(problem=workload.problem._replace(rate=0.02))
    other = jaxmeta_contestant(faster)
    with pytest.raises(ArithmeticError, match="other and jaxmeta differ by"):
        bench.assert_agreement(workload, {"jaxmeta": ours, "other": other}, "float32", 1e-3)


def test_parameters_go_there_and_back():
    for workload in WORKLOADS.values():
        params = workloads.initial(workload.problem)
        back = workloads.list_of(workload.problem, workloads.tree_of(workload.problem, params))
        assert all((a == b).all() for a, b in zip(params, back, strict=True))


@pytest.mark.full
def test_a_contestant_in_a_process_of_its_own(monkeypatch):
    workload = SMALL["sinusoid-1-step"]
    params, tasks = workloads.initial(workload.problem), workloads.draw(workload)
    here = jaxmeta_contestant(workload).measure(params, tasks)
    there = InProcess("jaxmeta", workload)
    loss, grads = there.measure(params, tasks)
    assert loss == pytest.approx(here[0]) and len(grads) == len(here[1])
    with pytest.raises(RuntimeError, match="jaxmeta: "):
        there.measure(params[:2], tasks)
    monkeypatch.setattr("experiments.contestants.LIMIT", 0.0)
    with pytest.raises(TimeoutError, match="no answer within 0 minutes"):
        there.prepare(params, tasks, 1)
    there.close()


def test_steps_compile_and_run():
    workload = SMALL["sinusoid-1-step"]
    params, tasks = workloads.initial(workload.problem), workloads.draw(workload)
    steps, state, sample = workloads.compiled_steps(workload._replace(length=2), params, tasks)
    assert int(steps(state, sample)[0].step) == 2
    jaxmeta_contestant(workload).train(params, tasks, 1)()


@pytest.mark.slow
def test_the_figures_are_whole(tmp_path, capsys, monkeypatch):
    short = WORKLOADS["sinusoid-1-step"]._replace(tasks=4, length=20)
    monkeypatch.setitem(WORKLOADS, "sinusoid-1-step", short)
    monkeypatch.setattr(bench, "_TURN", 0.01)
    out = tmp_path / "bench.json"
    bench.benchmark(
        Benchmark(out=out, workload=("sinusoid-1-step",), peer=("plain_jax",), rounds=2)
    )
    (row,) = json.loads(out.read_text())["workloads"]
    assert row["ratio_to_best_peer"] == pytest.approx(
        row["tasks_per_second"] / row["contestants"]["plain_jax"]["tasks_per_second"]
    )
    for own in row["contestants"].values():
        assert own["resident_bytes"] > 1e7
        assert own["seconds_to_1000_updates"] > own["compile_seconds"] > 0
    assert 0 < row["fraction_of_matmul_peak"] < 1
    assert row["compile_seconds"] > 0 and row["peak_memory_bytes"] > 0
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "sinusoid-1-step" in capsys.readouterr().out
    assert jax.config.jax_enable_compilation_cache  # as it was


@pytest.mark.parametrize("options", [{"workload": ("nosuch",)}, {"peer": ("nosuch",)}])
def test_unknown_names(options, tmp_path):
    with pytest.raises(ValueError, match="'nosuch'; choose from"):
        bench.benchmark(Benchmark(out=tmp_path / "bench.json", **options))

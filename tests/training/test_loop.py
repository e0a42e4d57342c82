"""The training loop loses nothing, compiles once, and ends in plain words."""

import os
import shutil
import signal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmeta import Info, squared_error
from jaxmeta.data import sinusoids
from jaxmeta.learners import maml
from jaxmeta.models import mlp
from jaxmeta.training import (
    Estimate,
    Interrupted,
    MetaUpdate,
    NotFinite,
    TrainState,
    evaluation,
    meta_update,
    train_with_checkpoints,
)
from jaxmeta.training.checkpoints import parameters_sha256
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.update import chunk_of

LEARNER = maml(mlp((4,), 1), squared_error, optax.sgd(0.01), inner_steps=1)
UPDATE = meta_update(LEARNER, optax.adam(1e-2), task_batch=2)
SAMPLE = sinusoids(shots=3, queries=3)
EVALUATE = evaluation(LEARNER, 4, tasks_at_once=4)


@pytest.fixture(autouse=True, scope="module")
def _small_programs_are_cached_too():
    """A run compiles its chunk anew; the runs here have the same one."""
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 0.0)
    yield
    jax.config.update(name, before)


class Killed(BaseException):
    """Stands for `kill -9`: nothing in the loop may catch it."""


def run(folder, *, update=UPDATE, validate=None, report=None, chunk=5, **options):
    """30 steps with a checkpoint every 10; what was said, and the outcome."""
    said: list[str] = []
    outcome = train_with_checkpoints(
        folder,
        update,
        SAMPLE,
        jax.random.key(7),
        steps=30,
        task_batch=2,
        validate=validate or (lambda params: EVALUATE(params, SAMPLE, jax.random.key(8))),
        checkpoint_every=10,
        chunk=chunk,
        report=report or (lambda step, scalars: None),
        say=said.append,
        **options,
    )
    return outcome, said


def assert_same_end(folder, outcome, alone):
    """Bit for bit the run left alone: state, best parameters, log."""
    alone_folder, alone_outcome = alone
    for part in ("state", "best"):
        expected = parameters_sha256(getattr(alone_outcome, part))
        assert parameters_sha256(getattr(outcome, part)) == expected
    assert outcome.best_step == alone_outcome.best_step
    rows, alone_rows = read_metrics(folder), read_metrics(alone_folder)
    untimed = ("time", "tasks_per_second")
    strip = lambda row: {name: row[name] for name in row if name not in untimed}  # noqa: E731
    assert [strip(row) for row in rows] == [strip(row) for row in alone_rows]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    outcome, said = run(folder)
    assert said == []
    assert outcome.resumed_from_step is None
    return folder, outcome


def test_the_run_left_alone(alone):
    folder, outcome = alone
    assert int(outcome.state.step) == 30
    rows = read_metrics(folder)
    training = [row["step"] for row in rows if "train_loss" in row]
    assert training == [5, 10, 15, 20, 25, 30]
    losses = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    assert list(losses) == [10, 20, 30]
    assert outcome.best_step == min(losses, key=losses.__getitem__)
    assert outcome.wall_seconds > 0
    assert outcome.tasks_per_second > 0


@pytest.mark.parametrize("chunk", [1, 4, pytest.param(30, marks=pytest.mark.slow)])
def test_the_chunk_length_changes_nothing(chunk, alone, tmp_path):
    outcome, _ = run(tmp_path, chunk=chunk)
    assert parameters_sha256(outcome.state) == parameters_sha256(alone[1].state)
    assert outcome.best_step == alone[1].best_step


@pytest.mark.full
def test_one_update_is_compiled_as_one_of_many():
    """Or it would be fused, and so rounded, otherwise."""
    state = jax.eval_shape(UPDATE.init, jax.random.key(0), SAMPLE)
    chunk = jax.jit(chunk_of(UPDATE.update), static_argnames="length")
    lowered = (chunk.lower(state, SAMPLE, length=n) for n in (1, 2))
    alone, two = (program.compile().as_text().count(" while(") for program in lowered)
    assert alone == two > 0


@pytest.mark.full
@pytest.mark.parametrize(("chunk", "traces"), [(5, 1), (10, 1), (4, 2)])
def test_one_trace_for_each_chunk_length(chunk, traces, tmp_path):
    traced = []

    def update(state, sample, given=None):
        traced.append(state)
        return UPDATE.update(state, sample)

    run(tmp_path, update=MetaUpdate(UPDATE.init, update), chunk=chunk)
    assert len(traced) == traces


@pytest.mark.parametrize(
    ("killed_at", "resumed_from"),
    # (step, what was being logged) -> the checkpoint that is left
    [
        pytest.param((5, "train"), None, marks=pytest.mark.full),
        ((10, "validation"), None),
        ((15, "train"), 10),
        pytest.param((30, "train"), 20, marks=pytest.mark.full),
    ],
)
def test_a_killed_run_ends_as_the_run_left_alone(killed_at, resumed_from, alone, tmp_path):
    def kill(step, scalars):
        if (step, next(iter(scalars)).split("_")[0]) == killed_at:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, report=kill)
    outcome, said = run(tmp_path, resume=True)
    assert outcome.resumed_from_step == resumed_from
    if resumed_from is None:
        (line,) = said
        assert line.startswith(f"no complete checkpoint in {tmp_path}")
        assert line.endswith(": starting at step 0.")
    else:
        assert said == [f"resuming from step {resumed_from}."]
    assert_same_end(tmp_path, outcome, alone)


@pytest.mark.full
@pytest.mark.parametrize("saves", ["save", "save_best"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_around_a_checkpoint(saves, when, alone, tmp_path, monkeypatch):
    from jaxmeta.training import checkpoints

    original = getattr(checkpoints, saves)

    def killing(folder, step, tree, *, metadata):
        if step == 20 and when == "before":
            raise Killed
        original(folder, step, tree, metadata=metadata)
        if step == 20:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, saves, killing)
        try:
            run(tmp_path)
            assert saves == "save_best"  # step 20 need not be the best one
        except Killed:
            pass
    outcome, _ = run(tmp_path, resume=True)
    assert_same_end(tmp_path, outcome, alone)


def test_resuming_a_finished_run_changes_nothing(alone, tmp_path):
    run(tmp_path)
    outcome, said = run(tmp_path, resume=True)
    assert outcome.resumed_from_step == 30
    assert said == ["resuming from step 30."]
    assert_same_end(tmp_path, outcome, alone)


def test_a_damaged_newest_checkpoint_is_passed_over(alone, tmp_path):
    def kill(step, scalars):
        if step == 25:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path, report=kill)
    stored = [p for p in (tmp_path / "checkpoints" / "step_00000020").rglob("d/*") if p.is_file()]
    victim = max(stored, key=lambda path: path.stat().st_size)
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(damaged)

    outcome, said = run(tmp_path, resume=True)
    warning, resuming = said
    assert "step_00000020 is damaged" in warning
    assert "step_00000010 instead" in warning
    assert resuming == "resuming from step 10."
    assert outcome.resumed_from_step == 10
    assert_same_end(tmp_path, outcome, alone)


def damage(folder):
    for path in (folder / "manifest.json", folder / "SHA256SUMS"):
        path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.full
@pytest.mark.parametrize("best", [20, 30])
@pytest.mark.parametrize("how", [damage, shutil.rmtree])
def test_a_best_checkpoint_that_is_held_twice_may_be_lost(best, how, tmp_path):
    def validate(trained):
        seen.append(None)
        accuracy = jnp.asarray(1.0 if 10 * len(seen) == best else 0.5)
        return {"accuracy": Estimate(accuracy, accuracy), "loss": Estimate(accuracy, accuracy)}

    seen: list[None] = []
    outcome, _ = run(tmp_path, validate=validate, identity="mine")
    (folder,) = (tmp_path / "checkpoints").glob("best_*")
    how(folder)
    again, said = run(tmp_path, resume=True, identity="mine")
    assert said[0].startswith("the best checkpoint is damaged or missing: restored")
    assert parameters_sha256(again.best) == parameters_sha256(outcome.best)
    assert again.best_step == best
    assert run(tmp_path, resume=True, identity="mine")[1] == ["resuming from step 30."]


def test_a_best_checkpoint_that_is_lost_is_told_before_training(tmp_path):
    def validate(trained):
        seen.append(None)
        accuracy = jnp.asarray(1.0 / len(seen))
        return {"accuracy": Estimate(accuracy, accuracy), "loss": Estimate(accuracy, accuracy)}

    seen: list[None] = []
    run(tmp_path, validate=validate)
    (folder,) = (tmp_path / "checkpoints").glob("best_00000010")
    damage(folder)
    with pytest.raises(ValueError, match="best_00000010 is damaged"):
        run(tmp_path, resume=True)
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="has lost its best checkpoint, of step 10"):
        run(tmp_path, resume=True)


def test_the_checkpoints_and_the_log_of_another_run_are_refused(tmp_path):
    run(tmp_path, identity="mine")
    for name in ("step_*", "best_*"):
        for path in (tmp_path / "checkpoints").glob(f"{name}/manifest.json"):
            assert '"identity": "mine"' in path.read_text()
    with pytest.raises(ValueError, match="is of another run: it was saved by mine, this run is"):
        run(tmp_path, resume=True, identity="other")


def test_a_run_is_not_replaced_by_another(tmp_path):
    run(tmp_path)
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    with pytest.raises(ValueError, match="has the checkpoints of a run; give resume=True"):
        run(tmp_path, identity="other")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    run(tmp_path)
    wider = maml(mlp((6,), 1), squared_error, optax.sgd(0.01), inner_steps=1)
    update = meta_update(wider, optax.adam(1e-2), task_batch=2)
    with pytest.raises(ValueError, match="another learner, model or optimizer"):
        run(tmp_path, update=update, resume=True)


# --- signals ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(number, alone, tmp_path):
    def interrupt(step, scalars):
        if step == 15:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        run(tmp_path, report=interrupt)
    assert caught.value.signal_number == number
    assert signal.getsignal(number) is before
    saved = sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*"))[-1]
    step = int(saved.removeprefix("step_"))
    assert 15 <= step < 30
    assert f"stopped at step {step}, which is saved in {tmp_path}; " in str(caught.value)

    outcome, _ = run(tmp_path, resume=True)
    assert outcome.resumed_from_step == step
    assert_same_end(tmp_path, outcome, alone)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_last_validation_stops_too(number, alone, tmp_path):
    def interrupt(step, scalars):
        if step == 30 and "validation_loss" in scalars:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="stopped at step 30, which is saved"):
        run(tmp_path, report=interrupt)
    outcome, _ = run(tmp_path, resume=True)
    assert outcome.resumed_from_step == 30
    assert_same_end(tmp_path, outcome, alone)


# --- not a number -------------------------------------------------------------------------


def spoiled(at: int, where: str, value: float) -> MetaUpdate:
    """An update that turns the loss or a parameter of one step into NaN or infinity."""

    def spoil(tree: Any, hit):
        return jax.tree.map(lambda leaf: jnp.where(hit, jnp.full_like(leaf, value), leaf), tree)

    def update(state: TrainState, sample, given=None) -> tuple[TrainState, Info]:
        state, info = UPDATE.update(state, sample)
        hit = state.step == at
        if where == "loss":
            return state, info._replace(loss=spoil(info.loss, hit))
        return state._replace(meta_params=spoil(state.meta_params, hit)), info

    return MetaUpdate(UPDATE.init, update)


@pytest.mark.full
@pytest.mark.parametrize(("value", "chunk"), [(np.nan, 3), (np.inf, 5)])
def test_a_bad_loss_stops_with_its_step(value, chunk, tmp_path):
    with pytest.raises(NotFinite, match=r"loss became NaN or infinite at step 17; step_00000010"):
        run(tmp_path, update=spoiled(17, "loss", value), chunk=chunk)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*"))
    assert kept == ["step_00000010"]
    outcome, said = run(tmp_path, resume=True)  # with the cause removed
    assert said == ["resuming from step 10."]
    assert int(outcome.state.step) == 30


def test_bad_parameters_are_never_saved(tmp_path):
    with pytest.raises(NotFinite, match=r"became NaN or infinite at step 20; step_00000010 is"):
        run(tmp_path, update=spoiled(20, "parameters", np.nan))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["best_00000010", "step_00000010"]


def test_a_bad_first_step_has_no_checkpoint(tmp_path):
    with pytest.raises(NotFinite, match="at step 1; there is no earlier checkpoint"):
        run(tmp_path, update=spoiled(1, "loss", np.nan))


def test_a_validation_that_is_no_number_is_never_kept_as_the_best(tmp_path):
    values = iter([np.nan, 2.0, 3.0])

    def validate(params):
        return {"loss": Estimate(np.asarray(next(values)), np.asarray(0.0))}

    outcome, _ = run(tmp_path, validate=validate)
    assert outcome.best_step == 20


@pytest.mark.parametrize(("name", "best"), [("accuracy", 20), ("loss", 10)])
def test_the_best_is_the_highest_accuracy_or_the_lowest_loss(name, best, tmp_path):
    values = iter([0.1, 0.9, 0.5])

    def validate(params):
        value = np.asarray(next(values))
        estimates = {"loss": Estimate(-value if name == "accuracy" else value, np.asarray(0.0))}
        return estimates | {name: Estimate(value, np.asarray(0.0))}

    seen = []

    def noting(params):
        seen.append(parameters_sha256(params))  # now: training goes on in the same buffers
        return validate(params)

    outcome, _ = run(tmp_path, validate=noting)
    assert outcome.best_step == best
    assert parameters_sha256(outcome.best) == seen[best // 10 - 1]

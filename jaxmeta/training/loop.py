"""The training loop: compiled chunks, logs, validation, checkpoints, and handling of signals."""

import contextlib
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta.core import Info, Key
from jaxmeta.training import checkpoints, parallel
from jaxmeta.training.estimates import Estimate
from jaxmeta.training.feed import Source, first_task, open_feed
from jaxmeta.training.leaves import all_numbers
from jaxmeta.training.logs import Log, open_log
from jaxmeta.training.state import Trained, TrainState
from jaxmeta.training.update import MetaUpdate, chunk_of

CHECKPOINTS = "checkpoints"


class NotFinite(ArithmeticError):
    """A loss or a parameter became NaN or infinite; the last checkpoint is kept.

    Attributes:
      what: the value that became NaN or infinite, such as `loss`.
      step: the step at which it was detected.
      checkpoint: the name of the newest checkpoint; None if there is no checkpoint.
    """

    def __init__(self, what: str, step: int, checkpoint: str | None):
        kept = f"{checkpoint} is kept" if checkpoint else "there is no earlier checkpoint"
        super().__init__(
            f"the {what} became NaN or infinite at step {step}; {kept}. Try a smaller inner or "
            "outer learning rate, or clip the meta-gradients."
        )
        self.what, self.step, self.checkpoint = what, step, checkpoint


class Interrupted(Exception):
    """SIGINT, SIGTERM or SIGHUP stopped the run after a checkpoint.

    Attributes:
      signal_number: the number of the signal.
      step: the step of the checkpoint.
      folder: the run folder.
    """

    def __init__(self, signal_number: int, step: int, folder: Path):
        super().__init__(
            f"stopped at step {step}, which is saved in {folder}; train with resume=True to "
            "continue."
        )
        self.signal_number, self.step, self.folder = signal_number, step, folder


class Outcome(NamedTuple):
    """The result of `train_with_checkpoints`.

    Attributes:
      state: the state after the last step.
      best: the checkpoint with the best validation score.
      best_step: the step of `best`.
      resumed_from_step: the step of the checkpoint last resumed from; None if the run was never
        resumed.
      wall_seconds: wall time of training and validation, over all resumes.
      tasks_per_second: throughput of the compiled chunks, without compilation.
    """

    state: TrainState
    best: Trained
    best_step: int
    resumed_from_step: int | None
    wall_seconds: float
    tasks_per_second: float


class _Progress(NamedTuple):
    """The progress of a run, saved in a checkpoint besides the state."""

    best_step: int | None = None
    best_value: float | None = None
    wall_seconds: float = 0.0
    timed_tasks: int = 0
    timed_seconds: float = 0.0
    resumed_from_step: int | None = None
    stream_position: dict[str, Any] = {}  # noqa: RUF012  (never modified)


Report = Callable[[int, Mapping[str, float]], None]


def accuracy_or_minus_loss(estimates: Mapping[str, Estimate]) -> float:
    """The default score of validation: the mean accuracy, or minus the loss without accuracy."""
    if "accuracy" in estimates:
        return float(estimates["accuracy"].mean)
    return -float(estimates["loss"].mean)


def _refuse_checkpoints(folder: Path) -> None:
    """Raises `ValueError` if there are checkpoints, which a new run would replace."""
    if any(checkpoints.newest_step(folder, kind) is not None for kind in ("step", "best")):
        raise ValueError(
            f"{folder} has the checkpoints of a run; give resume=True to continue it, or another "
            "folder."
        )


def train_with_checkpoints(
    run_directory: str | Path,
    meta_update: MetaUpdate,
    source: Source,
    key: Key,
    *,
    steps: int,
    task_batch: int,
    validate: Callable[[Trained], Mapping[str, Estimate]],
    score: Callable[[Mapping[str, Estimate]], float] | None = accuracy_or_minus_loss,
    checkpoint_every: int,
    chunk: int,
    mesh: Mesh | None = None,
    resume: bool = False,
    identity: str | None = None,
    report: Report = lambda step, scalars: None,
    say: Callable[[str], object] = warnings.warn,
) -> Outcome:
    """Train for `steps` meta-updates, with logs, validation, and checkpoints to resume from.

    The randomness of a step depends only on the key and the step: a run that is killed and resumed
    is bit-identical to an uninterrupted one.

    Args:
      run_directory: the folder for `metrics.jsonl`, `tensorboard/` and `checkpoints/`.
      meta_update: see `jaxmeta.training.meta_update`.
      source: the training tasks: a sampler, or a stream (`jaxmeta.data.stream`); in a `Supplied`
        for a meta-update `with_constants`.
      key: PRNG key of the run.
      steps: total number of meta-updates.
      task_batch: tasks per meta-update; for streams, and for the reported tasks per second.
      validate: `validate(trained)` returns estimates on validation tasks.
      score: `score(estimates)`, a number that is maximised by the best checkpoint. Defaults to
        the accuracy, or minus the loss if there is no accuracy. With None, the last checkpoint is
        the best.
      checkpoint_every: meta-updates between validations, each followed by a checkpoint.
      chunk: meta-updates per compiled call.
      mesh: the mesh that `meta_update` was built with. All processes of a run must call this
        function; the first one writes, and all must have access to the run folder to resume.
      resume: continue from the newest complete checkpoint.
      identity: identifies the run, such as a digest of its settings and data; checkpoints and logs
        of another identity are rejected. Defaults to no check.
      report: called with the step and the scalars of each line that is logged.
      say: called with messages for the user, one line each.

    Raises:
      NotFinite: the loss or a parameter became NaN or infinite.
      Interrupted: SIGINT, SIGTERM or SIGHUP arrived, and a checkpoint has been written.
      ValueError: the folder has checkpoints, and `resume` is False; the checkpoint is of another
        learner, model or run, or all are damaged.
      OSError: the run folder cannot be written.
    """
    folder = Path(run_directory) / CHECKPOINTS
    owner = {} if identity is None else {"identity": identity}
    restore = partial(checkpoints.restore, folder, identity=identity, warn=say)
    init = partial(jax.jit(meta_update.init), key, first_task(source))
    restored = None
    if not resume:
        parallel.raise_on_all_processes(lambda: _refuse_checkpoints(folder))
    if resume:
        like = jax.eval_shape(init)
        parallel.check_same(
            checkpoints.newest_step(folder),
            f"all need access to the checkpoints in {folder}; share the folder between the hosts.",
        )
        restored = parallel.raise_on_all_processes(lambda: restore(like))
        parallel.check_same(
            None if restored is None else restored.step,
            f"not all can read the newest checkpoint in {folder}; run again, or copy it again.",
        )
    if restored is None:
        if resume:
            say(f"no complete checkpoint in {folder}: starting at step 0.")
        state, step, progress = init(), 0, _Progress()
    else:
        state, step = restored.tree, restored.step
        progress = _read_progress(folder, restored.metadata)._replace(resumed_from_step=step)
        _keep_best(folder, restored, progress.best_step, restore, owner, say)
        say(f"resuming from step {step}.")

    feed = open_feed(source, task_batch, mesh, progress.stream_position)
    state, sample = parallel.replicate((state, feed.sample), mesh)
    run_chunk = chunk_of(meta_update.update)
    chunk = min(chunk, feed.longest or chunk)
    log = parallel.raise_on_all_processes(
        lambda: (
            open_log(
                run_directory, resume_step=None if restored is None else step, identity=identity
            )
            if parallel.is_first_process()
            else Log(write=lambda step, scalars: None, close=lambda: None)
        )
    )
    clock = _Clock(progress)

    def read(end: int, infos: Info) -> None:
        """Waits for the metrics of the chunk that ended at step `end`, checks and logs them."""
        infos = jax.device_get(infos)
        bad = np.flatnonzero(~np.isfinite(infos.loss))
        if bad.size:
            step = end - len(infos.loss) + int(bad[0]) + 1
            raise NotFinite("loss", step, _newest(folder))
        rate = clock.chunk_done(len(infos.loss) * task_batch)
        scalars = {"train_loss": infos.loss, **{f"train_{k}": v for k, v in infos.metrics.items()}}
        tell(end, {name: float(values.mean()) for name, values in scalars.items()} | rate)

    def tell(step: int, scalars: Mapping[str, float]) -> None:
        log.write(step, scalars)
        report(step, scalars)

    try:
        with _stop_signals() as received:
            pending = None
            while step < steps:
                boundary = min(steps, (step // checkpoint_every + 1) * checkpoint_every)
                # Chunks end at the same steps as in an uninterrupted run.
                length = min(boundary - step, chunk - step % checkpoint_every % chunk)
                state, infos = run_chunk(state, sample, feed.take(length), length=length)
                step += length
                if pending is not None:  # read while the next chunk runs
                    read(*pending)
                pending = (step, infos)
                # Several processes synchronise here, since all must stop together.
                stopping = parallel.any_process(bool(received))
                if step < boundary and not stopping:
                    continue
                read(*pending)
                pending = None
                if not all_numbers(np.isfinite, state.meta_params):
                    raise NotFinite("meta-parameters", step, _newest(folder))
                if not all_numbers(_is_number, state.shared):
                    raise NotFinite("shared values", step, _newest(folder))
                if step == boundary:
                    estimates = validate(state.trained)
                    value = float(step if score is None else score(estimates))
                    means = {name: found.mean for name, found in estimates.items()}
                    scalars = {k: float(mean) for k, mean in means.items() if np.ndim(mean) == 0}
                    tell(step, {f"validation_{name}": value for name, value in scalars.items()})
                    if progress.best_value is None or value > progress.best_value:
                        # None for NaN and ±inf, which JSON lacks; any later score is better.
                        best_value = value if np.isfinite(value) else None
                        progress = progress._replace(best_step=step, best_value=best_value)
                        checkpoints.save_best(folder, step, state.trained, metadata=owner)
                progress = clock.add_to(progress)._replace(stream_position=feed.position())
                checkpoints.save(folder, step, state, metadata={**progress._asdict(), **owner})
                clock.restart()
                if stopping:
                    break
            if parallel.any_process(bool(received)):  # also one during the last validation
                number = received[0] if received else signal.SIGTERM
                raise Interrupted(number, step, folder.parent)
    finally:
        log.close()

    best = parallel.raise_on_all_processes(lambda: restore(state.trained, step="best"))
    if best is None:
        raise ValueError(f"{folder} holds no best checkpoint; delete the run and train it again.")
    return Outcome(
        state,
        best.tree,
        best.step,
        progress.resumed_from_step,
        progress.wall_seconds,
        progress.timed_tasks / max(progress.timed_seconds, 1e-9),
    )


def _read_progress(folder: Path, metadata: dict[str, Any]) -> _Progress:
    """The progress in a checkpoint; ValueError if it isn't one of `train_with_checkpoints`."""
    kinds = get_type_hints(_Progress) | {"stream_position": dict}
    own = {name: value for name, value in metadata.items() if name != "identity"}
    if all(isinstance(value, kinds.get(name, ())) for name, value in own.items()):
        return _Progress(**own)
    raise ValueError(
        f"{folder} holds checkpoints of another program or version, with the fields "
        f"{', '.join(sorted(metadata))}; train from the start."
    )


def _keep_best(
    folder: Path,
    restored: checkpoints.Restored,
    best_step: int | None,
    restore: Callable[..., checkpoints.Restored | None],
    owner: dict[str, Any],
    say: Callable[[str], object],
) -> None:
    """Ensures that the best checkpoint is complete before training continues.

    If it is damaged or missing, it is written again from a checkpoint of the same step.

    Raises:
      ValueError: there is no such checkpoint.
    """
    newest = checkpoints.newest_step(folder, "best")
    if best_step is None or (newest is not None and newest > restored.step):
        return  # a later step, which will be validated again
    like = jax.eval_shape(lambda: restored.tree)
    damage = ValueError(
        f"{folder} has lost its best checkpoint, of step {best_step}: copy it back from a backup, "
        "or train from the start."
    )
    try:
        best = restore(like.trained, step="best")
        whole = best is not None and best.step == best_step
    except ValueError as error:
        whole, damage = False, error
    if not parallel.any_process(not whole):
        return
    same = parallel.raise_on_all_processes(
        lambda: restored if restored.step == best_step else restore(like, step=best_step)
    )
    if same is None:
        raise damage
    say(f"the best checkpoint is damaged or missing: restored from that of step {best_step}.")
    checkpoints.save_best(folder, best_step, same.tree.trained, metadata=owner)


class _Clock:
    """Measures the total time, and the time of chunks except the first one, which compiles."""

    def __init__(self, progress: _Progress):
        self.before = progress
        self.start = self.last = time.perf_counter()
        self.compiled = False
        self.tasks, self.seconds = 0, 0.0

    def chunk_done(self, tasks: int) -> dict[str, float]:
        now = time.perf_counter()
        elapsed, self.last = now - self.last, now
        if not self.compiled:
            self.compiled = True
            return {}
        self.tasks, self.seconds = self.tasks + tasks, self.seconds + elapsed
        return {"tasks_per_second": tasks / elapsed}

    def restart(self) -> None:
        """Starts the time of the next chunk, after a validation and a checkpoint."""
        self.last = time.perf_counter()

    def add_to(self, progress: _Progress) -> _Progress:
        return progress._replace(
            wall_seconds=self.before.wall_seconds + time.perf_counter() - self.start,
            timed_tasks=self.before.timed_tasks + self.tasks,
            timed_seconds=self.before.timed_seconds + self.seconds,
        )


def _is_number(values: np.ndarray) -> np.ndarray:
    """Whether values are not NaN; infinity is allowed, such as the initial value of a minimum."""
    return ~np.isnan(values)


def _newest(folder: Path) -> str | None:
    return max((path.name for path in folder.glob("step_*")), default=None)


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP instead of ending the process; a second SIGINT interrupts
    at once. SIGHUP stays ignored where it is, as under `nohup`."""
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    try:
        before = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread, which is the only one to receive signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The log of a run: `metrics.jsonl`, and the same values as TensorBoard events.

When a run is resumed, `metrics.jsonl` is truncated to the step of the checkpoint, and the events
are written again from it, so that no step occurs twice.
"""

import json
import math
import os
import reprlib
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxmeta import files
from jaxmeta.extras import extra

_METRICS = "metrics.jsonl"
_EVENTS = "tensorboard"
_IDENTITY = "identity"
_NOT_SCALARS = ("step", "time", _IDENTITY)


class Log(NamedTuple):
    """An open log.

    Attributes:
      write: `write(step, scalars)` appends one line and syncs it to disk; `scalars` maps names
        to numbers (of Python, NumPy or JAX), NaN and ±inf become null.
      close: `close()`; nothing can be written afterwards.
    """

    write: Callable[[int, Mapping[str, Any]], None]
    close: Callable[[], None]


def open_log(
    run_directory: str | Path, *, resume_step: int | None, identity: str | None = None
) -> Log:
    """Opens `metrics.jsonl` and `tensorboard/` in a run folder.

    Args:
      run_directory: the run folder, made if missing.
      resume_step: None starts a new log, replacing an older one; a number keeps the lines up to
        that step and removes later ones.
      identity: identifies the run, and is stored in every line. Defaults to no identity.

    Raises:
      OSError: the folder cannot be written.
      ValueError: the log to resume has a broken line, or belongs to another run.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> log = open_log(folder, resume_step=None)
    >>> log.write(100, {"loss": 0.5, "accuracy": float("nan")})
    >>> log.close()
    >>> [(row["step"], row["loss"], row["accuracy"]) for row in read_metrics(folder)]
    [(100, 0.5, None)]
    """
    run_directory = Path(run_directory)
    run_directory.mkdir(parents=True, exist_ok=True)
    rows = []
    if resume_step is not None:
        rows = [row for row in read_metrics(run_directory) if row["step"] <= resume_step]
        for row in rows if identity else []:
            if row.get(_IDENTITY, identity) != identity:
                raise ValueError(
                    f"{run_directory / _METRICS} is the log of another run, {row[_IDENTITY]}; this "
                    f"run is {identity} (digests of settings and data). Remove that file."
                )
    files.write_bytes(run_directory / _METRICS, b"".join(_line(row) for row in rows))

    files.remove(run_directory / _EVENTS)
    events = _open_events(run_directory / _EVENTS)
    with files.naming(run_directory / _EVENTS):
        for row in rows:
            events.write(_event(row))
        events.flush()

    def write(step: int, scalars: Mapping[str, Any]) -> None:
        owner = {} if identity is None else {_IDENTITY: identity}
        row = files.plain({"step": step, "time": round(time.time(), 3), **scalars, **owner})
        path = run_directory / _METRICS
        with files.naming(path), open(path, "ab") as metrics:
            metrics.write(_line(row))
            metrics.flush()
            os.fsync(metrics.fileno())
        with files.naming(run_directory / _EVENTS):
            events.write(_event(row))
            events.flush()

    return Log(write, events.close)


def read_metrics(run_directory: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's `metrics.jsonl`, oldest first; an empty list if there is no such file.

    A row has `step`, `time` (seconds since 1970), the scalars, and the `identity` of the run if it
    has one. A last line that is incomplete, because the run was killed, is dropped.

    Raises:
      OSError: the file can't be read.
      ValueError: a line before the last is broken.
    """
    path = Path(run_directory) / _METRICS
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line and number == len(lines):
            break
        try:
            rows.append(_row(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(
                    f"Line {number} of {path} is broken, {error}: repair or delete that line."
                ) from None
    return rows


def _row(line: bytes) -> dict[str, Any]:
    """The row of a line; raises `ValueError` if it is broken."""
    row = files.parse_json(line)
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    step, then = row.get("step"), row.get("time", 0.0)
    if type(step) is not int or not 0 <= step < 2**63:
        raise ValueError(f"its step is {reprlib.repr(step)}")
    if not _is_number(then) or then < 0:
        raise ValueError(f"its time is {reprlib.repr(then)}")
    if not isinstance(row.get(_IDENTITY, ""), str):
        raise ValueError(f"its {_IDENTITY} is {reprlib.repr(row[_IDENTITY])}")
    for name, value in row.items():
        if name not in _NOT_SCALARS and value is not None and not _is_number(value):
            raise ValueError(f"its {reprlib.repr(name)} is {reprlib.repr(value)}")
    return row


def _is_number(value: Any) -> bool:
    """Whether a value is a number that fits a float, and not a bool."""
    if type(value) is int:
        return value.bit_length() < 1024
    return type(value) is float and math.isfinite(value)


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, allow_nan=False) + "\n").encode()


def _open_events(folder: Path) -> Any:
    # Not SummaryWriter, whose queue loses the last events of a killed process, and whose files
    # opened within the same second have the same name.
    with extra("train"):
        import tensorboardX

    folder.mkdir()
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    events = tensorboardX.RecordWriter(str(folder / name))
    events.write(_message(wall_time=time.time(), file_version="brain.Event:2"))
    return events


def _event(row: dict[str, Any]) -> bytes:
    values = [
        {"tag": name, "simple_value": float("nan") if value is None else value}
        for name, value in row.items()
        if name not in _NOT_SCALARS
    ]
    return _message(wall_time=row.get("time", 0.0), step=row["step"], summary={"value": values})


def _message(**fields: Any) -> bytes:
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    return Event(**fields).SerializeToString()

"""The log of a run, as JSON lines and as TensorBoard events."""

import json
import math
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c

from jaxmeta.files import write_bytes, write_json
from jaxmeta.training.logs import open_log, read_metrics


def events(run: Path) -> list:
    """Every event of every event file, as TensorBoard reads them, checksums verified."""
    found = []
    for path in sorted((run / "tensorboard").glob("*tfevents*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            payload = data[12 : 12 + length]
            assert struct.unpack("<I", data[8:12]) == (masked_crc32c(data[:8]),)
            assert struct.unpack("<I", data[12 + length :][:4]) == (masked_crc32c(payload),)
            found.append(Event.FromString(payload))
            data = data[16 + length :]
    return found


def scalars(run: Path) -> list[tuple[int, str, float]]:
    return [
        (event.step, value.tag, round(value.simple_value, 6))
        for event in events(run)
        for value in event.summary.value
    ]


def write_steps(run: Path, steps, *, resume_step: int | None) -> None:
    log = open_log(run, resume_step=resume_step)
    for step in steps:
        log.write(step, {"loss": 1 / step, "accuracy": np.float32(0.5)})
    log.close()


def test_what_is_written_is_read_by_both_readers(tmp_path):
    run = tmp_path / "a run"
    log = open_log(run, resume_step=None)
    log.write(0, {"loss": jnp.float32(0.25), "tasks": np.int64(32), "accuracy": float("nan")})
    log.write(100, {"loss": 0.125, "rate": float("inf")})
    # Before the log is closed: a killed process closes nothing.
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == read_metrics(run)
    assert list(rows[0]) == ["step", "time", "loss", "tasks", "accuracy"]
    assert (rows[0]["loss"], rows[0]["tasks"], rows[0]["accuracy"]) == (0.25, 32, None)
    assert (rows[1]["step"], rows[1]["loss"], rows[1]["rate"]) == (100, 0.125, None)
    found = scalars(run)
    assert found[:2] == [(0, "loss", 0.25), (0, "tasks", 32.0)]
    assert found[2][:2] == (0, "accuracy") and math.isnan(found[2][2])
    assert found[3] == (100, "loss", 0.125)
    assert events(run)[0].file_version == "brain.Event:2"
    log.close()


def test_a_resume_cuts_back_both(tmp_path):
    write_steps(tmp_path, [100, 200, 300, 400], resume_step=None)
    times = [row["time"] for row in read_metrics(tmp_path)]
    write_steps(tmp_path, [250, 300], resume_step=200)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [100, 200, 250, 300]
    assert [row["time"] for row in rows[:2]] == times[:2]
    assert [entry for entry in scalars(tmp_path) if entry[1] == "loss"] == [
        (step, "loss", round(1 / step, 6)) for step in (100, 200, 250, 300)
    ]
    assert [event.wall_time for event in events(tmp_path)[1:3]] == times[:2]


def test_a_new_log_removes_the_older_one(tmp_path):
    write_steps(tmp_path, [100, 200], resume_step=None)
    write_steps(tmp_path, [50], resume_step=None)
    assert [row["step"] for row in read_metrics(tmp_path)] == [50]
    assert [entry[0] for entry in scalars(tmp_path)] == [50, 50]


def test_what_a_kill_left_half_written_is_dropped(tmp_path):
    write_steps(tmp_path, [100, 200, 300], resume_step=None)
    metrics = tmp_path / "metrics.jsonl"
    data = metrics.read_bytes()
    last = data.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(last + 1, len(data) - 1):
        metrics.write_bytes(data[:end])
        assert [row["step"] for row in read_metrics(tmp_path)] == [100, 200]
    metrics.write_bytes(data[:last] + b"\0" * 40)  # what a power cut leaves
    assert [row["step"] for row in read_metrics(tmp_path)] == [100, 200]
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-7])

    write_steps(tmp_path, [300], resume_step=250)
    assert [row["step"] for row in read_metrics(tmp_path)] == [100, 200, 300]
    assert metrics.read_bytes().count(b"\n") == 3
    assert [entry[0] for entry in scalars(tmp_path)] == [100, 100, 200, 200, 300, 300]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match="Line 2 of .*metrics.jsonl") as error:
        read_metrics(tmp_path)
    assert "\n" not in str(error.value)


def test_no_log_reads_as_no_rows_and_can_be_resumed(tmp_path):
    assert read_metrics(tmp_path) == []
    write_steps(tmp_path, [5], resume_step=0)
    assert [row["step"] for row in read_metrics(tmp_path)] == [5]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as error:
        open_log(tmp_path / "file" / "run", resume_step=None)
    assert "\n" not in str(error.value)


def test_a_failed_write_keeps_the_file_before_it(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"accuracy": 0.5})
    with pytest.raises(TypeError):
        write_json(path, {"accuracy": object()})
    with pytest.raises(TypeError):
        write_bytes(path, "text, not bytes")  # pyright: ignore[reportArgumentType]
    assert json.loads(path.read_text()) == {"accuracy": 0.5}
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]

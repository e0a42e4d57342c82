"""Sequence runs from end to end, in seconds."""

import json

import pytest
from PIL import Image

from jaxmeta.recipes import known_learners

# Learners of every task; others ask for labels.
LEARNERS = [name for name, own in known_learners("sequence").items() if not own().needs.requests]
# Sizes of a learner of seconds; the LSTM's stand in the tiny run.
SIZES = {
    "lstm": (),
    "active-one-shot": ("--width", "4"),
    **{
        name: ("--slots", "6", "--slot-width", "4", "--controller-width", "8")
        for name in LEARNERS
        if name != "lstm"
    },
}


def line_of(tiny, learner, *options):
    """The tiny run without what belongs to the LSTM and to sequences of bits."""
    words = tiny("sequence", learner)
    shared = words[words.index("--steps") :]
    width = ["--width", "4"] if learner == "lstm" else []
    return [learner, *width, *SIZES[learner], *shared, *options]


@pytest.mark.slow
def test_a_run_is_evaluated_at_every_length_and_drawn(tiny, status, tmp_path, capsys):
    lengths = ["--lengths", "1", "3", "--test-lengths", "3", "6", "--bits", "3"]
    out = tmp_path / "run"
    line = [*line_of(tiny, "ntm", *lengths), "--out", out]
    assert status("sequence", *line) == 0
    results = json.loads((out / "results.json").read_text())
    assert set(results["tests"]) == {"length 3", "length 6"}
    for row in results["tests"].values():
        assert row["bits"] > 0
        assert 0 <= row["bit_error"] <= 1
    assert results["bits"] == results["tests"]["length 3"]["bits"]
    assert results["protocol"]["test_lengths"] == [3, 6]
    for length in (3, 6):
        with Image.open(out / f"sequence-{length}.png") as image:
            assert min(image.size) > 300
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ntm · copy · length 3 · ")
    assert lines[1].startswith("ntm · copy · length 6 · ")
    assert any(line.startswith("bit error at length 3: ") for line in lines)

    # Another length needs no other training.
    again = tmp_path / "five.json"
    assert status("evaluate", out, "--test-lengths", "5", "--out", again) == 0
    assert json.loads(again.read_text())["protocol"]["test_lengths"] == [5]
    assert "ntm · copy" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("task", ["repeat-copy", "associative-recall", "priority-sort"])
@pytest.mark.parametrize("learner", LEARNERS)
def test_every_task_with_every_learner(task, learner, tiny, status, tmp_path, capsys):
    line = line_of(tiny, learner, "--task", task, "--out", tmp_path / "run")
    assert status("sequence", *line) == 0
    assert capsys.readouterr().out.startswith(f"{learner} · {task} · ")
    pictures = list((tmp_path / "run").glob("sequence-*.png"))
    assert len(pictures) == 1


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["one-hot", "strings"])
def test_labels_are_judged_by_instance(labels, tiny, images, status, tmp_path, capsys):
    out = tmp_path / "run"
    stream = ["--task", "labels", "--labels", labels, "--dataset", images]
    stream += ["--image-size", "8", "--ways", "2", "--instances", "5"]
    assert status("sequence", *line_of(tiny, "mann", *stream, "--out", out)) == 0
    results = json.loads((out / "results.json").read_text())
    assert {"accuracy", "accuracy_1", "accuracy_2", "accuracy_5"} <= results.keys()
    assert results["protocol"]["classes"]["test"] >= 2
    assert (out / "sequence-5.png").is_file()
    (shown,) = [
        line.removeprefix("accuracy at instance ")
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("accuracy at instance ")
    ]
    assert [cell.split(":")[0] for cell in shown.split(", ")] == ["1", "2", "3", "4", "5"]


@pytest.mark.slow
def test_labels_are_asked_for(tiny, images, status, tmp_path, capsys):
    out = tmp_path / "run"
    stream = ["--dataset", images, "--image-size", "8", "--ways", "2", "--instances", "5"]
    assert status("sequence", *line_of(tiny, "active-one-shot", *stream, "--out", out)) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["loss"] == pytest.approx(-results["reward"])
    assert results["protocol"]["inner"]["request_reward"] == -0.05
    assert results["protocol"]["selected_on"].startswith("validation loss")
    assert {"requests_1", "right_1", "requests_5", "right_5"} <= results.keys()
    # Every second, third, ... instance is right, wrong or asked for.
    right, asked = results["right_2"], results["requests_2"]
    assert 0 <= right + asked <= 1
    lines = capsys.readouterr().out
    assert f"labels asked for: {100 * results['requests']:.1f} %" in lines
    assert "requests at instance 1: " in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "copy"), "applies only to --task labels"),  # the settings of its preset
        (("--labels", "strings"), "asks for labels; give --task labels --labels one-hot"),
    ],
)
def test_requests_are_for_streams_of_labels(
    options, message, tiny, images, status, tmp_path, capsys
):
    stream = [] if "copy" in options else ["--dataset", images]
    line = line_of(tiny, "active-one-shot", *stream, *options, "--out", tmp_path / "run")
    assert status("sequence", *line) == 1
    assert message in " ".join(capsys.readouterr().err.split())

"""Sequence runs from end to end, in seconds."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from experiments.command_line import guarded
from experiments.progress import Progress
from experiments.sequence import Sequences, lines_of, main, run_sequences

TINY = {
    "steps": 4,
    "task_batch": 2,
    "checkpoint_every": 2,
    "chunk": 2,
    "eval_tasks": 4,
    "validation_tasks": 4,
    "width": 8,
    "slots": 6,
    "slot_width": 4,
}


@pytest.mark.slow
def test_a_run_is_evaluated_at_every_length_and_drawn(tmp_path, capsys):
    settings = Sequences(
        learner="ntm",
        lengths=(1, 3),
        test_lengths=(3, 6),
        bits=3,
        out=tmp_path / "run",
        **TINY,  # pyright: ignore
    )
    main(settings)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results["by_length"]) == {"3", "6"}
    for row in results["by_length"].values():
        assert row["bits"] > 0
        assert 0 <= row["bit_error"] <= 1
    for length in (3, 6):
        with Image.open(tmp_path / "run" / f"sequence-{length}.png") as image:
            assert min(image.size) > 300
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ntm · copy of length 3 · ")
    assert lines[0].endswith(" % of the bits wrong")
    with pytest.raises(ValueError, match="--resume goes on with it"):
        run_sequences(settings, tmp_path / "run", Progress(quiet=True))
    at_another = replace(settings, test_lengths=(5,), resume=True)
    again = run_sequences(at_another, tmp_path / "run", Progress(quiet=True))
    assert set(again["by_length"]) == {"5"}
    for name in ("parameters_sha256", "evaluated_parameters_sha256"):
        assert again[name] == results[name]
    with pytest.raises(ValueError, match="task_batch: 2 there, 3 here"):
        run_sequences(replace(at_another, task_batch=3), tmp_path / "run", Progress(quiet=True))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["repeat-copy", "associative-recall", "priority-sort"])
@pytest.mark.parametrize("learner", ["ntm", "dnc", "mann", "lstm"])
def test_every_task_with_every_learner(task, learner, tmp_path):
    sizes = TINY if learner != "lstm" else {**TINY, "slots": None, "slot_width": None}
    settings = Sequences(learner=learner, task=task, **sizes)
    (line,) = lines_of(run_sequences(settings, tmp_path / "run", Progress(quiet=True)))
    assert line.startswith(f"{learner} · {task} of length ")


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["one-hot", "strings"])
def test_labels_are_judged_by_instance(labels, tmp_path, draw_classes):
    folder = draw_classes(tmp_path / "images", 12, 6)
    settings = Sequences(
        learner="mann",
        task="labels",
        labels=labels,
        dataset=str(folder),
        image_size=8,
        ways=2,
        instances=5,
        **TINY,  # pyright: ignore
    )
    results = run_sequences(settings, tmp_path / "run", Progress(quiet=True))
    row = results["by_length"]["5"]
    assert {"accuracy_1", "accuracy_2", "accuracy_5"} <= row.keys()
    shown = lines_of(results)[0].split("instance ")[-1].split(", ")
    assert [cell.split(":")[0] for cell in shown] == ["1", "2", "3", "4", "5"]
    assert results["protocol"]["classes"]["test"] >= 2


def test_a_size_that_a_learner_has_not(tmp_path, capsys):
    settings = Sequences(learner="lstm", slots=4, out=tmp_path / "run")
    assert guarded(lambda: main(settings)) == 1
    assert "--slots 4: lstm has none" in capsys.readouterr().err

"""Run folders of commands whose options are one dataclass."""

import json

import pytest

from experiments.folders import fields_of, prepare_folder, prepare_settings
from experiments.optimizers import Optimizers
from experiments.pretrain import Pretrain
from experiments.sequence import Sequences
from jaxmeta.training.config import FewShot


@pytest.mark.parametrize("command", [Sequences, Optimizers])
def test_a_folder_is_taken_for_the_same_run_alone(command, tmp_path):
    settings = command(out=tmp_path / "run", steps=50)
    prepare_settings(settings, settings.out, fields_of(settings))
    path = tmp_path / "run" / "config.json"
    written = json.loads(path.read_text())
    assert written["config"]["experiment"] == command.experiment
    with pytest.raises(ValueError, match="--resume goes on with it"):
        prepare_settings(settings, settings.out, fields_of(settings))

    # A version without that option wrote it.
    older = {"config": {k: v for k, v in written["config"].items() if k != "task_batch"}}
    path.write_text(json.dumps(older))
    goes_on = command(out=tmp_path / "run", steps=50, resume=True)
    prepare_settings(goes_on, goes_on.out, fields_of(goes_on))
    assert json.loads(path.read_text()) == written

    if command is Optimizers:  # whose folders were flat
        del older["config"]["experiment"]
        path.write_text(json.dumps(older["config"]))
        prepare_settings(goes_on, goes_on.out, fields_of(goes_on))
        assert json.loads(path.read_text()) == written

    another = command(out=tmp_path / "run", steps=60, task_batch=7, resume=True)
    with pytest.raises(ValueError, match="steps: 50 there, 60 here; task_batch: .* there, 7 here"):
        prepare_settings(another, another.out, fields_of(another))
    both = command(out=tmp_path / "run", steps=50, resume=True, overwrite=True)
    with pytest.raises(ValueError, match="--overwrite deletes it; give one of them"):
        prepare_settings(both, both.out, fields_of(both))
    other = Pretrain(out=tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=f"experiment: {command.experiment} there, pretrain here"):
        prepare_settings(other, other.out, fields_of(other))
    with pytest.raises(ValueError, match=f"experiment: {command.experiment} there, few_shot here"):
        prepare_folder(tmp_path / "run", FewShot(50, 7), None, resume=True, overwrite=False)
    for name in ("results.json", "evaluation-20w1s.json", "episode.png", "my-notes.txt"):
        (tmp_path / "run" / name).write_text("of the run before")
    anew = command(out=tmp_path / "run", steps=60, overwrite=True)
    prepare_settings(anew, anew.out, fields_of(anew))
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == ["config.json", "my-notes.txt"]
    assert json.loads(path.read_text())["config"]["steps"] == 60

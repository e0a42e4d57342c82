"""Generators of images, on the command line."""

import json
from pathlib import Path

import pytest

from jaxmeta.recipes import restore
from jaxmeta.training import checkpoints


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.full
def test_a_vae_is_judged_and_drawn(trained):
    folder = trained("generate")
    results = results_of(folder)
    assert results["loss"] == pytest.approx(-results["bound"])
    assert results["bound"] == pytest.approx(results["log_likelihood"] - results["divergence"])
    distances = results["frechet"]
    assert distances["other test images"] < distances["the mean image"]
    assert results["nearest_training_image"]["generated"]["smallest"] > 0
    for name in ("samples", "interpolations", "nearest"):
        assert (folder / f"{name}.png").is_file()


@pytest.mark.full
def test_a_gan_resumes_bit_for_bit(tiny, status, tmp_path, monkeypatch):
    """Dead while it writes the last checkpoint, resumed from the one before."""
    options = [*tiny("generate", "gan-augmented"), "--critic-steps", "2", "--noise", "3"]
    options[options.index("--task-batch") + 1] = "1"
    assert status("generate", *options, "--out", tmp_path / "whole") == 0
    save, saved = checkpoints.save, []

    def dies(folder, step, *rest, **more):
        if step == 4 and not saved:
            saved.append(step)
            raise OSError("the disk is gone")
        save(folder, step, *rest, **more)

    monkeypatch.setattr(checkpoints, "save", dies)
    assert status("generate", *options, "--out", tmp_path / "part") == 1
    assert status("generate", *options, "--out", tmp_path / "part", "--resume") == 0
    whole, part = results_of(tmp_path / "whole"), results_of(tmp_path / "part")
    assert part["resumed_from_step"] == 2
    for name in ("parameters_sha256", "evaluated_parameters_sha256", "frechet"):
        assert part[name] == whole[name]
    assert restore(tmp_path / "part").trained.shared.optimizer_state[0].count == 4 * 2
    options[options.index("--task-batch") + 1] = "2"
    assert status("generate", *options, "--out", tmp_path / "other") == 1

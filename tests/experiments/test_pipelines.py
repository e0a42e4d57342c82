"""Images on the host: the same command, streamed."""

import json

import jax
import numpy as np
import pytest

from jaxmeta.data import load
from jaxmeta.training import build
from jaxmeta.training.config import FewShot
from jaxmeta.training.estimates import Estimate
from jaxmeta.training.loop import NotFinite, train_with_checkpoints
from jaxmeta.training.options import Prototypical
from jaxmeta.training.parallel import task_mesh


@pytest.fixture
def streamed(tiny_images, status, tmp_path):
    """`streamed(*options)`, the results of a streamed run in `tmp_path / "run"`."""

    def run(*options, folder="run"):
        out = tmp_path / folder
        assert (
            status(FewShot, "maml", *tiny_images, "--pipeline", "stream", *options, "--out", out)
            == 0
        )
        return json.loads((out / "results.json").read_text())

    return run


@pytest.mark.slow
def test_a_streamed_run_is_whole_and_can_be_repeated(streamed, tmp_path):
    results = streamed()
    assert results["protocol"]["pipeline"] == "stream"
    assert (tmp_path / "run" / "episode.png").is_file()
    again = streamed(folder="again")
    for name in ("parameters_sha256", "accuracy", "loss"):
        assert again[name] == results[name]


@pytest.mark.slow
def test_devices_share_a_stream(streamed):
    alone, shared = streamed(), streamed("--devices", "2", folder="shared")
    assert shared["loss"] == pytest.approx(alone["loss"], rel=1e-4)


def test_images_above_the_budget_are_streamed(image_folder):
    letters = load(str(image_folder), split="6/3/3")
    pixels = sum(part.images.size for part in (letters.train, letters.validation, letters.test))
    for budget, expected in ((pixels, "device"), (pixels - 1, "stream")):
        config = FewShot(steps=1, task_batch=1, ways=3, device_budget=budget / 2**30)
        assert build.pipeline_of(config, letters) == expected


def small(image_folder):
    config = FewShot(
        steps=6,
        task_batch=2,
        learner=Prototypical(),
        network="mlp",
        query_statistics="none",
        ways=3,
        queries=2,
        pipeline="stream",
    )
    dataset = load(str(image_folder), split="6/3/3")
    return config, build.source_of(config, dataset, "train")


@pytest.mark.parametrize("devices", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_reads_the_very_next_task(image_folder, tmp_path, devices):
    """Dead at step 4 of 6, resumed from step 2, it ends as the run left alone, bit for bit."""
    config, source = small(image_folder)
    mesh = None if devices is None else task_mesh(devices)
    update = build.update_of(config, mesh)

    def run(folder, *, stop=False, resume=False):
        def validate(params):
            if stop and calls:
                raise NotFinite("here it stops")
            calls.append(1)
            return {"loss": Estimate(np.asarray(1.0), np.asarray(0.0))}

        calls = []
        return train_with_checkpoints(
            folder,
            update,
            source,
            jax.random.key(0),
            steps=6,
            task_batch=2,
            validate=validate,
            checkpoint_every=2,
            chunk=2,
            mesh=mesh,
            resume=resume,
        )

    expected = run(tmp_path / "alone").state.meta_params
    with pytest.raises(NotFinite):
        run(tmp_path / "stopped", stop=True)
    with pytest.warns(UserWarning, match="resuming from step 2"):
        found = run(tmp_path / "stopped", resume=True).state.meta_params
    jax.tree.map(np.testing.assert_array_equal, found, expected)

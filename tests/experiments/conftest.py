"""Tiny runs of the experiments: on a folder of drawn images, in this process or in their own."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.command_line import main
from jaxmeta.training.config import FewShot, Regression

ROOT = Path(__file__).parents[2]

_TINY = [
    *("--steps", "6", "--checkpoint-every", "3", "--chunk", "3", "--task-batch", "2"),
    *("--eval-tasks", "6", "--validation-tasks", "6", "--devices", "1"),
]
_TINY_IMAGES = [
    *(*_TINY, "--split", "6/3/3", "--image-size", "12", "--network", "mlp"),
    *("--ways", "3", "--train-ways", "3", "--shots", "1", "--train-shots", "2"),
    *("--queries", "3", "--train-queries", "2"),
]
_OF_LEARNER = {  # which the tiny options don't fit
    "relation": ["--network", "conv-maps", "--width", "4", "--image-size", "28"],
    "semi-supervised-prototypical": ["--unlabelled", "2"],
}
_TINY_CURVES = [*_TINY, "--hidden", "8", "8", "--queries", "20"]


@pytest.fixture(autouse=True)
def _handlers():
    """The command line takes SIGTERM for itself; give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _draw_classes(
    folder: Path, classes: int, images: int, *, size: int = 12, seed: int = 0
) -> Path:
    """`folder/class-00/0.png` and so on: a class is a coarse pattern, an image adds noise."""
    rng = np.random.default_rng(seed)
    for number in range(classes):
        pattern = np.kron(rng.integers(0, 2, (4, 4)), np.ones((size // 4, size // 4)))
        path = folder / f"class-{number:02}"
        path.mkdir(parents=True)
        for image in range(images):
            noisy = 200 * pattern + rng.integers(0, 56, pattern.shape)
            Image.fromarray(noisy.astype(np.uint8)).save(path / f"{image}.png")
    return folder


@pytest.fixture(scope="session")
def draw_classes():
    """`draw_classes(folder, classes, images)` fills a folder with classes easy to tell apart."""
    return _draw_classes


@pytest.fixture(scope="session")
def tiny_images(image_folder) -> list:
    """The options of a run of seconds on images."""
    return [*_TINY_IMAGES, "--dataset", image_folder]


@pytest.fixture(scope="session")
def tiny_curves() -> list:
    """The options of a run of seconds on sinusoids."""
    return _TINY_CURVES


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory) -> Path:
    """12 classes of 8 images, 12×12."""
    return _draw_classes(tmp_path_factory.mktemp("images"), 12, 8)


def _status(experiment: type, *arguments: object) -> int:
    try:
        return main(experiment, [str(argument) for argument in arguments])
    except SystemExit as stop:  # a parse error is tyro's own
        assert isinstance(stop.code, int)
        return stop.code


@pytest.fixture(scope="session")
def status():
    """`status(experiment, *arguments)`, the exit status of a command line run in this process."""
    return _status


@pytest.fixture(scope="session")
def trained(tiny_images, tmp_path_factory):
    """`trained(learner)`, the folder of a tiny run on images, trained when first asked for."""

    @functools.cache
    def run(learner: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / learner
        options = [*tiny_images, *_OF_LEARNER.get(learner, ())]
        assert _status(FewShot, learner, *options, "--out", folder) == 0
        return folder

    return run


@pytest.fixture(scope="session")
def trained_curves(tiny_curves, tmp_path_factory):
    """`trained_curves(learner)`, the folder of a tiny run on sinusoids."""

    @functools.cache
    def run(learner: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / learner
        assert _status(Regression, learner, *tiny_curves, "--out", folder) == 0
        return folder

    return run


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """`start(module, *arguments)`: `python -m experiments.MODULE ...` as a process of its own,
    with `devices` virtual devices."""
    compiled = str(tmp_path_factory.mktemp("compiled"))  # where no other folder is set
    environment = {"JAX_COMPILATION_CACHE_DIR": compiled} | os.environ
    environment |= {
        "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    working_folder = tmp_path_factory.mktemp("work")

    def start(module: str, *arguments: object, devices: int = 1) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
            env={**environment, "JAX_NUM_CPU_DEVICES": str(devices)},
            cwd=working_folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start

"""Tiny runs of every domain, in this process."""

import functools
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta.commands import main

ROOT = Path(__file__).parents[2]

_RUN = [
    *("--steps", "4", "--checkpoint-every", "2", "--chunk", "2", "--task-batch", "2"),
    *("--eval-tasks", "6", "--validation-tasks", "4", "--devices", "1"),
]
# The options of a run of seconds, by domain; {images} is a folder of 18 easy classes. A new domain
# has its line here, and the tests below run it.
TINY = {
    "few-shot": "maml --dataset {images} --split 6/6/6 --image-size 12 --network mlp --ways 3 "
    "--train-shots 2 --queries 3 --train-queries 2",
    "regression": "maml --hidden 8 --queries 20",
    "sequence": "lstm --width 4 --bits 3 --lengths 1 3 --test-lengths 3 5",
    "optimizers": "lstm-optimizer --hidden 2 --window 2 --horizon 4 --dimensions 3 "
    "--tuning-tasks 2",
    "pretrain": "--dataset {images} --split 6/6/6 --image-size 12 --network conv4-stride "
    "--width 4 --batch-size 8 --shift 1",
}


def draw_classes(folder: Path, classes: int, images: int, *, size: int = 12) -> Path:
    """`folder/class-00/0.png` and so on: a class is a coarse pattern, an image adds noise."""
    rng = np.random.default_rng(0)
    for number in range(classes):
        pattern = np.kron(rng.integers(0, 2, (4, 4)), np.ones((size // 4, size // 4)))
        path = folder / f"class-{number:02}"
        path.mkdir(parents=True)
        for image in range(images):
            noisy = 200 * pattern + rng.integers(0, 56, pattern.shape)
            Image.fromarray(noisy.astype(np.uint8)).save(path / f"{image}.png")
    return folder


@pytest.fixture(autouse=True)
def _handlers():
    """The command line takes SIGTERM for itself; give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """18 classes of 8 images, 12×12."""
    return draw_classes(tmp_path_factory.mktemp("images"), 18, 8)


@pytest.fixture(scope="session")
def tiny(images):
    """`tiny(domain)`: the options of a run of seconds."""
    return lambda domain: [*TINY[domain].format(images=images).split(), *_RUN]


def status_of(command: str, *arguments: object) -> int:
    """The exit status of a command line run in this process."""
    try:
        return main(command, [str(argument) for argument in arguments])
    except SystemExit as stop:  # a parse error is tyro's own
        assert isinstance(stop.code, int)
        return stop.code


@pytest.fixture(scope="session")
def status():
    return status_of


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """`trained(domain)`: the folder of a tiny run, trained when first asked for."""

    @functools.cache
    def run(domain: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / domain
        assert status_of(domain, *tiny(domain), "--out", folder) == 0
        return folder

    return run


@pytest.fixture(scope="session")
def contributed():
    """The blocks of code in CONTRIBUTING.md: 0 a learner, 1 its recipe, 2 a domain."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL).__getitem__

"""What the README shows works: its Python blocks run, and so do its commands, made small."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxmeta.data import load

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The words after `python -m experiments.`, of every such line of the shell blocks."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    plain = [words[2:] if words[:2] == ["uv", "run"] else words for words in split]
    return [
        [words[2].removeprefix("experiments."), *words[3:]]
        for words in plain
        if words[:2] == ["python", "-m"] and words[2].startswith("experiments.")
    ]


# The README's commands as they are, followed by these: two meta-updates of a narrow network.
_SMALL_RUN = ["--steps", "2", "--task-batch", "2", "--checkpoint-every", "2", "--chunk", "2"]
_SMALL_RUN += ["--eval-tasks", "4", "--validation-tasks", "4"]
SMALLER = {
    "few_shot": [*_SMALL_RUN, "--width", "4", "--queries", "2", "--train-queries", "1"],
    "regression": _SMALL_RUN,
    "evaluate": ["--tasks", "4", "--queries", "2"],
    "predict": [],
}


def test_the_readme_shows_both_commands_of_the_set_up():
    shell = "\n".join(blocks("bash"))
    assert "uv run python -m experiments.few_shot" in shell
    assert "uv run pytest" in shell
    assert {words[0] for words in commands()} == set(SMALLER)
    assert len(blocks("python")) > 0


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_a_python_block_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(blocks("python")[number], f"README.md, Python block {number}", "exec")
    exec(code, {"__name__": "readme"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the commands run one after the other, with images of one's own for `predict`."""
    folder = tmp_path_factory.mktemp("readme")
    letters = load("glyphs").test
    for index in range(5):
        start = letters.starts[index]
        examples, image = folder / "my/examples" / f"letter {index}", folder / "my/images"
        for place in (examples, image):
            place.mkdir(parents=True, exist_ok=True)
        for target, pixels_HWC in (
            (examples / "drawing.png", letters.images[start]),
            (image / f"{index}.png", letters.images[start + 1]),
        ):
            ink_on_paper = np.asarray(255 - 255 * (pixels_HWC > 127), np.uint8)[..., 0]
            Image.fromarray(ink_on_paper).save(target)
    return folder


@pytest.mark.parametrize("number", range(len(commands())), ids=lambda n: " ".join(commands()[n]))
def test_a_command_runs(number, folder, request):
    module, *arguments = commands()[number]
    if any("omniglot" in argument for argument in arguments):
        request.getfixturevalue("omniglot_dir")
    finished = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *arguments, *SMALLER[module]],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    said = finished.stdout.splitlines()
    if module in ("few_shot", "regression"):
        assert "on 4 held-out tasks" in finished.stdout
        run = folder / said[-1].rpartition(": ")[2]
        assert (run / "results.json").is_file()
    elif module == "evaluate":
        assert "on 4 held-out tasks" in finished.stdout
    else:
        assert (folder / "predictions.png").is_file()
        assert (folder / "predictions.csv").read_text().count("\n") == 1 + 5

"""What the README shows can be run as it stands there."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

from experiments.command_line import main, parse
from experiments.table import with_tables
from jaxmeta.data import load
from jaxmeta.training.config import EXPERIMENTS, FewShot
from jaxmeta.training.options import Maml

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
# In blocks and between backticks; a comment ends a line.
COMMANDS = sorted(
    {line.strip() for line in re.findall(r"python -m (experiments\.\w+[^\n`#]*)", README)}
)
OPTIONS = {
    **{name: name.capitalize() for name in ("baselines", "evaluate", "optimizers", "predict")},
    "pretrain": "Pretrain",
    "sequence": "Sequences",
}
SHELL = "".join(re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL))
# In the README's order, in which the later ones use what the earlier ones wrote.
RUN = [line.strip() for line in re.findall(r"python -m (experiments\.\w+[^\n#]*)", SHELL)]


def test_the_readme_shows_code_and_commands():
    assert BLOCKS
    modules = {command.split()[0] for command in COMMANDS}
    named = ("few_shot", "regression", "evaluate", "predict")
    assert {f"experiments.{name}" for name in named} <= modules
    first, second = re.findall(r"uv run [^\n#]*", README)[:2]
    assert (first.strip(), second.strip()) == (
        "uv run python -m experiments.few_shot",
        "uv run pytest",
    )


def test_the_tables_are_what_the_result_files_say():
    assert with_tables(README) == README, "python -m experiments.table brings it up to date"


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_is_understood(command, capsys):
    module, *arguments = shlex.split(command)
    name = module.removeprefix("experiments.")
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            parse(EXPERIMENTS[name], arguments)
        assert "--steps" in capsys.readouterr().out
    elif name in EXPERIMENTS:
        parse(EXPERIMENTS[name], arguments)
    elif name in OPTIONS:
        options = getattr(importlib.import_module(module), OPTIONS[name])
        tyro.cli(options, args=arguments)
    else:
        assert arguments == []
        importlib.import_module(module)


@pytest.mark.slow
def test_the_first_command_in_a_small_form(tmp_path, capsys):
    """The default command, real letters and network, with fewer steps, tasks and channels."""
    (default,) = (line for line in COMMANDS if line.split() == ["experiments.few_shot"])
    arguments = shlex.split(default)[1:]
    _, config = parse(FewShot, arguments)
    assert isinstance(config, FewShot)
    assert (config.dataset, config.learner.name) == ("glyphs", Maml.name)
    assert (config.ways, config.shots, config.queries, config.eval_tasks) == (5, 1, 15, 1000)

    small = ["--steps", "2", "--task-batch", "2", "--checkpoint-every", "2", "--chunk", "2"]
    tasks = ["--eval-tasks", "4", "--validation-tasks", "4", "--width", "4"]
    folder = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(FewShot, [*arguments, *small, *tasks, "--out", str(folder)]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    line, _ = capsys.readouterr().out.splitlines()
    pattern = r"maml · glyphs · 5-way 1-shot · \d+\.\d ± \d+\.\d % on 4 held-out tasks"
    assert re.fullmatch(pattern, line)
    results = json.loads((folder / "results.json").read_text())
    assert results["accuracy"] >= 0
    # What the README says lies in a run folder is there.
    for name in ("config.json", "metrics.jsonl", "checkpoints", "tensorboard"):
        assert (folder / name).exists()
    assert len(list(folder.glob("*.png"))) == 3


# Two meta-updates of a narrow network: the commands as they are, followed by these.
_TRAINING = [
    *("--steps", "2", "--task-batch", "2", "--checkpoint-every", "2", "--chunk", "2"),
    *("--validation-tasks", "4"),
]
_SMALL = [*_TRAINING, "--eval-tasks", "4"]
_SMALLER = {
    "experiments.few_shot": [*_SMALL, "--width", "4", "--queries", "2", "--train-queries", "1"],
    "experiments.regression": _SMALL,
    "experiments.optimizers": [*_SMALL, "--horizon", "4", "--window", "2", "--pairs", "2"],
    "experiments.evaluate": ["--eval-tasks", "4", "--queries", "2"],
    "experiments.sequence": [*_SMALL, "--slots", "8", "--width", "8", "--test-lengths", "4"],
    "experiments.pretrain": [*_TRAINING, "--width", "4", "--batch-size", "4"],
    "experiments.baselines": [
        *("--queries", "2", "--eval-tasks", "4", "--tuned-tasks", "2"),
        *("--choosing-tasks", "2", "--tuned-choosing-tasks", "2"),
    ],
}


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory):
    """Where the commands run one after the other, with images of one's own for `predict`."""
    folder = tmp_path_factory.mktemp("readme")
    letters = load("glyphs").test
    for index, start in enumerate(letters.starts[:5]):
        example = folder / "my/examples" / f"letter {index}" / "drawing.png"
        image = folder / "my/images" / f"{index}.png"
        for path, pixels in ((example, letters.images[start]), (image, letters.images[start + 1])):
            path.parent.mkdir(parents=True, exist_ok=True)
            ink_on_paper = np.where(pixels[..., 0] > 127, 0, 255).astype(np.uint8)
            Image.fromarray(ink_on_paper).save(path)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_a_command_runs(command, readers_folder, request):
    module, *arguments = shlex.split(command)
    if "omniglot" in command or "runs/" in command:
        request.getfixturevalue("omniglot_dir")
    if "pretrain" in command:
        request.getfixturevalue("data_dir")
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments, *_SMALLER.get(module, [])],
        cwd=readers_folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    if module == "experiments.predict":
        assert (readers_folder / "predictions.png").is_file()
        assert (readers_folder / "predictions.csv").read_text().count("\n") == 1 + 5
        return
    if module == "experiments.optimizers":
        assert "unseen problems: learned" in finished.stdout
        assert (readers_folder / "runs/mlp-digits/comparison.png").is_file()
        return
    if module == "experiments.sequence":
        assert (readers_folder / "runs/ntm-copy/sequence-4.png").is_file()
        return
    if module in ("experiments.pretrain", "experiments.baselines"):
        written = {"pretrain": "backbone.npz", "baselines": "baselines.json"}
        assert (readers_folder / "runs/pretrained" / written[module.split(".")[1]]).is_file()
        return
    assert "on 4 held-out tasks" in finished.stdout
    if module != "experiments.evaluate":
        run = readers_folder / finished.stdout.splitlines()[-1].rpartition(": ")[2]
        assert (run / "results.json").is_file()

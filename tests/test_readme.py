"""What the README and the pages of the documentation show can be run as it stands there."""

import importlib
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments import run_queue
from experiments.table import PARTS, with_tables
from jaxmeta.commands import evaluate, main
from jaxmeta.commands.experiment import parse
from jaxmeta.commands.guard import read_arguments
from jaxmeta.data import load
from jaxmeta.recipes import find_domain, known_domains
from jaxmeta.recipes.folders import read_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs/pages").glob("*.md"))]
}
TEXT = "\n".join(PAGES.values())
BLOCKS = [
    pytest.param(
        block,
        id=f"{name}-{number}",
        marks=[] if name == "README.md" else pytest.mark.full,
    )
    for name, page in PAGES.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
]
# In blocks, where a comment ends a line, and between backticks, where a command may go on in the
# next line.
FENCED = "\n".join(re.findall(r"```\w*\n(.*?)```", TEXT, flags=re.DOTALL))
INLINE = "\n".join(
    " ".join(code.split())
    for code in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL))
)
COMMANDS = sorted(
    {
        line.strip()
        for code in (FENCED, INLINE)
        for line in re.findall(r"python -m (experiments\.\w+[^\n#]*)", code)
    }
)
SHELL = "".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL))
# In the order of the page, in which the later ones use what the earlier ones wrote.
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


@pytest.mark.parametrize(("name", "parts"), PARTS.items(), ids=PARTS)
def test_the_tables_are_what_the_result_files_say(name, parts):
    page = PAGES[name]
    assert with_tables(page, parts) == page, "python -m experiments.table brings it up to date"


def test_the_readme_is_short():
    assert len(README.encode()) <= 6000


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def _options(name: str) -> type | None:
    """The class of a script's options, which has the script's name: `ControlSpeed` of
    `control_speed`."""
    class_name = "".join(word.capitalize() for word in name.split("_"))
    for package in ("experiments", "jaxmeta.commands"):
        if importlib.util.find_spec(f"{package}.{name}"):
            options = getattr(importlib.import_module(f"{package}.{name}"), class_name, None)
            if options is not None:
                return options
    return None


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_line_is_understood(command, capsys):
    module, *arguments = shlex.split(command)
    name = module.removeprefix("experiments.")
    importlib.import_module(module)  # its door
    is_domain = name.replace("_", "-") in known_domains()
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            parse(find_domain(name), arguments)
        assert "--steps" in capsys.readouterr().out
    elif is_domain:
        parse(find_domain(name), arguments)
    elif name == "evaluate":
        run = ROOT / arguments[0]
        if not run.is_dir():  # one that the reader trains
            run = ROOT / "experiments/results/prototypical-omniglot-fast"
        evaluate._parse([str(run), *arguments[1:]], read_config(run), name)
    elif options := _options(name):
        read_arguments(options, name, arguments)
    elif name == "run_queue":
        with pytest.raises(SystemExit, match="0"):
            run_queue.main([*arguments, "--help"])
    else:
        assert arguments == []


@pytest.mark.slow
def test_the_first_command_in_a_small_form(tmp_path, capsys):
    """The default command, real letters and network, with fewer steps, tasks and channels."""
    (default,) = (line for line in COMMANDS if line.split() == ["experiments.few_shot"])
    arguments = shlex.split(default)[1:]
    _, experiment = parse(find_domain("few-shot"), arguments)
    domain: Any = experiment.domain
    assert (domain.images.dataset, experiment.learner.name) == ("glyphs", "maml")
    assert domain.episode.sizes(train=False) == {"ways": 5, "shots": 1, "queries": 15}
    assert experiment.training.eval_tasks == 1000

    small = ["--steps", "2", "--task-batch", "2", "--checkpoint-every", "2", "--chunk", "2"]
    tasks = ["--eval-tasks", "4", "--validation-tasks", "4", "--width", "4"]
    folder = tmp_path / "run"
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main("few-shot", [*arguments, *small, *tasks, "--out", str(folder)]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    line, _ = capsys.readouterr().out.splitlines()
    pattern = r"maml · glyphs · 5-way 1-shot · \d+\.\d ± \d+\.\d % on 4 held-out tasks"
    assert re.fullmatch(pattern, line)
    results = json.loads((folder / "results.json").read_text())
    assert results["accuracy"] >= 0
    # What the README says lies in a run folder is there.
    written = ("config.json", "metrics.jsonl", "per_task.npz", "checkpoints", "tensorboard")
    for name in written:
        assert (folder / name).exists()
    assert len(list(folder.glob("*.png"))) == 4


# Two meta-updates of a narrow network: the commands as they are, followed by these.
_TRAINING = [
    *("--steps", "2", "--task-batch", "2", "--checkpoint-every", "2", "--chunk", "2"),
    *("--validation-tasks", "4"),
]
_SMALL = [*_TRAINING, "--eval-tasks", "4"]
_SMALLER = {
    "experiments.active": ["--eval-tasks", "4", "--queries", "2", "--steps", "2"],
    "experiments.architectures": [*_SMALL, "--task-batch", "1"],
    "experiments.few_shot": [*_SMALL, "--width", "4", "--queries", "2", "--train-queries", "1"],
    "experiments.regression": _SMALL,
    "experiments.optimizers": [*_SMALL, "--horizon", "4", "--window", "2", "--pairs", "2"],
    "experiments.evaluate": ["--eval-tasks", "4", "--queries", "2"],
    "experiments.sequence": [
        *(*_SMALL, "--slots", "8", "--controller-width", "8", "--test-lengths", "4"),
    ],
    "experiments.pretrain": [*_SMALL, "--width", "4", "--batch-size", "4"],
    "experiments.control": [*_SMALL, "--episodes", "2", "--hidden", "4"],
    "experiments.dynamics": [
        *(*_SMALL, "--hidden", "8", "--planning-tasks", "2", "--episode-steps", "3"),
        *("--tuning-tasks", "3", "--candidates", "10"),
    ],
    "experiments.bandits": [*_SMALL, "--width", "4", "--pulls", "5", "--tuning-tasks", "4"],
    "experiments.compress": ["--eval-tasks", "4", "--steps", "2"],
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
    if "pretrain" in command or "architectures" in command:
        request.getfixturevalue("data_dir")
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments, *_SMALLER.get(module, [])],
        cwd=readers_folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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
        assert (readers_folder / "runs/mlp-optimizer-digits-seed0/comparison.png").is_file()
        return
    if module == "experiments.sequence":
        assert (readers_folder / "runs/ntm-copy-seed0/sequence-4.png").is_file()
        return
    if module == "experiments.curves":
        assert (readers_folder / "both.png").is_file()
        return
    if module == "experiments.baselines":
        assert (readers_folder / "runs/pretrained/baselines.json").is_file()
        return
    assert "on 4 held-out tasks" in finished.stdout
    if module not in ("experiments.active", "experiments.evaluate", "experiments.compress"):
        run = readers_folder / finished.stdout.splitlines()[-1].rpartition(": ")[2]
        assert (run / "results.json").is_file()

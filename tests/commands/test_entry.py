"""`python -m jaxmeta COMMAND`, the doors in experiments/, and their statuses."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmeta.commands import entry, main
from jaxmeta.recipes import known_domains, known_learners

ROOT = Path(__file__).parents[2]
DOORS = [*sorted(known_domains()), *entry.TOOLS]
SCRIPTS = ("benchmark", "memory", "run_queue", "scaling", "table")


def test_usage_lists_every_command(capsys):
    assert main(arguments=[]) == 0
    usage = capsys.readouterr().out
    assert main(arguments=["--help"]) == 0
    assert capsys.readouterr().out == usage
    listed = [line.split()[0] for line in usage.splitlines() if line.startswith("  ")]
    assert listed == [*sorted(known_domains()), *entry.TOOLS]
    for kind in known_domains().values():
        assert " ".join((kind.__doc__ or "").split()) in usage


@pytest.mark.parametrize(
    ("command", "nearest"),
    [("few-shots", "few-shot"), ("regresion", "regression"), ("evaluat", "evaluate")],
)
def test_an_unknown_command_is_told_the_nearest(command, nearest, capsys):
    assert main(arguments=[command, "--steps", "3"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: unknown ")
    assert nearest in line


def test_underscores_are_hyphens(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(arguments=["few_shot", "--help"])
    assert "--ways" in capsys.readouterr().out


@pytest.mark.parametrize("door", DOORS)
def test_every_command_has_its_door(door, monkeypatch, capsys):
    """`python -m experiments.NAME` is the command of that name."""
    module = f"experiments.{door.replace('-', '_')}"
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.delitem(sys.modules, module, raising=False)  # of another test: runpy would warn
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__")
    assert stop.value.code == 0
    assert f"python -m {module}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("door", DOORS)
def test_a_door_holds_nothing_else(door):
    lines = (ROOT / "experiments" / f"{door.replace('-', '_')}.py").read_text().splitlines()
    assert len(lines) <= 9


@pytest.mark.parametrize("domain", sorted(known_domains()))
def test_every_domain_has_a_default_learner(domain):
    kind = known_domains()[domain]
    assert kind.default_learner in known_learners(kind.kind)


@pytest.mark.full
@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("jaxmeta few-shot --dataset glyfs", 1, "glyphs"),
        *[
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("jaxmeta", 0, "usage: jaxmeta COMMAND"),
                ("jaxmeta few-shots", 1, "few-shot"),
                ("experiments.few_shot maml --ways five", 2, "five"),
                ("experiments.evaluate no-such-run", 1, "no-such-run is not a run folder"),
                (
                    *("experiments.predict no-such-run --support a --query b", 1),
                    "no-such-run is not a run folder",
                ),
                ("jaxmeta compare no-such-run another", 1, "no-such-run"),
            )
        ],
    ],
)
def test_statuses_of_real_processes(line, status, told, start_process):
    process: subprocess.Popen[str] = start_process(*line.split())
    out, err = process.communicate()
    assert process.returncode == status, err
    assert told in out + err
    assert "Traceback" not in err
    if status == 1:
        assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "words"),
    [
        *[(door, "--no-such-option") for door in [*DOORS, *SCRIPTS]],
        *[(script, "a-word too-many") for script in SCRIPTS],
        ("benchmark", "--rounds 0"),
        ("benchmark", "--workload nothing"),
        ("memory", "--steps 0"),
        ("memory", "--steps 5 0"),
        ("memory", "--steps"),
        ("memory", "--width -1"),
        ("scaling", "processes --processes 1"),
        ("scaling", "pipelines --steps 0"),
        ("scaling", "pipelines --tasks 0"),
        ("scaling", "nothing"),
        ("baselines", "run --shots 0"),
        ("baselines", "run --ways 1"),
        ("baselines", "run --eval-tasks 1"),
    ],
)
def test_nonsense_ends_no_script_with_status_0(script, words, monkeypatch, capsys):
    module = f"experiments.{script.replace('-', '_')}"
    monkeypatch.setattr(sys, "argv", [module, *words.split()])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(module, run_name="__main__")
    assert stop.value.code in (1, 2)
    assert capsys.readouterr().err

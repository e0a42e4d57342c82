"""Errors become one plain line and a status; what is no user's to mend stays an error."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxmeta.commands.guard import guarded, read_arguments, recipes_named
from jaxmeta.recipes.settings import Count
from jaxmeta.training.loop import Interrupted, NotFinite

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _handlers():
    """The command line takes SIGTERM and SIGHUP for itself; give them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raises(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("--ways 1: give more."), 1, "error: --ways 1: give more."),
        (ValueError("in two\n   lines"), 1, "error: in two lines"),
        (FileNotFoundError("runs/x is not a run folder"), 1, "error: runs/x is not a run folder"),
        (
            NotFinite("loss", 3, "step_00000002"),
            1,
            "error: the loss became NaN or infinite at step 3; step_00000002 is kept. Try a "
            "smaller inner or outer learning rate, or clip the meta-gradients.",
        ),
        (
            RuntimeError("Could not determine home directory."),
            1,
            "error: Could not determine home directory; set HOME, or give a path without ~.",
        ),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys):
    assert guarded(raises(error)) == status
    captured = capsys.readouterr()
    assert captured.err == f"{line}\n"
    assert captured.out == ""


def test_a_name_that_no_terminal_can_show_is_printed(capfd, monkeypatch):
    with open(os.dup(1), "w", encoding="ascii", errors="strict") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        name = os.fsdecode("été".encode() + b"\xff")
        assert guarded(lambda: print(name)) == 0
        stream.flush()
    assert capfd.readouterr().out == "\\xe9t\\xe9\\udcff\n"


def test_an_interrupted_training_says_how_it_goes_on(capsys):
    assert guarded(raises(Interrupted(signal.SIGTERM, 3, Path("runs/x")))) == 143
    saved = "stopped at step 3, which is saved in runs/x"
    expected = f"{saved}; run the same command with --resume to continue.\n"
    assert capsys.readouterr().err == expected


def test_what_works_has_status_0(capsys):
    assert guarded(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_what_a_user_cannot_mend_keeps_its_traceback():
    with pytest.raises(TypeError):
        guarded(raises(TypeError("of the code")))


def test_modules_are_named_before_options_are_known():
    line = ["maml", "--recipes", "one,two", "--steps", "3", "--recipes=three"]
    assert recipes_named(line) == ["one", "two", "three"]
    assert recipes_named(["--recipes"]) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3 PiB"),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
    ],
)
def test_memory_that_runs_out_is_one_line(error, capsys):
    assert guarded(raises(error)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is not enough memory (")
    assert line.endswith("give smaller settings.")


def test_another_error_of_the_runtime_keeps_its_traceback():
    with pytest.raises(jax.errors.JaxRuntimeError):
        guarded(raises(jax.errors.JaxRuntimeError("INTERNAL: of the compiler")))


@pytest.mark.parametrize(("before", "taken"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_sighup_ends_a_command_as_sigterm_does_unless_it_is_ignored(before, taken):
    kept = signal.signal(signal.SIGHUP, before)
    try:
        guarded(lambda: None)
        handler = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, kept)
    if taken:
        with pytest.raises(SystemExit, match="129"):
            handler(signal.SIGHUP, None)
    else:
        assert handler is signal.SIG_IGN


def no_home(monkeypatch):
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])  # as where there is no entry
    for name in ("HOME", "JAXMETA_CACHE_DIR", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def a_file(monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("JAXMETA_CACHE_DIR", __file__)


def not_to_be_written(monkeypatch):
    monkeypatch.setattr(os, "access", lambda *arguments: False)


@pytest.mark.parametrize("there_is", [no_home, a_file, not_to_be_written])
def test_without_a_cache_a_command_runs_and_says_so(there_is, monkeypatch, capsys):
    before = jax.config.jax_compilation_cache_dir
    there_is(monkeypatch)
    try:
        assert guarded(lambda: None) == 0
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: compiled programs are not kept for the next run: ")


@pytest.mark.parametrize(("own", "expected"), [(None, 0.0), ("3", 3.0)])
def test_small_programs_are_kept_too(own, expected, monkeypatch):
    name = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    monkeypatch.delenv(name, raising=False)
    if own is not None:
        monkeypatch.setenv(name, own)
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update(name.lower(), 3.0)
    try:
        assert guarded(lambda: None) == 0
        assert jax.config.jax_persistent_cache_min_compile_time_secs == expected
    finally:
        jax.config.update(name.lower(), before)


def test_an_interrupt_while_a_command_is_imported_is_one_line(tmp_path):
    """JAX is a file here that an interrupt meets while it is imported."""
    (tmp_path / "jax.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    heeding = (  # interrupts, which a process in the background is born to ignore
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    for module in ("jaxmeta", "experiments.few_shot"):
        process = subprocess.run(
            [sys.executable, "-c", heeding, "-m", module, "few-shot"],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (process.returncode, process.stderr) == (130, "interrupted.\n")


@dataclasses.dataclass(frozen=True)
class Options:
    steps: tuple[Count, ...] = (1, 2)
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("line", "told"),
    [("--steps 1 0", "--steps 1 0: give a number"), ("--steps", "--steps: give at least one")],
)
def test_values_out_of_bounds_are_refused_by_every_command(line, told):
    with pytest.raises(ValueError, match=told):
        read_arguments(Options, "it", line.split())
    assert read_arguments(Options, "it", []) == Options()

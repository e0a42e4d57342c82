"""Errors become one plain line and a status; what is no user's to mend stays an error."""

import signal
from pathlib import Path

import pytest

from jaxmeta.commands.guard import guarded, recipes_named
from jaxmeta.training.loop import Interrupted, NotFinite


@pytest.fixture(autouse=True)
def _handlers():
    """The command line takes SIGTERM for itself; give it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def raises(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("--ways 1: give more."), 1, "error: --ways 1: give more."),
        (ValueError("in two\n   lines"), 1, "error: in two lines"),
        (FileNotFoundError("runs/x is no run folder"), 1, "error: runs/x is no run folder"),
        (
            NotFinite("loss", 3, "step_00000002"),
            1,
            "error: the loss became NaN or infinite at step 3; step_00000002 is kept. Try a "
            "smaller inner or outer rate, or clip the meta-gradients.",
        ),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys):
    assert guarded(raises(error)) == status
    captured = capsys.readouterr()
    assert captured.err == f"{line}\n"
    assert captured.out == ""


def test_an_interrupted_training_says_how_it_goes_on(capsys):
    assert guarded(raises(Interrupted(signal.SIGTERM, 3, Path("runs/x")))) == 143
    saved = "stopped at step 3, which is saved in runs/x"
    expected = f"{saved}; the same command with --resume goes on from there.\n"
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

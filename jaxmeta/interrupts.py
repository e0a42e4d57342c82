"""Ctrl-C while a command imports JAX, for a second or more, prints one line, not a traceback."""

import itertools
import os
import signal
import sys
from typing import Any


def leave(number: int, frame: Any) -> None:
    """End the process with the message "interrupted."."""
    os.write(2, b"interrupted.\n")
    os._exit(128 + number)


def is_command(called: list[str]) -> bool:
    """Whether a process was started as `jaxmeta`, `python -m jaxmeta` or `python -m experiments.…`.

    >>> is_command(["python", "-m", "jaxmeta", "few-shot"]), is_command(["python", "mine.py"])
    (True, False)
    """
    options = [*itertools.takewhile(lambda word: word.startswith("-"), called[1:])]
    script = called[1 + len(options) : 2 + len(options)]
    if options[-1:] == ["-m"]:
        return script[0].split(".")[0] in ("jaxmeta", "experiments") if script else False
    return [os.path.basename(word) for word in script] == ["jaxmeta"]


# A program that imports the library keeps its handler. `guarded` restores the default one.
if is_command(sys.orig_argv) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, leave)

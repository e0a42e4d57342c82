"""Turns errors into one plain line and an exit status."""

import contextlib
import dataclasses
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from jaxmeta.data.cache import cache_folder
from jaxmeta.interrupts import leave
from jaxmeta.recipes import settings
from jaxmeta.training import processes
from jaxmeta.training.loop import Interrupted
from jaxmeta.training.parallel import with_all_cores

RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
RunPaths = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]


def guarded(work: Callable[[], Any]) -> int:
    """Run `work` and return an exit status; a user's errors are printed in one plain line."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # set by `nohup`
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):  # file names may have characters it can't encode
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if signal.getsignal(signal.SIGINT) is leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with_compilation_cache()
        with_all_cores()
        work()
        return 0
    except Interrupted as interruption:
        _tell(
            f"stopped at step {interruption.step}, which is saved in {interruption.folder}; run "
            "the same command with --resume to continue."
        )
        return 128 + interruption.signal_number
    except (ValueError, OSError, ArithmeticError, ModuleNotFoundError) as error:
        if processes.is_loss(error):
            processes.leave()
        _tell(f"error: {error}")
        return 1
    except (MemoryError, RuntimeError) as error:
        if processes.is_loss(error):
            processes.leave()
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            _tell(f"error: there is not enough memory ({error}); give smaller settings.")
        elif "home directory" in str(error):  # `~` can't be expanded
            _tell(f"error: {str(error).removesuffix('.')}; set HOME, or give a path without ~.")
        else:
            raise
        return 1
    except KeyboardInterrupt:
        _tell("interrupted.")
        return 128 + signal.SIGINT


_LEAST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def with_compilation_cache() -> None:
    """Use JAX's persistent compilation cache, in the user's cache folder unless set otherwise.

    If it can't be written, it is not used, and a line says so.
    """
    own = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    try:
        folder = str(cache_folder() / "xla") if own is None else own
        if folder and "://" not in folder:  # JAX supports remote folders, too
            os.makedirs(folder, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    except OSError as error:
        _tell(f"note: compiled programs are not kept for the next run: {error}.")
        jax.config.update("jax_compilation_cache_dir", None)
        return
    if own is None:
        jax.config.update("jax_compilation_cache_dir", folder)
    if _LEAST not in os.environ:  # by default, programs that compile within a second aren't kept
        jax.config.update(_LEAST.lower(), 0.0)


def _tell(line: str) -> None:
    """Print one plain line on standard error, unless that is closed."""
    with contextlib.suppress(OSError):
        print(" ".join(line.split()), file=sys.stderr, flush=True)


def read_arguments(options: type, prog: str, arguments: list[str] | None = None) -> Any:
    """The options of a command whose options are one dataclass, from the command line.

    Raises:
      ValueError: a value outside its bounds, or an option for several values without any.
    """
    found = tyro.cli(options, prog=prog, args=arguments)
    settings.check(found)
    for field in dataclasses.fields(options):
        if getattr(found, field.name) == () and isinstance(field.default, tuple) and field.default:
            raise ValueError(f"{settings.option(field.name)}: give at least one value.")
    return found


def unknown_metric(metric: str, name: str, known: Iterable[str]) -> ValueError:
    """The error that a run of this name has no such metric, but the known ones."""
    choices = ", ".join(sorted(known))
    return ValueError(f"--metric {metric}: {name} has no such metric; choose from {choices}.")


def recipes_named(arguments: list[str]) -> list[str]:
    """The modules given with `--recipes`, which must be imported before options are parsed.

    >>> recipes_named(["maml", "--recipes", "one,two", "--recipes=three"])
    ['one', 'two', 'three']
    """
    found = []
    for before, word in zip(["", *arguments], arguments):
        if before == "--recipes":
            found += word.split(",")
        elif word.startswith("--recipes="):
            found += word.removeprefix("--recipes=").split(",")
    return found

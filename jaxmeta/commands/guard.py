"""From an error to one plain line and a status."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import jax
import tyro

from jaxmeta.data.cache import cache_folder
from jaxmeta.training.loop import Interrupted
from jaxmeta.training.parallel import with_all_cores


def guarded(work: Callable[[], Any]) -> int:
    """Run `work` and turn what a user can mend into one plain line and a status, no traceback."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with_compilation_cache()
        with_all_cores()
        work()
        return 0
    except Interrupted as interruption:
        print(
            f"stopped at step {interruption.step}, which is saved in {interruption.folder}; the "
            "same command with --resume goes on from there.",
            file=sys.stderr,
        )
        return 128 + interruption.signal_number
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT


def with_compilation_cache() -> None:
    """JAX's persistent compilation cache, in the user's cache folder unless set otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))


def read_arguments(options: type, prog: str, arguments: list[str] | None = None) -> Any:
    """The options of a command whose options are one dataclass, from the command line."""
    return tyro.cli(options, prog=prog, args=arguments)


def recipes_named(arguments: list[str]) -> list[str]:
    """The modules that `--recipes` names, which must be imported before options are known.

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

"""Resident memory of whole commands, and its growth in training: `python -m experiments.resident`.

Each command runs in a process of its own, for a few updates, since its peak is that of compilation,
of one update or of the evaluation of at most 100 tasks at once. Growth is that of the process
between validations of a long training on sinusoids. Requires Linux.
"""

import contextlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import jax
import tyro

from experiments.contestants import peak_resident, resident
from jaxmeta import files
from jaxmeta.commands import main
from jaxmeta.commands.guard import guarded, read_arguments, with_compilation_cache
from jaxmeta.recipes import find_domain, find_learner, start
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.runner import run
from jaxmeta.recipes.settings import Count
from jaxmeta.training.loop import Report
from jaxmeta.training.parallel import with_all_cores

COMMANDS = {
    "few-shot": [],
    "few-shot maml --preset omniglot-5w1s": ["maml", "--preset", "omniglot-5w1s"],
}
_FEW = ["--steps", "20", "--eval-tasks", "100", "--validation-tasks", "100"]
_POINTS = 10  # of a training


@dataclass(frozen=True)
class Resident:
    """Measure the memory of commands."""

    command: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Commands to measure, such as few-shot. Defaults to all."""
    updates: Count = 20_000
    """Updates of the training on sinusoids, a multiple of 10."""
    out: Path = Path("resident.json")
    """JSON file for the figures."""


class Watched(Progress):
    """Notes the resident memory after each validation, by step."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.resident: dict[str, int] = {}

    @contextlib.contextmanager
    def training(self, name: str, steps: int) -> Iterator[Report]:
        with super().training(name, steps) as report:

            def watched(step: int, scalars: Any) -> None:
                report(step, scalars)
                if "validation_loss" in scalars:
                    self.resident[str(step)] = resident()

            yield watched


def growth(updates: int) -> dict[str, int]:
    """Resident bytes at ten points of a training on sinusoids, by the number of updates."""
    watched = Watched()
    experiment = start(find_domain("regression"), find_learner("maml"))
    every = {"steps": updates, "checkpoint_every": updates // _POINTS, "eval_tasks": 100}
    with TemporaryDirectory() as folder:
        run(experiment.changed(**every), Path(folder) / "run", progress=watched)
    return watched.resident


def peak(command: str, arguments: list[str]) -> int:
    """Bytes of this process at most, after a short run of the command without compiled programs.

    Raises:
      ValueError: the command failed.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    with TemporaryDirectory() as folder:
        status = main(command, [*arguments, *_FEW, "--out", str(Path(folder) / "run")])
    if status:
        raise ValueError(f"{command} failed; see its message above.")
    return peak_resident()


def measure(options: Resident) -> dict[str, Any]:
    """Measure all commands and the growth, write the figures and return them.

    Raises:
      ValueError: an unknown command; updates that aren't a multiple of 10; a command failed.
    """
    chosen = options.command or tuple(COMMANDS)
    for name in chosen:
        if name not in COMMANDS:
            raise ValueError(f"unknown command {name!r}; choose from {', '.join(COMMANDS)}.")
    if options.updates % _POINTS:
        raise ValueError(f"--updates is {options.updates}: give a multiple of {_POINTS}.")
    with result_file(options.out, lambda found: {*found["peak_bytes"]} <= {*chosen}):
        by_updates = _in_a_process(growth, options.updates)
        for count, taken in by_updates.items():
            print(f"after {count} updates · {taken / 2**20:.1f} MiB", flush=True)
        peaks: dict[str, int] = {}
        results = {"peak_bytes": peaks, "bytes_after_updates": by_updates, **provenance()}
        for name in chosen:
            peaks[name] = _in_a_process(peak, name.split()[0], COMMANDS[name])
            print(f"{name} · {peaks[name] / 2**20:.0f} MiB", flush=True)
            files.write_json(options.out, results)  # an interrupt loses one command at most
    return results


def _in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """`work(*arguments)` in a new process, as a command would start it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_as_a_command) as processes:
        try:
            return processes.submit(work, *arguments).result()
        except BrokenProcessPool:
            raise ValueError("a process ended early; see its message above.") from None


def _as_a_command() -> None:
    with_compilation_cache()
    with_all_cores()


if __name__ == "__main__":
    sys.exit(guarded(lambda: measure(read_arguments(Resident, "python -m experiments.resident"))))

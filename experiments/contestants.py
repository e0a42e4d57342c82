"""Contestants of the benchmark, each in a process of its own.

So the memory of each is its own, one that doesn't compile in time can be stopped, and they can
still take turns.
"""

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import jax

from experiments import peers
from experiments.peers import Arrays, Contestant
from experiments.workloads import Workload, compilation, jaxmeta_contestant

LIMIT = 600.0  # seconds that a contestant may take to compile

CONTESTANTS: dict[str, Callable[[Workload], Contestant]] = {
    "jaxmeta": jaxmeta_contestant,
    "torch_loop": lambda workload: peers.torch_loop(workload.problem),
    "torch_vmap": lambda workload: peers.torch_vmap(workload.problem),
    "torch_compile_loop": lambda workload: peers.torch_loop(workload.problem, compiled=True),
    "torch_compile_vmap": lambda workload: peers.torch_vmap(workload.problem, compiled=True),
    "plain_jax": lambda workload: peers.plain_jax(workload.problem),
}
PEERS = tuple(CONTESTANTS)[1:]


class InProcess:
    """A contestant in a process of its own, which waits for commands.

    Raises:
      TimeoutError: by any method, if the answer takes longer than the limit. The process is
        stopped then.
    """

    def __init__(self, name: str, workload: Workload):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, name, workload), name=name, daemon=True
        )
        self._process.start()
        theirs.close()

    def _ask(self, command: str, *arguments: Any) -> Any:
        self._pipe.send((command, *arguments))
        if not self._pipe.poll(LIMIT):
            self._process.kill()
            raise TimeoutError(f"no answer within {LIMIT / 60:.0f} minutes")
        try:
            succeeded, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process of {self._process.name} ended early") from None
        if not succeeded:
            raise RuntimeError(f"{self._process.name}: {answer}")
        return answer

    def measure(self, params: Arrays, tasks: Any) -> tuple[float, Arrays]:
        """The mean loss and meta-gradient, as `Contestant.measure`."""
        return self._ask("measure", params, tasks)

    def prepare(self, params: Arrays, tasks: Any, length: int) -> tuple[float, float]:
        """Compile `length` steps. Returns seconds to compile, and seconds of a later call."""
        return self._ask("prepare", params, tasks, length)

    def turn(self, calls: int) -> float:
        """Seconds per call of the prepared steps, averaged over this many in a row."""
        return self._ask("turn", calls)

    def resident_bytes(self) -> int:
        """The peak resident memory of the process."""
        return self._ask("resident_bytes")

    def compilation(self, params: Arrays, tasks: Any) -> dict[str, Any]:
        """See `experiments.workloads.compilation`; of jaxmeta alone."""
        return self._ask("compilation", params, tasks)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def seconds_of(work: Callable[[], Any], calls: int = 1) -> float:
    """Seconds per call, averaged over this many calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def peak_resident() -> int:
    """The peak resident memory of this process, in bytes."""
    if _STATUS.exists():  # unlike `getrusage`, without that of the process that started this one
        return _bytes_of("VmHWM")
    peak = getrusage(RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident() -> int:
    """The resident memory of this process, in bytes.

    Raises:
      OSError: the system isn't Linux.
    """
    return _bytes_of("VmRSS")


_STATUS = Path("/proc/self/status")


def _bytes_of(name: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _serve(pipe: Any, name: str, workload: Workload) -> None:
    """Answer commands until the pipe is closed."""
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # every compilation is a first one
    contestant = CONTESTANTS[name](workload)
    work: Callable[[], None] = lambda: None  # noqa: E731

    def prepare(params: Arrays, tasks: Any, length: int) -> tuple[float, float]:
        nonlocal work
        start = time.perf_counter()
        work = contestant.train(params, tasks, length)
        work()
        first = time.perf_counter() - start
        once = seconds_of(work)
        return max(first - once, 0.0), once

    def turn(calls: int) -> float:
        gc.collect()  # not in the time
        return seconds_of(work, calls)

    def measure(params: Arrays, tasks: Any) -> tuple[float, Arrays]:
        with jax.enable_x64(params[0].dtype == "float64"):
            return contestant.measure(params, tasks)

    commands = {
        "measure": measure,
        "prepare": prepare,
        "turn": turn,
        "resident_bytes": peak_resident,
        "compilation": lambda params, tasks: compilation(workload, params, tasks),
    }
    while True:
        try:
            command, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, commands[command](*arguments)))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))

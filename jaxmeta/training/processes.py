"""Joining the processes of a distributed run, and exiting cleanly when one of them is lost."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

WAIT = 120
"""Seconds within which all processes must join."""
SILENCE = 30
"""Seconds without a heartbeat after which a process is considered lost."""

_LOST = (
    f"error: another process of this run has ended, or has not responded for {SILENCE} s; the "
    "newest checkpoint is kept: restart all processes to continue from it."
)
# In the messages of JAX, its collectives and its coordination service when a process is lost.
_OF_LOSS = re.compile(
    "gloo|nccl|rccl|coordination|heartbeat|unavailable|deadline_exceeded|connection (reset|closed)",
    re.IGNORECASE,
)
_RECORD = re.compile(rb"[IWEF]\d{4} ")  # the first line of an XLA message
_TOLD_INSTEAD = re.compile(rb"([WEF])\d{4} .*(coordination_service|preemption_sync|client\.h)")


def join(
    coordinator: str,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    wait: int = WAIT,
) -> None:
    """Joins the processes of a distributed run; must be called before any array is made.

    While waiting for other processes, a message is printed on standard error. If another process
    is lost later, this process exits with one line and status 1: immediately if the connection
    breaks, or after `SILENCE` seconds.

    Args:
      coordinator: `HOST:PORT` of process 0, which must be reachable from all processes; with
        `auto`, this and other missing arguments are taken from the environment of the cluster
        (Slurm, Open MPI, Kubernetes, TPU pods).
      processes: the number of processes.
      process_id: the number of this process, from 0.
      wait: seconds within which all processes must join.

    Raises:
      ValueError: the numbers are missing or invalid; the environment has no description of a
        cluster; process 0 can't be reached in time.

    In each of two processes, with its own id:

        join("10.0.0.1:1234", processes=2, process_id=0)
    """
    address = None if coordinator == "auto" else coordinator
    if address is not None:
        if processes is None or process_id is None or not 0 <= process_id < processes:
            raise ValueError(
                f"coordinator {coordinator!r} with processes {processes} and process_id "
                f"{process_id}: give the number of processes, and each process its own id from 0."
            )
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(
                f"coordinator is {coordinator!r}: give HOST:PORT, or auto on a cluster."
            )
        if process_id:
            _reach(host.strip("[]"), int(port), wait)
    late = f"error: not all processes have joined within {wait} s; restart all of them."
    told = _Plain(late)
    try:
        with _waiting("the other processes", wait):
            jax.distributed.initialize(
                address,
                processes,
                process_id,
                initialization_timeout=wait,
                heartbeat_timeout_seconds=SILENCE,
            )
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the processes could not be joined: {error}") from error
    told.line = _LOST


def is_loss(error: BaseException) -> bool:
    """Whether an error means that another process was lost.

    >>> is_loss(ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"))
    False
    """
    return jax.distributed.is_initialized() and bool(_OF_LOSS.search(str(error)))


def leave() -> NoReturn:
    """Exits with one line; an ordinary exit would wait for the lost processes."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        print(_LOST, file=sys.stderr, flush=True)
    os._exit(1)


def _reach(host: str, port: int, wait: int) -> None:
    """Waits until process 0 listens; JAX would wait without a message, and then abort."""
    end = time.monotonic() + wait
    with _waiting(f"process 0 at {host}:{port}", wait):
        while True:
            try:
                socket.create_connection((host, port), timeout=5).close()
                return
            except OSError as error:
                if time.monotonic() > end:
                    raise ValueError(
                        f"process 0 was not reached at {host}:{port} within {wait} s ({error}); "
                        "start it, and give all processes an address that they can reach."
                    ) from error
            time.sleep(0.5)


@contextlib.contextmanager
def _waiting(whom: str, wait: int) -> Iterator[None]:
    """Prints after 2 s, and then every 10 s, which process is awaited, and the time limit."""
    done = threading.Event()

    def tell() -> None:
        start, pause = time.monotonic(), 2
        while not done.wait(pause):
            waited, pause = time.monotonic() - start, 10
            line = f"waiting for {whom}: {waited:.0f} s, at most {wait} s."
            print(line, file=sys.stderr, flush=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        done.set()


class _Plain:
    """Replaces XLA's abort, with its stack trace and messages, by one line and status 1.

    When a process is lost, XLA writes to the file descriptor of standard error and aborts, which
    can't be configured. Here this descriptor becomes a pipe, from which a thread passes on all
    other messages, and a handler of the abort signal ends the process.
    """

    def __init__(self, line: str) -> None:
        self.line, self.lost = line, False
        try:
            self.error = os.dup(2)
            plain = sys.stderr.fileno() == 2
        except (OSError, AttributeError):
            return
        if not plain:  # redirected by a notebook or a test
            return
        reads, writes = os.pipe()
        os.dup2(writes, 2)
        os.close(writes)
        # Stays open until the process ends.
        sys.stderr = open(  # noqa: SIM115
            self.error, "w", buffering=1, errors="backslashreplace", closefd=False
        )
        threading.Thread(target=self._pass_on, args=(reads,), daemon=True).start()
        # A C handler, since one in Python would only run after the abort.
        handler: Any = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._on_abort)
        self.kept = handler
        signal_in_c: Callable[..., Any] = ctypes.CDLL(None).signal
        signal_in_c.restype, signal_in_c.argtypes = ctypes.c_void_p, (ctypes.c_int, type(handler))
        signal_in_c(signal.SIGABRT, handler)

    def _pass_on(self, reads: int) -> None:
        told_instead = None
        with open(reads, "rb") as lines:
            for line in lines:
                if _RECORD.match(line):
                    told_instead = _TOLD_INSTEAD.match(line)
                self.lost |= told_instead is not None and told_instead[1] != b"W"
                if told_instead is None:
                    with contextlib.suppress(OSError):
                        os.write(self.error, line)

    def _on_abort(self, number: int) -> None:
        time.sleep(0.2)  # until the thread has read the messages
        if self.lost:
            with contextlib.suppress(OSError):
                os.write(self.error, self.line.encode() + b"\n")
            os._exit(1)

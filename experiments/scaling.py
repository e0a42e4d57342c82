"""The speed of several processes, and of streaming from the host, measured on this machine.

    python -m experiments.scaling processes     # each pinned to its own core (Linux)
    python -m experiments.scaling pipelines     # images on the host or on the device

Both train MAML as published on Omniglot with 32 tasks per step, and take turns, A B A B.
"""

import dataclasses
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from experiments.benchmark import seconds_of
from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.recipes import Engine, find_domain, find_learner, start
from jaxmeta.recipes.loading import load
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import AtLeastTwo, Count
from jaxmeta.training import parallel
from jaxmeta.training.feed import first_task, open_feed
from jaxmeta.training.parallel import mesh_for, size_of
from jaxmeta.training.processes import join
from jaxmeta.training.update import chunk_of


@dataclass(frozen=True)
class Scaling:
    """Measure tasks per second, of several processes or of both pipelines."""

    what: Annotated[Literal["processes", "pipelines"], tyro.conf.Positional]
    """Compare several processes with one, or streamed images with images on the device."""
    processes: AtLeastTwo = 2
    """Number of processes to compare with one."""
    dataset: str = "omniglot"
    """The image data set, as in `experiments.few_shot`."""
    tasks: Count = 32
    """Tasks per step."""
    steps: Count = 10
    """Steps per timed chunk."""
    rounds: Count = 5
    """Number of timed rounds, in each of which both have a turn."""
    out: Path = Path("scaling.json")
    """JSON file for the figures."""


def trainer(options: Scaling, pipeline: Literal["device", "stream"]) -> Callable[[], None]:
    """`work()`, which trains a chunk of steps on all devices of all processes."""
    changes: dict[str, Any] = {"dataset": options.dataset, "task_batch": options.tasks}
    if options.dataset != "omniglot":
        changes |= {"rotations": "none"}
    experiment = start(find_domain("few-shot"), find_learner("maml"), "omniglot-5w1s")
    loaded = load(experiment.changed(**changes, pipeline=pipeline).resolved())
    mesh = parallel.mesh_for(options.tasks, evenly=pipeline == "stream")
    recipe = loaded.experiment.learner
    engine = Engine(loaded.experiment.training, loaded.tasks, mesh)
    update = recipe.update(recipe.build(loaded.of_training), engine)
    source = loaded.tasks.train()
    feed = open_feed(source, options.tasks, mesh, {})
    state = jax.jit(update.init)(jax.random.key(0), first_task(source))
    state, sample = parallel.replicate((state, feed.sample), mesh)
    chunk = chunk_of(update.update)

    def work() -> None:
        nonlocal state
        state, infos = chunk(state, sample, feed.take(options.steps), length=options.steps)
        jax.block_until_ready(infos)

    return work


def pipelines(options: Scaling) -> dict[str, Any]:
    """Measure both pipelines in this process, in turns."""
    work = {name: trainer(options, name) for name in ("device", "stream")}
    for train in work.values():
        train()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(options.rounds):
        for name, train in work.items():
            times[name].append(seconds_of(train))
    done = options.tasks * options.steps
    speed = {name: done / statistics.median(seconds) for name, seconds in times.items()}
    return {
        "tasks_per_second": speed,
        "devices": size_of(mesh_for(options.tasks)),
        "stream_to_device": speed["stream"] / speed["device"],
    }


def processes(options: Scaling) -> dict[str, Any]:
    """Measure one pinned process and several in turns; each round starts them anew.

    Raises:
      ValueError: fewer cores than processes.
    """
    cores = sorted(os.sched_getaffinity(0))
    if options.processes > len(cores):
        raise ValueError(f"{options.processes} processes on {len(cores)} cores; give fewer.")
    times: dict[int, list[float]] = {1: [], options.processes: []}
    for _ in range(options.rounds):
        for count in times:
            times[count].append(_seconds_of_processes(options, cores[:count]))
    done = options.tasks * options.steps
    speed = {count: done / statistics.median(seconds) for count, seconds in times.items()}
    return {
        "tasks_per_second": {str(count): value for count, value in speed.items()},
        "ratio_to_one_process": speed[options.processes] / speed[1],
    }


def _seconds_of_processes(options: Scaling, cores: list[int]) -> float:
    address = free_address()
    fields = dataclasses.asdict(options) | {"out": str(options.out)}
    started = []
    for number, core in enumerate(cores):
        told = json.dumps([fields, address, len(cores), number])
        command = [sys.executable, "-c", "from experiments.scaling import worker; worker()", told]
        # Each process has one device, on the one core that it is pinned to.
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
        pinned = ["taskset", "-c", str(core), *command]
        started.append(subprocess.Popen(pinned, env=environment, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise ValueError("a process failed; see its message above.")
    return float(said[0].splitlines()[-1])


def free_address() -> str:
    """A free `HOST:PORT` on the loopback interface."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def worker() -> None:
    """Run as one of the processes: join the others, warm up, print the median seconds per chunk."""
    fields, address, count, number = json.loads(sys.argv[1])
    options = Scaling(**fields | {"out": Path(fields["out"])})
    if count > 1:
        join(address, count, number)
    work = trainer(options, "device")
    work()
    print(statistics.median(seconds_of(work) for _ in range(3)))


def scaling(options: Scaling) -> None:
    """Measure, print the speeds, write the JSON file."""
    settings = dataclasses.asdict(options) | {"out": options.out.name}
    with result_file(options.out, lambda found: found["settings"] == files.plain(settings)):
        measured = {"processes": processes, "pipelines": pipelines}[options.what](options)
        files.write_json(
            options.out,
            {
                options.what: measured,
                "settings": settings,
                **provenance(mesh_for(jax.device_count())),
            },
        )
    for name, value in measured["tasks_per_second"].items():
        print(f"{name}: {value:,.1f} tasks/s")
    print(f"ratio: {list(measured.values())[-1]:.2f}; figures: {options.out}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: scaling(read_arguments(Scaling, "python -m experiments.scaling"))))

"""jaxmeta against PyTorch and against plain JAX, on this machine, in one run.

    python -m experiments.benchmark [--out bench.json] [--workload NAME ...]

Each contestant has a process of its own. They take turns, A B A B, and medians are compared. They
are also checked to agree on the loss and the meta-gradient for the same weights and data. The code
of the peers is in `experiments.peers`, jaxmeta's in `experiments.workloads`.
"""

import importlib.util
import math
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.contestants import PEERS, InProcess, seconds_of
from experiments.peers import Arrays, operations
from experiments.workloads import WORKLOADS, Workload, draw, initial
from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import Count
from jaxmeta.training.parallel import mesh_for

TORCH = "pip install torch==2.13.0"  # has a CPU build

_TURN = 0.5  # least seconds per turn: the system takes tens of ms to place threads on cores
_LONG = 20.0  # seconds of a call above which one step per call is enough


@dataclass(frozen=True)
class Benchmark:
    """Measure jaxmeta and its peers on this machine."""

    out: Path = Path("bench.json")
    """JSON file for the figures; a chart is written next to it, with the suffix .png."""
    workload: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Workloads to measure. Defaults to all."""
    rounds: Count = 5
    """Number of timed rounds, in each of which every contestant has a turn."""
    peer: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Peers to measure, from torch_loop, torch_vmap, torch_compile_loop, torch_compile_vmap and
    plain_jax. Defaults to all."""


# --- the comparison -----------------------------------------------------------------------


def assert_agreement(
    workload: Workload, contestants: Mapping[str, Any], dtype: str, tolerance: float
) -> None:
    """Raise `ArithmeticError` if a loss or meta-gradient differs from jaxmeta's.

    The meta-gradient is compared relative to its norm, since rounding can take single entries
    across the kinks of ReLU and maximum.
    """
    params, tasks = initial(workload.problem, dtype), draw(workload, dtype)
    loss, grads = contestants["jaxmeta"].measure(params, tasks)
    for name, contestant in contestants.items():
        other_loss, other_grads = contestant.measure(params, tasks)
        difference = math.hypot(
            *(np.linalg.norm(a - b) for a, b in zip(grads, other_grads, strict=True))
        )
        size = math.hypot(*(np.linalg.norm(grad) for grad in grads)) or 1.0
        errors = [abs(loss - other_loss) / abs(loss), difference / size]
        if not max(errors) < tolerance:
            raise ArithmeticError(
                f"{name} and jaxmeta differ by {max(errors):.1e} in {dtype}; their speed can't be "
                "compared."
            )


def measure(workload: Workload, names: list[str], rounds: int) -> dict[str, Any]:
    """Measure all contestants in turns, take medians, and check that they agree."""
    params, tasks = initial(workload.problem), draw(workload)
    rivals = {name: InProcess(name, workload) for name in ("jaxmeta", *names)}
    try:
        return _measured(workload, rivals, params, tasks, rounds)
    finally:
        for rival in rivals.values():
            rival.close()


def _measured(
    workload: Workload, rivals: dict[str, InProcess], params: Arrays, tasks: Any, rounds: int
) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    steps, calls = {}, {}
    for name in [*rivals]:
        try:
            compiling, once = rivals[name].prepare(params, tasks, 1)
            steps[name] = 1
            if once * workload.length <= _LONG:
                steps[name] = workload.length
                _, once = rivals[name].prepare(params, tasks, workload.length)
        except TimeoutError as late:
            if name == "jaxmeta":
                raise
            found[name] = {"failed": str(late)}
            rivals.pop(name).close()
            continue
        found[name] = {"compile_seconds": compiling}
        calls[name] = math.ceil(_TURN / once)
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, rival in rivals.items():
            seconds[name].append(rival.turn(calls[name]))
    for name, rival in rivals.items():
        speed = workload.tasks * steps[name] / statistics.median(seconds[name])
        found[name] |= {"tasks_per_second": speed, "resident_bytes": rival.resident_bytes()}
        if workload.problem.method != "evaluation":
            updates = 1000 * workload.tasks / speed
            found[name]["seconds_to_1000_updates"] = found[name]["compile_seconds"] + updates

    few = workload._replace(tasks=min(workload.tasks, 2))
    exact = {name: own for name, own in rivals.items() if "compile" not in name}
    assert_agreement(few._replace(queries=min(workload.queries, 2)), exact, "float64", 1e-8)
    assert_agreement(few, rivals, "float32", 1e-3)
    own = found["jaxmeta"]["tasks_per_second"]
    best, best_torch = (
        max(
            (
                found[name]["tasks_per_second"]
                for name in rivals
                if name != "jaxmeta" and name.startswith(kind)
            ),
            default=None,
        )
        for kind in ("", "torch")
    )
    return {
        "tasks_per_second": own,
        "ratio_to_best_peer": best and own / best,
        "ratio_to_best_torch": best_torch and own / best_torch,
        "contestants": found,
        "operations_per_task": operations(workload.problem, params, tasks) / workload.tasks,
        "rounds": rounds,
        **rivals["jaxmeta"].compilation(params, tasks),
    }


def matmul_rate(size: int = 2048, rounds: int = 9) -> float:
    """Floating-point operations per second of a float32 matrix product on this machine."""
    matrix = jnp.ones((size, size)) / size
    product = jax.jit(lambda a: a @ a)
    product(matrix).block_until_ready()
    times = [seconds_of(lambda: product(matrix).block_until_ready()) for _ in range(rounds)]
    return 2 * size**3 / statistics.median(times)


def benchmark(options: Benchmark) -> None:
    """Measure, print the table, write the JSON file and the chart."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, 140)  # the width of the table, in a log file too
    for kind, given, known in (
        ("workload", options.workload, WORKLOADS),
        ("peer", options.peer, PEERS),
    ):
        for name in given:
            if name not in known:
                raise ValueError(f"unknown {kind} {name!r}; choose from {', '.join(known)}.")
    chosen = options.workload or tuple(WORKLOADS)

    def own(found: Any) -> bool:
        return {row["name"] for row in found["workloads"]} <= {*chosen}

    with result_file(options.out, own, ".png"):
        _benchmark(options, chosen, console)


def _benchmark(options: Benchmark, chosen: tuple[str, ...], console: Any) -> None:
    from rich.table import Table

    names = list(options.peer or PEERS)
    if importlib.util.find_spec("torch") is None:
        names = [name for name in names if not name.startswith("torch")]
        console.print(f"PyTorch is not installed, so its columns are empty. To install it: {TORCH}")
    results = []
    for name in chosen:
        console.print(f"measuring {name}")
        before = matmul_rate()
        measured = measure(WORKLOADS[name], names, options.rounds)
        rate = statistics.mean([before, matmul_rate()])
        used = measured["tasks_per_second"] * measured["operations_per_task"]
        results.append(
            {"name": name, **measured, "matmul_rate": rate, "fraction_of_matmul_peak": used / rate}
        )
        # After every workload, so that an interrupt loses no measurements.
        files.write_json(
            options.out, {"workloads": results, **provenance(mesh_for(jax.device_count()))}
        )

    columns = ("to best peer", "to PyTorch", "of matmul rate", "compile, s", "cached, s")
    table = Table("workload", "jaxmeta", *PEERS, *columns, box=None)
    for row in results:
        shown = [_speed(row["contestants"].get(peer, {})) for peer in PEERS]
        ratios = (row["ratio_to_best_peer"], row["ratio_to_best_torch"])
        compiling = (row["compile_seconds"], row["cached_compile_seconds"])
        table.add_row(
            row["name"],
            f"{row['tasks_per_second']:,.1f}",
            *shown,
            *("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            f"{row['fraction_of_matmul_peak']:.0%}",
            *("–" if seconds is None else f"{seconds:.1f}" for seconds in compiling),
        )
    console.print("tasks per second")
    console.print(table)
    chart(options.out.with_suffix(".png"), results)
    console.print(f"figures: {options.out}, chart: {options.out.with_suffix('.png')}")


def _speed(contestant: dict[str, Any]) -> str:
    if "failed" in contestant:
        return contestant["failed"]
    return f"{contestant['tasks_per_second']:,.1f}" if contestant else "–"


def chart(path: Path, results: list[dict[str, Any]]) -> None:
    """Draw tasks per second relative to the best peer, one group of bars per workload."""
    from matplotlib.figure import Figure

    from jaxmeta.plots.figures import write

    names = ["jaxmeta", *PEERS]
    shades = ("#0072b2", "#e69f00", "#f0c67a", "#009e73", "#8fd3bf", "#999999")
    colours = dict(zip(names, shades, strict=True))
    figure = Figure(figsize=(8, 0.5 + 1.2 * len(results)), layout="constrained")
    axes = figure.subplots()
    labelled: set[str] = set()
    for row, result in enumerate(results):
        speed = {
            name: own["tasks_per_second"]
            for name, own in result["contestants"].items()
            if "failed" not in own
        }
        rivals = [own for name, own in speed.items() if name != "jaxmeta"]
        best = max(rivals, default=speed["jaxmeta"])
        for place, name in enumerate(name for name in names if name in speed):
            ratio = speed[name] / best
            axes.barh(
                row + 0.14 * place - 0.35,
                ratio,
                height=0.13,
                color=colours[name],
                label=None if name in labelled else name,
            )
            axes.text(
                ratio * 1.03,
                row + 0.14 * place - 0.35,
                f"{speed[name]:,.0f}" if speed[name] >= 100 else f"{speed[name]:.2g}",
                va="center",
                fontsize=7,
            )
            labelled.add(name)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    shortest, longest = axes.get_xlim()
    ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if shortest <= t <= longest]
    axes.set_xticks(ticks, [f"{tick:g} ×" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(results)), [result["name"] for result in results])
    axes.invert_yaxis()
    axes.set_xlabel("speed relative to the best peer; tasks per second beside the bars")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    write(figure, path)


if __name__ == "__main__":
    sys.exit(
        guarded(lambda: benchmark(read_arguments(Benchmark, "python -m experiments.benchmark")))
    )

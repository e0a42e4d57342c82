"""jaxmeta against PyTorch and against plain JAX, on this machine, in one run.

    python -m experiments.benchmark [--out bench.json] [--workload NAME ...]

Contestants are first checked to agree on the loss and the meta-gradient for the same weights and
data. They then take turns, A B A B, and medians are compared. The code of the peers is in
`experiments.peers`, jaxmeta's in `experiments.workloads`.
"""

import gc
import importlib.util
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.experimental.compilation_cache import compilation_cache

from experiments import peers
from experiments.peers import Arrays, Contestant
from experiments.workloads import (
    WORKLOADS,
    Workload,
    compiled_steps,
    draw,
    initial,
    jaxmeta_contestant,
)
from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import Count
from jaxmeta.training.parallel import mesh_for, size_of

TORCH = "pip install torch==2.13.0"  # has a CPU build

_TURN = 0.5  # least seconds per turn: the system takes tens of ms to place threads on cores
_LONG = 20.0  # seconds of a call above which one step per call is enough

PEERS = {
    "torch_loop": peers.torch_loop,
    "torch_vmap": peers.torch_vmap,
    "plain_jax": peers.plain_jax,
}


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
    """Peers to measure, from torch_loop, torch_vmap and plain_jax. Defaults to all."""


# --- the comparison -----------------------------------------------------------------------


def assert_agreement(
    workload: Workload, contestants: dict[str, Contestant], dtype: str, tolerance: float
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
    """Check agreement, then measure all contestants in turns, and take medians."""
    contestants = {"jaxmeta": jaxmeta_contestant(workload)}
    contestants |= {name: PEERS[name](workload.problem) for name in names}
    few = workload._replace(tasks=min(workload.tasks, 2))
    with jax.enable_x64(True):
        small = few._replace(queries=min(workload.queries, 2))
        assert_agreement(small, contestants, "float64", 1e-8)
    assert_agreement(few, contestants, "float32", 1e-3)

    params, tasks = initial(workload.problem), draw(workload)
    work, steps, calls = {}, {}, {}
    for name, contestant in contestants.items():
        for steps[name] in (1, workload.length):
            work[name] = contestant.train(params, tasks, steps[name])
            work[name]()  # compiles and warms the caches
            once = seconds_of(work[name])
            if once * workload.length > _LONG:
                break
        calls[name] = math.ceil(_TURN / once)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name in work:
            gc.collect()
            seconds[name].append(seconds_of(work[name], calls[name]))
    speed = {
        name: workload.tasks * steps[name] / statistics.median(times)
        for name, times in seconds.items()
    }
    best, best_torch = (
        max((speed[name] for name in names if name.startswith(kind)), default=None)
        for kind in ("", "torch")
    )
    flops = peers.operations(workload.problem, params, tasks) / workload.tasks
    return {
        "tasks_per_second": speed["jaxmeta"],
        "ratio_to_best_peer": best and speed["jaxmeta"] / best,
        "ratio_to_best_torch": best_torch and speed["jaxmeta"] / best_torch,
        "peers": {name: speed[name] for name in names},
        "operations_per_task": flops,
        "rounds": rounds,
        **_compilation(workload, params, tasks),
    }


def seconds_of(work: Callable[[], Any], calls: int = 1) -> float:
    """Seconds per call, averaged over this many calls in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - start) / calls


def _compilation(workload: Workload, params: Arrays, tasks: Any) -> dict[str, Any]:
    """Seconds to trace and compile, with an empty and with a filled cache on disk, and the memory
    of the compiled steps in bytes."""
    if workload.problem.method == "evaluation":
        return dict.fromkeys(("compile_seconds", "cached_compile_seconds", "peak_memory_bytes"))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(names, (folder, 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        try:
            seconds = []
            for _ in ("empty", "full"):
                jax.clear_caches()
                start = time.perf_counter()
                compiled, *_ = compiled_steps(workload, params, tasks)
                seconds.append(time.perf_counter() - start)
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
    sizes = compiled.memory_analysis()
    total = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    total *= size_of(mesh_for(workload.tasks))  # the analysis is of one device
    return {
        "compile_seconds": seconds[0],
        "cached_compile_seconds": seconds[1],
        "peak_memory_bytes": total,
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
        shown = [f"{row['peers'][p]:,.1f}" if p in row["peers"] else "–" for p in PEERS]
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


def chart(path: Path, results: list[dict[str, Any]]) -> None:
    """Draw tasks per second relative to the best peer, one group of bars per workload."""
    from matplotlib.figure import Figure

    from jaxmeta.plots.figures import write

    names = ["jaxmeta", *PEERS]
    colours = dict(zip(names, ("#0072b2", "#e69f00", "#f0c67a", "#999999"), strict=True))
    figure = Figure(figsize=(8, 0.5 + 0.85 * len(results)), layout="constrained")
    axes = figure.subplots()
    for row, result in enumerate(results):
        speed = {"jaxmeta": result["tasks_per_second"], **result["peers"]}
        best = max(result["peers"].values(), default=speed["jaxmeta"])
        for place, name in enumerate(name for name in names if name in speed):
            ratio = speed[name] / best
            axes.barh(
                row + 0.2 * place - 0.3,
                ratio,
                height=0.18,
                color=colours[name],
                label=name if row == 0 else None,
            )
            axes.text(
                ratio * 1.03,
                row + 0.2 * place - 0.3,
                f"{speed[name]:,.0f}" if speed[name] >= 100 else f"{speed[name]:.2g}",
                va="center",
                fontsize=7,
            )
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    shortest, longest = axes.get_xlim()
    ticks = [t for t in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if shortest <= t <= longest]
    axes.set_xticks(ticks, [f"{tick:g} ×" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(results)), [result["name"] for result in results])
    axes.invert_yaxis()
    axes.set_xlabel("speed relative to the best peer; tasks per second beside the bars")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=4)
    axes.spines[["top", "right"]].set_visible(False)
    write(figure, path)


if __name__ == "__main__":
    sys.exit(
        guarded(lambda: benchmark(read_arguments(Benchmark, "python -m experiments.benchmark")))
    )

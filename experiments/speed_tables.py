"""Tables of speed and memory, from the result files of the benchmarks."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from experiments.cells import joined
from experiments.markdown import grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"
BENCHMARK = RESULTS / "benchmark-cpu" / "bench.json"
SMALL = RESULTS / "benchmark-cpu" / "small-tasks.json"
SCALING = RESULTS / "scaling-cpu"
MEMORY = RESULTS / "memory-cpu" / "memory.json"

COMPILED = RESULTS / "compiled-cpu" / "compiled.json"
TEXT = RESULTS / "text-speed-cpu" / "text-speed.json"
RESIDENT = RESULTS / "memory-cpu" / "resident.json"

_PEERS = {
    "torch_loop": "PyTorch, loop",
    "torch_vmap": "PyTorch, vmap",
    "torch_compile_loop": "PyTorch, compiled, loop",
    "torch_compile_vmap": "PyTorch, compiled, vmap",
    "plain_jax": "plain JAX",
}


def speed_table(benchmark: Path = BENCHMARK) -> str:
    """Tasks per second of all implementations, with jaxmeta's speed relative to each."""
    rows = []
    for row in files.read_json(benchmark)["workloads"]:
        own = row["tasks_per_second"]
        others = (_speed(contestant, own) for contestant in _peers(row))
        ratio = _or_dash(row["ratio_to_best_torch"], "{:.2f}")
        rows.append([row["name"], f"{own:,.1f}", *others, ratio])
    return grid(["workload", "jaxmeta", *_PEERS.values(), "jaxmeta ÷ best PyTorch"], rows)


def _peers(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What was measured of each peer; empty for a peer that was not."""
    if "contestants" not in row:  # as files had it before contestants were compiled
        return [
            {} if name not in row["peers"] else {"tasks_per_second": row["peers"][name]}
            for name in _PEERS
        ]
    return [row["contestants"].get(name, {}) for name in _PEERS]


def _speed(contestant: Mapping[str, Any], own: float) -> str:
    if "failed" in contestant:
        return contestant["failed"]
    speed = contestant.get("tasks_per_second")
    return "–" if speed is None else f"{speed:,.1f} ({own / speed:.2f} ×)"


def text_speed_table(path: Path = TEXT) -> str:
    """Sentences or steps per second of the text encoder, and jaxmeta's speed relative to each."""
    if not path.is_file():
        return joined([])
    found = files.read_json(path)
    names = list(next(iter(found["workloads"].values())))
    rows = []
    for workload, own in found["workloads"].items():
        others = (
            f"{own[name]['per_second']:,.1f} ({own[name]['ratio']:.2f} ×)" if name in own else "–"
            for name in names[1:]
        )
        rows.append([workload, f"{own['jaxmeta']['per_second']:,.1f}", *others])
    return grid(["per second", "jaxmeta", *names[1:]], rows)


def contestants_tables(benchmark: Path = SMALL) -> str:
    """Compile times, the time of the first 1,000 updates, and memory of all implementations."""
    rows = files.read_json(benchmark)["workloads"]
    if not all("contestants" in row for row in rows):  # as files were before
        return ""
    return "\n".join(
        f"{title}:\n\n{_of_contestants(rows, figure, form, scale)}"
        for title, figure, form, scale in (
            ("Seconds to compile", "compile_seconds", "{:,.1f}", 1),
            (
                "Seconds to the first 1,000 updates, compilation included",
                "seconds_to_1000_updates",
                "{:,.0f}",
                1,
            ),
            ("Peak resident memory of the process (MiB)", "resident_bytes", "{:,.0f}", 2**20),
        )
    )


def _of_contestants(rows: list[Any], figure: str, form: str, scale: float) -> str:
    cells = []
    for row in rows:
        found = [own.get(figure) for own in (row["contestants"]["jaxmeta"], *_peers(row))]
        if any(value is not None for value in found):  # an evaluation has no updates
            shown = (_or_dash(None if value is None else value / scale, form) for value in found)
            cells.append([row["name"], *shown])
    return grid(["workload", "jaxmeta", *_PEERS.values()], cells)


def cost_table(benchmark: Path = BENCHMARK) -> str:
    """Floating-point rate relative to a matrix product, and compile times with a cache."""
    rows = []
    for row in files.read_json(benchmark)["workloads"]:
        seconds = (row["compile_seconds"], row["cached_compile_seconds"])
        ratio = _or_dash(row["ratio_to_best_peer"], "{:.2f}")
        rate = f"{100 * row['fraction_of_matmul_peak']:.0f} %"
        rows.append([row["name"], ratio, rate, *(_or_dash(value, "{:.1f} s") for value in seconds)])
    columns = ["workload", "jaxmeta ÷ best peer", "of matmul rate", "compile", "compile, cached"]
    return grid(columns, rows)


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def scaling_line(folder: Path = SCALING) -> str:
    """The speed-up by a second process, and the cost of streaming."""
    of_processes = files.read_json(folder / "processes.json")["processes"]
    of_pipelines = files.read_json(folder / "pipelines.json")["pipelines"]
    return (
        "Two processes, each pinned to one core, process "
        f"{of_processes['ratio_to_one_process']:.2f} times as many tasks per\nsecond as one such "
        "process. With Omniglot streamed from the host, training reaches\n"
        f"{100 * of_pipelines['stream_to_device']:.0f} % of its speed with the images on the "
        "device.\n"
    )


def memory_table(path: Path = MEMORY) -> str:
    """Memory of each way to compute the meta-gradient, by number of inner steps."""
    taken = files.read_json(path)["temporary_bytes"]
    steps = list(next(iter(taken.values())))
    rows = (
        [name, *(f"{by_steps[count] / 2**20:.1f}" for count in steps)]
        for name, by_steps in taken.items()
    )
    return grid(["memory (MiB)", *(f"{count} steps" for count in steps)], rows)


def compiled_table(path: Path = COMPILED) -> str:
    """Instructions, operations and memory of the compiled meta-updates."""
    rows = []
    for name, own in files.read_json(path)["programs"].items():
        counts = own["instructions"]
        kinds = (f"{counts[kind]:,}" for kind in ("all", "fusion", "dot", "while", "copy"))
        memory = f"{own['temporary_bytes'] / 2**20:.1f}"
        rows.append([name, *kinds, f"{own['flops'] / 1e6:,.0f}", memory])
    columns = ["workload", "instructions", "fusions", "matrix products", "loops", "copies"]
    return grid([*columns, "Mflop", "temporary memory (MiB)"], rows)


def resident_table(path: Path = RESIDENT) -> str:
    """Peak resident memory of commands, and the memory of a long training."""
    found = files.read_json(path)
    rows = [[f"`{name}`, peak", _mebibytes(taken)] for name, taken in found["peak_bytes"].items()]
    points = list(found["bytes_after_updates"].items())
    for count, taken in (*points[:2], points[len(points) // 2 - 1], points[-1]):
        rows.append([f"`regression`, after {int(count):,} updates", _mebibytes(taken)])
    return grid(["resident memory", "MiB"], rows)


def _mebibytes(taken: int) -> str:
    return f"{taken / 2**20:,.0f}"


SPEED_PARTS = {
    "speed": speed_table,
    "small-tasks": partial(speed_table, SMALL),
    "contestants": contestants_tables,
    "cost": cost_table,
    "compiled": compiled_table,
    "resident": resident_table,
    "text-speed": text_speed_table,
    "scaling": scaling_line,
    "memory": memory_table,
}

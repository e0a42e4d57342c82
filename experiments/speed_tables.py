"""Tables of speed and memory, from the result files of the benchmarks."""

from pathlib import Path

from experiments.markdown import grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"
BENCHMARK = RESULTS / "benchmark-cpu" / "bench.json"
SCALING = RESULTS / "scaling-cpu"
MEMORY = RESULTS / "memory-cpu" / "memory.json"


_PEERS = {
    "torch_loop": "PyTorch, loop",
    "torch_vmap": "PyTorch, vmap",
    "torch_compile_loop": "PyTorch, compiled, loop",
    "torch_compile_vmap": "PyTorch, compiled, vmap",
    "plain_jax": "plain JAX",
}


def speed_table(benchmark: Path = BENCHMARK) -> str:
    """Tasks per second of all implementations, one row per workload."""
    rows = []
    for row in files.read_json(benchmark)["workloads"]:
        speeds = row.get("peers") or {  # as files had it before contestants were compiled
            name: own.get("tasks_per_second") for name, own in row["contestants"].items()
        }
        others = (_or_dash(speeds.get(peer), "{:,.1f}") for peer in _PEERS)
        ratio = _or_dash(row["ratio_to_best_torch"], "{:.2f}")
        rows.append([row["name"], f"{row['tasks_per_second']:,.1f}", *others, ratio])
    return grid(["workload", "jaxmeta", *_PEERS.values(), "jaxmeta ÷ best PyTorch"], rows)


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


SPEED_PARTS = {
    "speed": speed_table,
    "cost": cost_table,
    "scaling": scaling_line,
    "memory": memory_table,
}

"""The README's tables of results and of speed, written from the result files.

python -m experiments.table          # writes it into README.md
"""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmeta.recipes import find_learner

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BENCHMARK = RESULTS / "benchmark-cpu" / "bench.json"
SCALING = RESULTS / "scaling-cpu"
MEMORY = RESULTS / "memory-cpu" / "memory.json"


def table(folder: Path = RESULTS) -> str:
    """Markdown: one row a task that a learner was tested on, of images and then of curves."""
    columns = ["learner", "paper", "data", "task", "published", "accuracy (%)", "shuffled labels"]
    rows = _header([*columns, "best step", "query statistics", "command"])
    by_path = {path: json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))}
    controls = {
        _tested(path, results): _linked(_accuracy(results), path)
        for path, results in by_path.items()
        if _is_control(results) and "run" in results
    }
    for path, results in by_path.items():
        if "baselines" in results:
            rows += _baseline_rows(results, path)
        elif _is_classification(results) and not _is_control(results):
            rows.append(_row(results, path, controls.get(_tested(path, results), "–")))
        elif _is_control(results) and "run" not in results:  # trained so, too
            rows.append(_row(results, path, _linked(_accuracy(results), path)))
    rows += [
        "",
        *_header(["learner", "paper", "curves", "inner steps", "published", "loss", "command"]),
    ]
    for path, results in by_path.items():
        if "accuracy" not in results and "after_inner_steps" in results:
            rows += _curve_rows(results, path)
    return "\n".join(rows) + "\n"


def _header(columns: list[str]) -> list[str]:
    return [_line(columns), "|---" * len(columns) + "|"]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_classification(results: dict[str, Any]) -> bool:
    return "accuracy" in results and "shuffled_labels" in results["protocol"]


def _is_control(results: dict[str, Any]) -> bool:
    return _is_classification(results) and results["protocol"]["shuffled_labels"]


def _tested(path: Path, results: dict[str, Any]) -> tuple[str, str, int, int]:
    """What a control has in common with what it controls."""
    return path.parent.name, results["dataset"], results["ways"], results["shots"]


def _linked(figure: str, path: Path) -> str:
    return f"[{figure}](experiments/results/{path.parent.name}/{path.name})"


def _command(results: dict[str, Any], path: Path) -> str:
    """As it was given, but for where the run went and where it went on from.

    A run that is evaluated again lies where it was committed.
    """
    words = shlex.split(results["command"])
    if "run" in results:
        run = f"experiments/results/{path.parent.name}"
        words = [run if Path(word).name == results["run"] else word for word in words]
    given = [
        word
        for before, word in zip(["", *words], words)
        if before != "--out" and not re.match(r"--(out(=.*)?|overwrite|resume)$", word)
    ]
    return f"`{shlex.join(given)}`"


def _named(learner: str) -> list[str]:
    """The learner and its paper, as the first two columns have them."""
    return [learner, find_learner(learner).paper]


def _published(learner: str, preset: str | None) -> str | Mapping[int, str] | None:
    """What the paper reports for the tasks of a preset, where it does."""
    found = (own.published.get(preset or "") for own in find_learner(learner).presets)
    return next((figures for figures in found if figures is not None), None)


def _curve_rows(results: dict[str, Any], path: Path) -> list[str]:
    protocol, after = results["protocol"], results["after_inner_steps"]
    varying = protocol["frequency"][0] < protocol["frequency"][1]
    curves = "amplitude, phase and frequency" if varying else "amplitude and phase"
    published = _published(results["learner"], "sinusoid-frequency" if varying else "sinusoid")
    rows = []
    for step, figure in published.items() if isinstance(published, Mapping) else ():
        loss = f"{after['loss'][step]:.3f} ± {after['loss_ci95'][step]:.3f}"
        cells = [f"{curves}, {results['shots']} shots", str(step), figure, _linked(loss, path)]
        rows.append(_line([*_named(results["learner"]), *cells, _command(results, path)]))
    return rows


def _row(results: dict[str, Any], path: Path, control: str) -> str:
    learner, paper = _named(results["learner"])
    preset = "{dataset}-{ways}w{shots}s".format_map(results)
    precision = " in bfloat16" if results["protocol"]["network"].endswith("bfloat16") else ""
    cells = [
        learner + precision + (", trained on shuffled labels" if _is_control(results) else ""),
        paper,
        results["dataset"],
        f"{results['ways']}-way {results['shots']}-shot",
        str(_published(learner, preset) or "–"),
        "–" if _is_control(results) else _linked(_accuracy(results), path) + _seeds(results),
        control,
        _updates(results),
        results["protocol"]["query_statistics"],
        _command(results, path),
    ]
    return _line(cells)


def _seeds(results: dict[str, Any]) -> str:
    return f" ({len(results['seeds'])} seeds)" if "seeds" in results else ""


def _updates(results: dict[str, Any]) -> str:
    return f"{results.get('best_step', results.get('steps')):,}"


def _accuracy(row: dict[str, Any], name: str = "accuracy") -> str:
    return f"{100 * row[name]:.1f} ± {100 * row[f'{name}_ci95']:.1f}"


def _interval(row: dict[str, Any], name: str, form: str) -> str:
    return f"{row[name]:{form}} ± {row[f'{name}_ci95']:{form}}"


def _baseline_rows(results: dict[str, Any], path: Path) -> list[str]:
    protocol = results["protocol"]
    rows = []
    for task, baselines in results["baselines"].items():
        ways, shots = task.removesuffix("s").split("w")
        for name, row in baselines.items():
            few = f" ({row['num_tasks']} tasks)" if row["num_tasks"] < 1000 else ""
            cells = [
                f"{name}, not meta-learned",
                "–",
                protocol["dataset"],
                f"{ways}-way {shots}-shot",
                "–",
                _linked(_accuracy(row), path) + few,
                "–",
                "–",
                protocol["query_statistics"],
                _command(results, path),
            ]
            rows.append(_line(cells))
    return rows


def processes_table(folder: Path = RESULTS) -> str:
    """Markdown: the log-likelihood of neural processes beside that of the exact posterior."""
    columns = ["learner", "paper", "functions", "context points", "log-likelihood a target"]
    columns += ["exact", "exact − learned", "of which floor of σ", "best step", "command"]
    rows = _header(columns)
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text())
        if "log_likelihood" not in results:
            continue
        exact = results.get("oracle")
        cells = [
            *_named(results["learner"]),
            results["dataset"],
            "{} to {}".format(*results["points"]),
            _linked(_interval(results, "log_likelihood", ".3f"), path) + _seeds(results),
            _interval(exact, "log_likelihood", ".3f") if exact else "–",
            *(
                _interval(exact, name, ".3f") if exact and name in exact else "–"
                for name in ("lead", "floor")
            ),
            _updates(results),
            _command(results, path),
        ]
        rows.append(_line(cells))
    return "\n".join(rows) + "\n"


_INSTANCES = (1, 2, 3, 4, 5, 10)


def sequences_table(folder: Path = RESULTS) -> str:
    """Markdown: errors of networks with a memory by length, and then by instance of a class."""
    columns = ["memory", "paper", "task", "trained on", "length", "bits a sequence", "bits wrong"]
    rows = _header([*columns, "best step", "command"])
    shown = [f"instance {number} (%)" for number in _INSTANCES]
    header = _header(["memory", "paper", "classes", *shown, "best step", "command"])
    streams: list[str] = []
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text())
        if results.get("experiment") != "sequence":
            continue
        named, protocol = _named(results["learner"]), results["protocol"]
        last = [_updates(results), _command(results, path)]
        if results["task"] == "labels":
            strings = ", as strings" if protocol["labels"] == "strings" else ""
            ways = f"{protocol['ways']}{strings}"
            seen = [
                _linked(_accuracy(results, name), path) if name in results else "–"
                for name in (f"accuracy_{number}" for number in _INSTANCES)
            ]
            streams.append(_line([*named, ways, *seen, *last]))
            published = _published(results["learner"], "labels") if ways == "5" else None
            if isinstance(published, Mapping):
                figures = [published.get(number, "–") for number in _INSTANCES]
                streams.append(_line([*named, "5, published", *figures, "–", "–"]))
            continue
        trained = "{} to {}".format(*protocol["trained_lengths"])
        tests = results.get("tests", {"": results}).values()
        for length, row in zip(protocol["test_lengths"], tests):
            form = ",.0f" if row["bits"] >= 1000 else ".3g"
            bits = _linked(_interval(row, "bits", form), path)
            wrong = f"{100 * row['bit_error']:.2g} %"
            cells = [results["task"], trained, str(length), bits, wrong]
            rows.append(_line([*named, *cells, *last]))
    if streams:
        rows += ["", *header, *streams]
    return "\n".join(rows) + "\n"


def optimizers_table(folder: Path = RESULTS) -> str:
    """Markdown: the final losses of learned optimizers and of tuned ones, one row a comparison."""
    names = ("learned", "adam", "momentum", "rmsprop")
    rows = _header(["rule", "on", *names, "learned − adam"])
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text())
        for course, found in results.get("comparison", {}).items():
            rule = results["learner"].removesuffix("-optimizer")
            cells = [f"{rule}-{results['family']}", course]
            best = min(names, key=lambda name: found[name]["final_loss"])
            for name in names:
                row = found[name]
                cell = f"{row['final_loss']:.3g} ± {row['final_loss_ci95']:.2g}"
                if row["diverged"]:
                    cell += f", {100 * row['diverged']:.1f} % diverged"
                cells.append(f"**{cell}**" if name == best else cell)
            lead = found["adam"]
            cells.append(
                f"{lead['learned_minus_this']:.2g} ± {lead['learned_minus_this_ci95']:.2g}"
            )
            rows.append(_line(cells))
    return "\n".join(rows) + "\n"


def speed_table(benchmark: Path = BENCHMARK) -> str:
    """Markdown: one row a workload, with the tasks per second of all and how they compare."""
    peers = {"torch_loop": "PyTorch, loop", "torch_vmap": "PyTorch, vmap", "plain_jax": "plain JAX"}
    columns = ["workload", "jaxmeta", *peers.values(), "to best PyTorch", "to best of all"]
    columns += ["of matmul rate", "compile", "from cache"]
    rows = _header(columns)
    for row in json.loads(benchmark.read_text())["workloads"]:
        ratios = (row["ratio_to_best_torch"], row["ratio_to_best_peer"])
        seconds = (row["compile_seconds"], row["cached_compile_seconds"])
        cells = [
            row["name"],
            f"{row['tasks_per_second']:,.1f}",
            *(_or_dash(row["peers"].get(peer), "{:,.1f}") for peer in peers),
            *(_or_dash(ratio, "{:.2f}") for ratio in ratios),
            f"{100 * row['fraction_of_matmul_peak']:.0f} %",
            *(_or_dash(value, "{:.1f} s") for value in seconds),
        ]
        rows.append(_line(cells))
    return "\n".join(rows) + "\n"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def scaling_line(folder: Path = SCALING) -> str:
    """What a second process brings, and what streaming costs."""
    of_processes = json.loads((folder / "processes.json").read_text())["processes"]
    of_pipelines = json.loads((folder / "pipelines.json").read_text())["pipelines"]
    return (
        f"Two processes, each pinned to one core, do {of_processes['ratio_to_one_process']:.2f} "
        "times the tasks\nper second of one such process; streamed from the host, Omniglot keeps "
        f"{100 * of_pipelines['stream_to_device']:.0f} % of the device\npipeline's speed "
        "(`python -m experiments.scaling`, figures in `experiments/results/scaling-cpu/`).\n"
    )


def memory_table(path: Path = MEMORY) -> str:
    """Markdown: one row a way to take the meta-gradient, its memory after each number of steps."""
    taken = json.loads(path.read_text())["temporary_bytes"]
    steps = list(next(iter(taken.values())))
    rows = _header(["MiB after", *(f"{count} steps" for count in steps)])
    for name, by_steps in taken.items():
        cells = [name, *(f"{by_steps[count] / 2**20:.1f}" for count in steps)]
        rows.append(_line(cells))
    return "\n".join(rows) + "\n"


PARTS = {
    "results": table,
    "processes": processes_table,
    "sequences": sequences_table,
    "optimizers": optimizers_table,
    "speed": speed_table,
    "scaling": scaling_line,
    "memory": memory_table,
}


def with_tables(readme: str) -> str:
    """The README with what stands between its markers made anew."""
    for name, written in PARTS.items():
        start, end = f"<!-- {name}: start -->\n", f"<!-- {name}: end -->\n"
        before, rest = readme.split(start)
        readme = before + start + written() + end + rest.split(end)[1]
    return readme


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))

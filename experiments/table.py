"""The README's tables of results and of speed, written from the result files.

python -m experiments.table          # writes it into README.md
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from jaxmeta.training import config as configs

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
BENCHMARK = RESULTS / "benchmark-cpu" / "bench.json"
SCALING = RESULTS / "scaling-cpu"
MEMORY = RESULTS / "memory-cpu" / "memory.json"

# What the papers report, as tabulated in the sources that the learners' docstrings name.
_PUBLISHED = {
    ("matching", "omniglot", 5, 1): "98.1",
    ("matching", "omniglot", 20, 1): "93.8",
    ("siamese", "omniglot", 5, 1): "97.3",
    ("siamese", "omniglot", 20, 1): "88.2",
    ("relation", "omniglot", 5, 1): "99.6 ± 0.2",
    ("relation", "omniglot", 20, 1): "97.6 ± 0.2",
    ("conditional-neural-process", "omniglot", 5, 1): "95.3",
    ("conditional-neural-process", "omniglot", 20, 1): "89.9",
    ("snail", "omniglot", 5, 1): "99.07 ± 0.16",
    ("snail", "omniglot", 20, 1): "97.64 ± 0.30",
    ("imaml", "omniglot", 5, 1): "99.50 ± 0.26",
    ("maml-plus-plus", "omniglot", 5, 1): "99.47 (ensemble of 5)",
    ("maml", "omniglot", 5, 1): "98.7 ± 0.4",
    ("first-order-maml", "omniglot", 5, 1): "98.3 ± 0.5",
    ("meta-sgd", "omniglot", 5, 1): "99.53 ± 0.26",
    ("reptile", "omniglot", 5, 1): "97.68 ± 0.04",
    ("prototypical", "omniglot", 5, 1): "98.8",
    ("prototypical", "omniglot", 5, 5): "99.7",
    ("prototypical", "omniglot", 20, 1): "96.0",
    ("prototypical", "omniglot", 20, 5): "98.9",
}


_PUBLISHED_CURVES = {  # after the inner steps that the papers report
    ("maml", False): {1: "0.67", 5: "0.38", 10: "0.35"},
    ("maml", True): {1: "1.13"},
    ("meta-sgd", True): {1: "0.90"},
}


def table(folder: Path = RESULTS) -> str:
    """Markdown: one row a task that a learner was tested on, of images and then of curves."""
    columns = ["learner", "of", "data", "task", "published", "ours, %", "shuffled labels"]
    rows = _header([*columns, "kept after", "query statistics", "command"])
    by_path = {path: json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))}
    controls = {
        _tested(path, results): _linked(_accuracy(results), path)
        for path, results in by_path.items()
        if _is_control(results) and "run" in results
    }
    for path, results in by_path.items():
        if "baselines" in results:
            rows += _baseline_rows(results, path)
        elif "accuracy" in results and not _is_control(results):
            rows.append(_row(results, path, controls.get(_tested(path, results), "–")))
        elif "accuracy" in results and "run" not in results:  # trained so, too
            rows.append(_row(results, path, _linked(_accuracy(results), path)))
    rows += [
        "",
        *_header(["learner", "of", "curves", "inner steps", "published", "ours", "command"]),
    ]
    for path, results in by_path.items():
        if "accuracy" not in results and "after_inner_steps" in results:
            rows += _curve_rows(results, path)
    return "\n".join(rows) + "\n"


def _header(columns: list[str]) -> list[str]:
    return [_line(columns), "|---" * len(columns) + "|"]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_control(results: dict[str, Any]) -> bool:
    return "accuracy" in results and results["protocol"]["shuffled_labels"]


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


def _reference(learner: str) -> str:
    """Authors and year, from the learner's description on the command line."""
    kinds = {kind.name: kind for kind in (*configs.LEARNERS, *configs.REGRESSORS)}
    found = re.search(r"\(([^()]* \d{4})\)", kinds[learner].__doc__ or "")
    assert found, f"the options of {learner} name no paper"
    return found[1]


def _curve_rows(results: dict[str, Any], path: Path) -> list[str]:
    protocol, after = results["protocol"], results["after_inner_steps"]
    varying = protocol["frequency"][0] < protocol["frequency"][1]
    curves = "amplitude, phase and frequency" if varying else "amplitude and phase"
    rows = []
    for step, published in _PUBLISHED_CURVES.get((results["learner"], varying), {}).items():
        figure = f"{after['loss'][step]:.3f} ± {after['loss_ci95'][step]:.3f}"
        cells = [
            results["learner"],
            _reference(results["learner"]),
            f"{curves}, {results['shots']} shots",
            str(step),
            published,
            _linked(figure, path),
            _command(results, path),
        ]
        rows.append(_line(cells))
    return rows


def _row(results: dict[str, Any], path: Path, control: str) -> str:
    key = (results["learner"], results["dataset"], results["ways"], results["shots"])
    precision = " in bfloat16" if results["protocol"]["network"].endswith("bfloat16") else ""
    cells = [
        results["learner"]
        + precision
        + (", trained on shuffled labels" if _is_control(results) else ""),
        _reference(results["learner"]),
        results["dataset"],
        f"{results['ways']}-way {results['shots']}-shot",
        _PUBLISHED.get(key, "–"),
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
    columns = ["learner", "of", "functions", "context points", "log-likelihood a target", "exact"]
    rows = _header([*columns, "exact − learned", "of which floor of σ", "kept after", "command"])
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text())
        if "log_likelihood" not in results:
            continue
        exact = results.get("oracle")
        cells = [
            results["learner"],
            _reference(results["learner"]),
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


# `experiments.sequence` names no papers.
_MACHINES = {
    "ntm": "Graves et al. 2014",
    "dnc": "Graves et al. 2016",
    "mann": "Santoro et al. 2016",
    "lstm": "Hochreiter, Schmidhuber 1997",
}
_INSTANCES = ("1", "2", "3", "4", "5", "10")
_PUBLISHED_STREAM = {  # of 5 classes, by instance
    "mann": ("36.4", "82.8", "91.0", "92.6", "94.9", "98.1"),
    "lstm": ("24.4", "49.5", "55.3", "61.0", "63.6", "62.5"),
}


def sequences_table(folder: Path = RESULTS) -> str:
    """Markdown: errors of networks with a memory by length, and then by instance of a class."""
    columns = ["memory", "of", "task", "trained on", "length", "bits a sequence", "bits wrong"]
    rows = _header([*columns, "kept after", "command"])
    shown = [f"instance {number}, %" for number in _INSTANCES]
    header = _header(["memory", "of", "classes", *shown, "kept after", "command"])
    streams: list[str] = []
    for path in sorted(folder.glob("*/results.json")):
        results = json.loads(path.read_text())
        if "by_length" not in results:
            continue
        named = [results["learner"], _MACHINES[results["learner"]]]
        updates = f"{results['best_step']:,}"
        for length, row in results["by_length"].items():
            if "bits" in row:
                form = ",.0f" if row["bits"] >= 1000 else ".3g"
                bits = _linked(_interval(row, "bits", form), path)
                trained = "{} to {}".format(*results["protocol"]["trained_lengths"])
                wrong = f"{100 * row['bit_error']:.2g} %"
                cells = [results["task"], trained, length, bits, wrong, updates]
                rows.append(_line([*named, *cells, _command(results, path)]))
            else:
                seen = [
                    _linked(_accuracy(row, name), path) if name in row else "–"
                    for name in (f"accuracy_{number}" for number in _INSTANCES)
                ]
                ways = str(results["settings"]["ways"])
                strings = results["settings"].get("labels") == "strings"
                ways += ", as strings" if strings else ""
                streams.append(_line([*named, ways, *seen, updates, _command(results, path)]))
                published = _PUBLISHED_STREAM.get(results["learner"])
                if published and ways == "5":
                    streams.append(_line([*named, "5, published", *published, "–", "–"]))
    if streams:
        rows += ["", *header, *streams]
    return "\n".join(rows) + "\n"


def optimizers_table(folder: Path = RESULTS) -> str:
    """Markdown: the final losses of learned optimizers and of tuned ones, one row a comparison."""
    names = ("learned", "adam", "momentum", "rmsprop")
    rows = _header(["rule", "on", *names, "learned − adam"])
    for path in sorted(folder.glob("optimizer-*/results.json")):
        results = json.loads(path.read_text())
        for course, found in results["comparison"].items():
            cells = [path.parent.name.removeprefix("optimizer-"), course]
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

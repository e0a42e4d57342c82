"""Tables of the README and the documentation, written from the result files.

python -m experiments.table          # updates them
"""

import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.active_tables import active_tables, requests_table
from experiments.architecture_tables import search_speed_table, searches_table
from experiments.cells import interval, linked, percent, published_result
from experiments.compression_tables import compression_tables
from experiments.generation_tables import classifier_table, generators_table, imagined_tables
from experiments.markdown import Row, grid
from experiments.policy_tables import (
    bandits_table,
    control_speed_table,
    dynamics_tables,
    returns_tables,
)
from experiments.pool_tables import PAGES as POOL_PAGES
from experiments.speed_tables import SPEED_PARTS
from experiments.stream_tables import PAGES as STREAM_PAGES
from experiments.text_tables import PAGES as TEXT_PAGES
from experiments.transfer_tables import PAGES as TRANSFER_PAGES
from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.recipes import known_learners

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "experiments" / "results"


def _read(folder: Path, pattern: str = "*/results.json") -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.glob(pattern)):
        yield path, files.read_json(path)


def _grouped(groups: Mapping[str, list[Row]], columns: Row) -> str:
    """A table for each group, under its heading."""
    columns = list(columns)
    return "\n".join(f"### {name}\n\n{grid(columns, rows)}" for name, rows in groups.items())


# Cells


def _variant(results: Mapping[str, Any], path: Path) -> str:
    """The learner and the variant in the name of its run: `maml, width 32`."""
    learner, name = results["learner"], path.parent.name
    rest = name.removeprefix(f"{learner}-").removeprefix(results.get("dataset", ""))
    added = re.sub(r"^-?\d+w\d+s", "", rest).strip("-").replace("-", " ")
    if "seeds" in results:
        added = added.replace("seeds", f"{len(results['seeds'])} seeds")
    return f"{learner}, {added}" if added else learner


# Image classification


def _is_classification(results: Mapping[str, Any]) -> bool:
    protocol = results.get("protocol", {})
    of_sentences = "encoder" in protocol
    return "accuracy" in results and "shuffled_labels" in protocol and not of_sentences


def _is_control(results: Mapping[str, Any]) -> bool:
    return results["protocol"]["shuffled_labels"]


def _tested(path: Path, results: Mapping[str, Any]) -> tuple[str, str, int, int, str]:
    """The run and the tasks that a control shares with the run it belongs to."""
    tasks = (results["dataset"], results["ways"], results["shots"], _within_groups(results))
    return path.parent.name, *tasks


def classification_tables(folder: Path = RESULTS) -> str:
    """Accuracies by benchmark, highest first."""
    found = dict(_read(folder, "*/*.json"))
    tests = {path: own for path, own in found.items() if _is_classification(own)}
    controls: dict[Any, str] = {}  # for runs that were trained on true labels
    for path, own in tests.items():
        if _is_control(own) and "run" in own:
            before, now = controls.get(_tested(path, own)), linked(percent(own), path)
            controls[_tested(path, own)] = now if before is None else f"{before}, {now}"
    entries: list[tuple[str, float, Row]] = []  # benchmark, accuracy, cells
    for path, own in tests.items():
        name = _benchmark_of(own)
        if not _is_control(own):
            preset = "{dataset}-{ways}w{shots}s".format_map(own)
            if _within_groups(own):
                preset = "omniglot-challenge" if _is_challenge(own) else ""
            cells = [
                _variant(own, path) + _protocol(own),
                linked(percent(own), path),
                str(published_result(own["learner"], preset) or "–"),
                controls.get(_tested(path, own), "–"),
            ]
        elif "run" not in own:
            cells = [_variant(own, path), "–", "–", linked(percent(own), path)]
        else:
            continue
        steps = own.get("best_step", own.get("steps"))
        cells += [own["protocol"]["query_statistics"], f"{steps:,}"]
        entries.append((name, own["accuracy"], cells))
    for path, own in found.items():
        for task, baselines in own.get("baselines", {}).items():
            ways, shots = task.removesuffix("s").split("w")
            protocol = own["protocol"]
            for baseline, row in baselines.items():
                few = f", {row['num_tasks']} tasks" if row["num_tasks"] < 1000 else ""
                cells = [f"{baseline}, not meta-learned{few}", linked(percent(row), path)]
                cells += ["–", "–", protocol["query_statistics"], "–"]
                name = _benchmark(protocol["dataset"], int(ways), int(shots))
                entries.append((name, row["accuracy"], cells))
    groups: dict[str, list[Row]] = {}
    for name, _, cells in sorted(entries, key=lambda entry: (*_order(entry[0]), -entry[1])):
        groups.setdefault(name, []).append(cells)
    columns = ["learner", "accuracy (%)", "published (%)", "shuffled labels (%)"]
    return _grouped(groups, [*columns, "query statistics", "best step"])


def _protocol(own: Mapping[str, Any]) -> str:
    """What differs from most tests: the queries, or the views of an image."""
    queries = "" if own.get("queries", 15) == 15 else f", queries per class: {own['queries']}"
    views = own["protocol"].get("test_views", "one")
    return queries + ("" if views == "one" else f", test views: {views}")


def _benchmark(dataset: str, ways: int, shots: int) -> str:
    return f"{dataset}, {ways}-way {shots}-shot"


def _benchmark_of(own: Mapping[str, Any]) -> str:
    return _benchmark(own["dataset"], own["ways"], own["shots"]) + _within_groups(own)


def _within_groups(own: Mapping[str, Any]) -> str:
    """The end of a benchmark's name for tasks whose classes are of one group."""
    within = own["protocol"].get("within_groups") in ("test", "both")
    return f", within a group of {own['protocol']['split']}" if within else ""


def _is_challenge(own: Mapping[str, Any]) -> bool:
    """Whether a test has the tasks of the Omniglot challenge, upright 20-way 1-shot."""
    protocol = own["protocol"]
    tasks = (own["dataset"], own["ways"], own["shots"], protocol["split"])
    return tasks == ("omniglot", 20, 1, "lake") and protocol["test_rotations"] == "none"


def _order(benchmark: str) -> tuple[bool, str, list[int]]:
    """Omniglot first, since most papers report it; ways and shots in numerical order."""
    dataset, _, rest = benchmark.partition(", ")
    return dataset != "omniglot", dataset, [int(number) for number in re.findall(r"\d+", rest)]


def learners_table(folder: Path = RESULTS) -> str:
    """Every learner with its paper, a summary, and accuracies on Omniglot 5-way 1-shot."""
    plain: dict[str, dict[str, Any]] = {}
    for path, own in _read(folder, "*/*.json"):
        if not _is_classification(own) or _is_control(own):
            continue
        fits = _benchmark_of(own) == "omniglot, 5-way 1-shot"
        # No other network, no other seeds, and no other tasks than those of the run.
        is_plain = _variant(own, path) == own["learner"] and "run" not in own
        if fits and (is_plain or own["learner"] not in plain):
            plain[own["learner"]] = own
    rows = []
    for name, recipe in known_learners().items():
        phrase = " ".join((recipe.__doc__ or "").split()).partition(": ")[2].partition(".")[0]
        published = str(published_result(name, "omniglot-5w1s") or "–").partition(" ")[0]
        ours = f"{100 * plain[name]['accuracy']:.1f}" if name in plain else "–"
        rows.append([name, recipe.paper, phrase, ours, published])
    columns = ["learner", "paper", "summary", "accuracy (%)", "published (%)"]
    return grid(columns, rows)


def learner_names() -> str:
    """The names of all learners, by the first kind of task that each supports."""
    kinds: dict[str, list[str]] = {}
    for name, recipe in known_learners().items():
        kinds.setdefault(recipe.kinds[0], []).append(f"`{name}`")
    lines = [f"- {kind}: {', '.join(names)}" for kind, names in sorted(kinds.items())]
    return "".join(
        f"{textwrap.fill(line, 100, subsequent_indent='  ', break_on_hyphens=False)}\n"
        for line in lines
    )


# Curves


def curves_tables(folder: Path = RESULTS) -> str:
    """Regression losses and published ones, by kind of curve."""
    groups: dict[str, list[Row]] = {}
    for path, own in _read(folder):
        protocol, after = own.get("protocol", {}), own.get("after_inner_steps", {})
        if "accuracy" in own or "frequency" not in protocol or not after:
            continue
        varying = protocol["frequency"][0] < protocol["frequency"][1]
        kind = "Amplitude, phase and frequency" if varying else "Amplitude and phase"
        published = published_result(
            own["learner"], "sinusoid-frequency" if varying else "sinusoid"
        )
        rows = groups.setdefault(f"{kind}, {own['shots']} shots", [])
        for step, figure in published.items() if isinstance(published, Mapping) else ():
            loss = f"{after['loss'][step]:.3f} ± {after['loss_ci95'][step]:.3f}"
            rows.append([own["learner"], str(step), linked(loss, path), figure])
    return _grouped(groups, ["learner", "inner steps", "squared error", "published"])


def processes_table(folder: Path = RESULTS) -> str:
    """Log-likelihoods of neural processes and of the exact posterior."""
    rows = []
    for path, own in _read(folder):
        if "log_likelihood" in own and "points" in own:
            exact = own.get("oracle") or {}
            rows.append(
                [
                    own["learner"] + (f" ({len(own['seeds'])} seeds)" if "seeds" in own else ""),
                    "{}, {} to {}".format(own["dataset"], *own["points"]),
                    linked(interval(own, "log_likelihood", ".3f"), path),
                    *(
                        interval(exact, name, ".3f") if name in exact else "–"
                        for name in ("log_likelihood", "lead", "floor")
                    ),
                ]
            )
    columns = ["learner", "context points", "log-likelihood", "exact", "exact − learned"]
    return grid([*columns, "due to the floor of σ"], rows)


# Memories


def sequences_tables(folder: Path = RESULTS) -> str:
    """Errors of memory networks by sequence length, one table per task."""
    groups: dict[str, list[Row]] = {}
    for path, own in _read(folder):
        if own.get("experiment") != "sequence" or own["task"] == "labels":
            continue
        protocol = own["protocol"]
        trained = "{} to {}".format(*protocol["trained_lengths"])
        rows = groups.setdefault(f"{own['task']}, trained on lengths {trained}", [])
        tests = own.get("tests", {"": own}).values()
        for length, row in zip(protocol["test_lengths"], tests):
            form = ",.0f" if row["bits"] >= 1000 else ".3g"
            bits = linked(interval(row, "bits", form), path)
            rows.append([own["learner"], str(length), bits, f"{100 * row['bit_error']:.2g} %"])
    return _grouped(groups, ["network", "length", "bits per sequence", "wrong bits"])


_INSTANCES = (1, 2, 3, 4, 5, 10)


def streams_table(folder: Path = RESULTS) -> str:
    """Accuracy by presentation of a class, and published results."""
    rows = []
    for path, own in _read(folder):
        of_labels = own.get("experiment") == "sequence" and own["task"] == "labels"
        if of_labels and "requests" not in own:
            protocol = own["protocol"]
            strings = ", as strings" if protocol["labels"] == "strings" else ""
            ways = f"{protocol['ways']}{strings}"
            seen = [
                linked(percent(own, name), path) if name in own else "–"
                for name in (f"accuracy_{number}" for number in _INSTANCES)
            ]
            rows.append([own["learner"], ways, *seen])
            published = published_result(own["learner"], "labels") if ways == "5" else None
            if isinstance(published, Mapping):
                figures = [published.get(number, "–") for number in _INSTANCES]
                rows.append([f"{own['learner']}, published", ways, *figures])
    return grid(["network", "classes", *(f"{number}" for number in _INSTANCES)], rows)


# Learned optimizers


def optimizers_tables(folder: Path = RESULTS) -> str:
    """Final losses of learned and of tuned optimizers, one table per learned optimizer."""
    names = ("learned", "adam", "momentum", "rmsprop")
    groups: dict[str, list[Row]] = {}
    for _, own in _read(folder):
        if own.get("experiment") != "optimizers":
            continue
        for course, found in own.get("comparison", {}).items():
            rule = own["learner"].removesuffix("-optimizer")
            cells = [course]
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
            groups.setdefault(f"{rule}-{own['family']}", []).append(cells)
    return _grouped(groups, ["test", *names, "learned − adam"])


# Commands


def commands_table(folder: Path = RESULTS) -> str:
    """The command that wrote each result file."""
    rows = []
    for path, own in _read(folder, "*/*.json"):
        if "command" in own and ("experiment" in own or "baselines" in own):
            test = path.stem.removeprefix("evaluation-")
            name = path.parent.name + ("" if test == "results" else f", {test}")
            rows.append([linked(name, path), _command(own, path)])
    return grid(["results", "command"], rows)


def _command(results: Mapping[str, Any], path: Path) -> str:
    """The command as given, without options for the run folder, overwriting and resuming.

    For an evaluation of a run in the repository, the run is named by its folder there.
    """
    words = shlex.split(results["command"])
    if "run" in results and (path.parent / "results.json").is_file():
        run = f"experiments/results/{path.parent.name}"
        words = [run if Path(word).name == results["run"] else word for word in words]
    given = [
        word
        for before, word in zip(["", *words], words)
        if before != "--out" and not re.match(r"--(out(=.*)?|overwrite|resume)$", word)
    ]
    return f"`{shlex.join(given)}`"


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"learners": learner_names},
    "docs/pages/choose.md": {"learners": learners_table},
    "docs/pages/results.md": {
        "classification": classification_tables,
        "curves": curves_tables,
        "processes": processes_table,
        "sequences": sequences_tables,
        "streams": streams_table,
        "optimizers": optimizers_tables,
        "returns": returns_tables,
        "bandits": bandits_table,
        "dynamics": dynamics_tables,
        "searches": searches_table,
        "commands": commands_table,
    },
    "docs/pages/active.md": {"active": active_tables, "requests": requests_table},
    "docs/pages/compression.md": {"compression": compression_tables},
    "docs/pages/generation.md": {
        "imagined": imagined_tables,
        "generators": generators_table,
        "classifiers": classifier_table,
    },
    **POOL_PAGES,
    **TRANSFER_PAGES,
    **TEXT_PAGES,
    **STREAM_PAGES,
    "docs/pages/speed.md": {
        **SPEED_PARTS,
        "policies": control_speed_table,
        "search-speed": search_speed_table,
    },
}


def with_tables(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """The page, with the text between its markers written anew."""
    for name, written in parts.items():
        start, end = f"<!-- {name}: start -->\n", f"<!-- {name}: end -->\n"
        before, rest = page.split(start)
        page = before + start + written() + end + rest.split(end)[1]
    return page


@dataclass(frozen=True)
class Table:
    """Write the tables of the README and the documentation from the result files."""


def main() -> None:
    read_arguments(Table, "python -m experiments.table")
    for page, parts in PARTS.items():
        path = ROOT / page
        files.write_bytes(path, with_tables(path.read_text(), parts).encode())


if __name__ == "__main__":
    sys.exit(guarded(main))

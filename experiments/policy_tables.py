"""Tables of the documentation on policies, written from the result files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cells import interval, linked, published_result, results_of
from experiments.markdown import Row, grid
from jaxmeta import files
from jaxmeta.recipes.results import ci95_over_seeds

RESULTS = Path(__file__).parent / "results"


def returns_tables(folder: Path = RESULTS) -> str:
    """Returns after 0, 1, 2, ... adaptations, a table for each environment."""
    groups: dict[str, list[Row]] = {}
    steps: dict[str, int] = {}
    for path, own in _read(folder):
        if own.get("experiment") == "control" and "environment" in own:
            means, intervals = _curve(own)
            groups.setdefault(own["environment"], []).append(
                [
                    linked(_name(own, path), path),
                    *(f"{mean:.1f} ± {ci95:.1f}" for mean, ci95 in zip(means, intervals)),
                ]
            )
            steps[own["environment"]] = len(means)
    parts = []
    for name, rows in groups.items():
        columns = ["learner", "before", "1 step", *(f"{k} steps" for k in range(2, steps[name]))]
        columns = columns[: 1 + steps[name]]
        by_step = published_result("maml-rl", name)
        if isinstance(by_step, Mapping):
            figures = [by_step.get(k, "–") for k in range(steps[name])]
            rows = [*rows, ["maml-rl, published", *figures]]
        parts.append(f"### {name}\n\n{grid(columns, rows)}")
    return "\n".join(parts)


def bandits_table(folder: Path = RESULTS) -> str:
    """Total rewards of learned policies and of rules on the same bandits."""
    rows = []
    for path, own in _read(folder):
        if own.get("experiment") == "bandits" and "comparison" in own:
            for name, row in own["comparison"].items():
                learned = name == "learned"
                rows.append(
                    [
                        f"{own['arms']}",
                        linked(own["learner"], path) if learned else name,
                        interval(row, "return", ".2f"),
                        "" if learned else interval(row, "learned_minus_this", "+.2f"),
                    ]
                )
    return grid(["arms", "policy", "total reward", "learned − this"], rows)


def dynamics_tables(folder: Path = RESULTS) -> str:
    """Errors of models of unknown dynamics, and returns of planning with them."""
    parts = []
    for path, own in _read(folder):
        if own.get("experiment") == "dynamics":
            models = own.get("control", {}).get("models", {})
            rows = []
            for name in {**own["open_loop"], **models}:
                errors, played = own["open_loop"].get(name), models.get(name)
                rows.append(
                    [
                        name,
                        *(("–", "–") if errors is None else _ends(errors)),
                        "–" if played is None else interval(played, "return", ".0f"),
                        "–" if played is None else interval(played, "gap_closed", ".0f", 100),
                    ]
                )
            last = len(own["open_loop"]["adapted"]["error"])
            columns = ["model", "error, 1 step", f"error, {last} steps", "return", "gap closed (%)"]
            name = f"{own['environment']}, {linked(own['learner'], path)}"
            parts.append(f"#### {name}\n\n{grid(columns, rows)}")
    return "\n".join(parts)


def _ends(errors: Mapping[str, Any]) -> list[str]:
    """The first and the last error."""
    each = zip(errors["error"], errors["error_ci95"])
    shown = [f"{mean:.3g} ± {ci95:.2g}" for mean, ci95 in each]
    return [shown[0], shown[-1]]


def control_speed_table(folder: Path = RESULTS) -> str:
    """Seconds of meta-updates of policies, and steps of the environment per second."""
    rows = []
    for path in sorted(folder.glob("control-speed-*/control.json")):
        for name, row in files.read_json(path)["meta_updates"].items():
            steps = f"{row['environment_steps_per_second']:,.0f}"
            ratio = f"{row['ratio_to_peer']:.1f}" if "ratio_to_peer" in row else "–"
            rows.append([linked(name, path), f"{row['seconds']:.2f}", steps, ratio])
    return grid(["meta-update", "seconds", "environment steps per second", "ratio"], rows)


def _read(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Results and evaluations; those of the same name in the folders of seeds are one."""
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        for name in ("results.json", *sorted(path.name for path in run.glob("evaluation-*.json"))):
            if (run / name).exists():
                yield run / name, files.read_json(run / name)
        seeds = sorted(run.glob("seed_*"))
        for name in sorted({path.name for path in run.glob("seed_*/evaluation-*.json")}):
            each = [files.read_json(seed / name) for seed in seeds]
            yield seeds[0] / name, {**each[0], "runs": each, "seeds": [own["seed"] for own in each]}


def _curve(own: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The mean returns of a run with intervals over tasks, or of several over seeds."""
    if "runs" not in own:
        found = own["after_inner_steps"]
        return np.array(found["return"]), np.array(found["return_ci95"])
    each = np.array([run["after_inner_steps"]["return"] for run in own["runs"]])
    return each.mean(axis=0), ci95_over_seeds(each.std(axis=0, ddof=1), len(each))


def _name(own: Mapping[str, Any], path: Path) -> str:
    run = path.relative_to(results_of(path)).parts[0]
    added = run.removeprefix(f"{own['learner']}-{own['environment']}")
    parts = [own["learner"], added.strip("-").replace("-", " ")]
    if path.name != "results.json":
        parts.append(path.stem.removeprefix("evaluation-").replace("-", " "))
    if "seeds" in own:
        parts.append(f"{len(own['seeds'])} seeds")
    return ", ".join(filter(None, parts))

"""Tables of the documentation on generated examples, written from the result files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.cells import interval, linked, runs_of
from experiments.markdown import Row, grid
from jaxmeta import files
from jaxmeta.commands.compare import compare

RESULTS = Path(__file__).parent / "results"


def imagined_tables(folder: Path = RESULTS) -> str:
    """Accuracies of heads on generated examples, and paired differences to a head without them."""
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path, own in runs_of("features", folder):
        name = f"{own['dataset']}, {own['ways']}-way, features of {own['protocol']['features_of']}"
        found.setdefault(name, []).append((path, own))
    parts = []
    for name, runs in found.items():
        plain = next((path.parent for path, own in runs if not _generated(own)), None)
        rows: list[Row] = []
        for path, own in sorted(runs, key=lambda run: (_generated(run[1]), run[0])):
            cells = [linked(path.parent.name, path), str(_generated(own))]
            for test, row in own.get("tests", {"test": own}).items():
                cells += [interval(row, "accuracy", ".1f", 100), _lead(plain, path.parent, test)]
            rows.append(cells)
        tests = [_shots(test, runs[0][1]) for test in runs[0][1].get("tests", {"test": None})]
        columns = ["run", "generated"]
        columns += [cell for shots in tests for cell in (f"{shots}-shot (%)", "difference")]
        parts.append(f"#### {name}\n\n{grid(columns, rows)}")
    return "\n".join(parts)


def generators_table(folder: Path = RESULTS) -> str:
    """Bounds, Fréchet distances, and distances to the nearest training image."""
    rows: list[Row] = []
    for path, own in runs_of("generate", folder):
        distances, nearest = own["frechet"], own["nearest_training_image"]
        rows.append(
            [
                linked(path.parent.name, path),
                interval(own, "bound", ".1f") if "bound" in own else "–",
                f"{distances['generated']:.2f}",
                f"{distances['other test images']:.2f}",
                f"{distances['the mean image']:.2f}",
                f"{nearest['generated']['median']:.3f}",
                f"{nearest['test']['median']:.3f}",
            ]
        )
    columns = ["run", "bound (nats)", "Fréchet distance", "of test images of the same classes"]
    columns += [
        "of the mean image",
        "distance to nearest training image",
        "that of real test images",
    ]
    return grid(columns, rows)


def classifier_table(folder: Path = RESULTS) -> str:
    """Classifiers of all test classes, with and without generated images."""
    rows: list[list[str]] = []
    for path in sorted(folder.glob("augmented-classifier/*.json")):
        for row in files.read_json(path)["rows"]:
            first = row["method"] == "no augmentation"
            difference = "–" if first else interval(row, "difference", "+.1f", 100)
            accuracy = interval(row, "accuracy", ".1f", 100)
            rows.append([str(row["examples"]), linked(row["method"], path), accuracy, difference])
    rows.sort(key=lambda row: int(row[0]))
    return grid(["images per class", "augmentation", "accuracy (%)", "difference (points)"], rows)


def _generated(own: Mapping[str, Any]) -> int:
    inner = own["protocol"]["inner"]
    return inner["count"] + inner["view_count"]


def _lead(plain: Path | None, run: Path, test: str) -> str:
    """The paired difference to the run without generated examples, in points."""
    if plain is None or plain == run:
        return "–"
    _, differences = compare((plain, run), "accuracy")
    row = next(row for row in differences if row.test == test)
    return f"{100 * row.mean:+.2f} ± {100 * row.ci95:.2f}"


def _shots(test: str, own: Mapping[str, Any]) -> str:
    return str(own["shots"]) if test == "test" else test.removesuffix("-shot")

"""Tables of the documentation on architecture search, written from the result files."""

from pathlib import Path

from experiments.cells import joined, linked
from experiments.markdown import Row, grid
from jaxmeta import files

RESULTS = Path(__file__).parent / "results"


def searches_table(folder: Path = RESULTS) -> str:
    """The accuracy of the best network after so many networks, by space and method."""
    path = folder / "searches" / "results.json"
    found = files.read_json(path)
    parts = []
    for name, space in found["spaces"].items():
        rows: list[Row] = []
        networks: list[int] = []
        for method, own in space["methods"].items():
            networks = own["networks"]
            cells = [
                f"{100 * mean:.2f} ± {100 * ci95:.2f}"
                for mean, ci95 in zip(own["accuracy"], own["accuracy_ci95"])
            ]
            rows.append([method, *cells])
        head = ["method", *(f"{count:,}" for count in networks)]
        title = f"{found['searches']} searches; the best network has {100 * space['best']:.2f} %"
        parts.append(f"#### {linked(name, path)}: {title}\n\n{grid(head, rows)}")
    return "\n".join(parts)


def search_speed_table(folder: Path = RESULTS) -> str:
    """Images per second of the search step of DARTS, and the ratio to PyTorch."""
    rows: list[Row] = []
    for path in sorted(folder.glob("search-speed-*/search-speed.json")):
        for order, own in files.read_json(path)["search_steps"].items():
            speeds = own["images_per_second"]
            cells = [f"{speeds[name]:,.0f}" for name in ("jaxmeta", "torch")]
            rows.append([linked(order, path), *cells, f"{own['ratio_to_torch']:.2f}"])
    head = ["images per second", "jaxmeta", "PyTorch", "ratio"]
    return joined([grid(head, rows)] if rows else [])

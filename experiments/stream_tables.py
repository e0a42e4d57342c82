"""Tables of the documentation on streams with switches, written from the result files."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.cells import interval, linked, runs_of
from experiments.class_stream_tables import class_streams_table, sessions_table
from experiments.markdown import Row, grid

RESULTS = Path(__file__).parent / "results"


def regimes_tables(folder: Path = RESULTS) -> str:
    """The loss of each learner and of the rules on its features, and how it detects switches."""
    losses: dict[str, list[Row]] = {}
    detected: list[Row] = []
    for path, own in runs_of("streams", folder):
        rows = losses.setdefault(own["task"], [])
        rows.append([linked(path.parent.name, path), interval(own, "loss", ".3f")])
        for name, row in own.get("rules", {}).items():
            if name != "learned":
                rows.append([f"{name}, on the features of {own['learner']}", _cell(row)])
        if "delay" in own.get("detection", {}):
            detected.append([linked(path.parent.name, path), *_detection(own)])
    parts = [
        f"#### {task}\n\n{grid(['learner or rule', 'negative log-likelihood'], rows)}"
        for task, rows in losses.items()
    ]
    if detected:
        columns = ["run", "switches detected (%)", "delay", "false alarms in 100", "learned rate"]
        parts.append(f"#### Detection of switches\n\n{grid(columns, detected)}")
    return "\n".join(parts)


def _cell(row: Mapping[str, Any]) -> str:
    return f"{row['loss']:.3f} ({interval(row, 'learned_minus_this', '+.3f')})"


def _detection(own: Mapping[str, Any]) -> list[str]:
    found = own["detection"]
    return [
        interval(found, "detected", ".1f", 100),
        interval(found, "delay", ".2f"),
        interval(found, "false_alarms", ".2f"),
        f"{own['hazard']:.3f}" if "hazard" in own else "–",
    ]


PAGES: dict[str, dict[str, Callable[[], str]]] = {
    "docs/pages/streams.md": {"regimes": regimes_tables},
    "docs/pages/class-streams.md": {
        "class-streams": class_streams_table,
        "sessions": sessions_table,
    },
}

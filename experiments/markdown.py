"""Tables in Markdown."""

from collections.abc import Iterable

Row = Iterable[str]


def grid(columns: Row, rows: Iterable[Row]) -> str:
    """A table with these column heads and rows."""
    columns = list(columns)
    lines = [_line(columns), "|---" * len(columns) + "|", *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"

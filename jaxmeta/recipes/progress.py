"""The progress of a run on the terminal."""

import contextlib
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from jaxmeta.training.loop import Report


class Progress:
    """A progress bar with loss, accuracy, tasks per second and time left, on standard error."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=quiet)

    def say(self, line: str) -> None:
        """Print one plain line, above the bar if there is one."""
        with contextlib.suppress(OSError):  # the terminal was closed; training continues
            self.console.print(line, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def training(self, name: str, steps: int) -> Iterator[Report]:
        """Show the bar of one training; yields a function to report a step and its scalars."""
        bar = Bar(
            BarColumn(bar_width=None),  # the rest of the line: 13 of 80 columns
            MofNCompleteColumn(),
            TextColumn("{task.fields[scalars]}"),
            TimeRemainingColumn(),
            console=self.console,
            expand=True,
        )
        with bar:
            task = bar.add_task(name, total=steps, scalars="compiling")

            def report(step: int, scalars: Mapping[str, float]) -> None:
                seen.update(scalars)
                with contextlib.suppress(OSError):
                    bar.update(task, completed=step, scalars=_summary(seen))
                if "validation_loss" in scalars and not self.console.is_terminal:
                    # A log file gets one line per validation instead of a bar.
                    self.say(f"step {step}/{steps}  {_summary(seen)}")

            seen: dict[str, float] = {}
            yield report


def _summary(scalars: Mapping[str, float]) -> str:
    """A summary such as `loss 0.123  acc 95.1%  val 93.0%  285 tasks/s`."""
    parts = []
    if "train_loss" in scalars:
        parts.append(f"loss {scalars['train_loss']:.3f}")
    if "train_accuracy" in scalars:
        parts.append(f"acc {scalars['train_accuracy']:.1%}")
    if "validation_accuracy" in scalars:
        parts.append(f"val {scalars['validation_accuracy']:.1%}")
    elif "validation_loss" in scalars:
        parts.append(f"val {scalars['validation_loss']:.3f}")
    if "tasks_per_second" in scalars:
        parts.append(f"{scalars['tasks_per_second']:,.0f} tasks/s")
    return "  ".join(parts)

"""What a person sees while a run goes on."""

import contextlib
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from jaxmeta.training.config import AnyExperiment
from jaxmeta.training.loop import Report


class Progress:
    """A bar with the live loss, accuracy, tasks per second and time left, on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """One plain line, above the bar if there is one."""
        self.console.print(line, soft_wrap=True, markup=False)

    @contextlib.contextmanager
    def training(self, config: AnyExperiment) -> Iterator[Report]:
        """The bar of one training; what it yields takes the step and its scalars."""
        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[scalars]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        with bar:
            task = bar.add_task(config.learner.name, total=config.steps, scalars="compiling")

            def report(step: int, scalars: Mapping[str, float]) -> None:
                seen.update(scalars)
                bar.update(task, completed=step, scalars=_summary(seen))
                if "validation_loss" in scalars and not self.console.is_terminal:
                    # A log file gets a line a validation instead of a bar.
                    self.say(f"step {step}/{config.steps}  {_summary(seen)}")

            seen: dict[str, float] = {}
            yield report


def _summary(scalars: Mapping[str, float]) -> str:
    parts = []
    for name, label in (
        ("train_loss", "loss"),
        ("train_accuracy", "accuracy"),
        ("validation_loss", "validation loss"),
        ("validation_accuracy", "validation accuracy"),
    ):
        if name in scalars and not (name == "validation_loss" and "train_accuracy" in scalars):
            value = scalars[name]
            parts.append(f"{label} {value:.1%}" if "accuracy" in name else f"{label} {value:.3f}")
    if "tasks_per_second" in scalars:
        parts.append(f"{scalars['tasks_per_second']:,.0f} tasks/s")
    return "  ".join(parts)

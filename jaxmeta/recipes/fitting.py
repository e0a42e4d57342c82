"""What is too large for the machine is refused, with the settings that made it so."""

import contextlib
import re
from collections.abc import Iterator

import jax

from jaxmeta.recipes import settings
from jaxmeta.recipes.base import Experiment, Training
from jaxmeta.recipes.tasks import Problem
from jaxmeta.training.memory import TooLarge, check_fits
from jaxmeta.training.state import Trained


def check_training(training: Training, trained: Trained, problem: Problem) -> None:
    """Refuse what can't fit: parameters, their gradient, the optimizer's state, a task batch."""
    params = trained.meta_params
    state = jax.eval_shape(training.optimizer().init, params)
    tasks = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((training.task_batch, *leaf.shape), leaf.dtype),
        problem.example,
    )
    check_fits("parameters, optimizer and tasks", trained, params, state, tasks)


@contextlib.contextmanager
def naming_settings(experiment: Experiment) -> Iterator[None]:
    """What is too large is told with the settings that made it so."""
    try:
        yield
    except (TooLarge, OverflowError, MemoryError) as error:
        # Not even a shape can be made of the larger ones: their numbers stand in the message.
        shape = getattr(error, "shape", ())
        sizes = {size for size in shape if size >= 1000} | _long_numbers(str(error))
        found = [
            settings.option(name, value)
            for name, value in settings.values(experiment).items()
            if sizes & {*(value if isinstance(value, tuple) else (value,))}
        ]
        remedy = f"give less than {' and '.join(found)}" if found else "give smaller settings"
        raise ValueError(f"{str(error).removesuffix('.')}; {remedy}.") from error


def _long_numbers(text: str) -> set[int]:
    return {int(digits) for digits in re.findall(r"\d{6,}", text)}

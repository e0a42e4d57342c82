"""Errors for experiments that exceed the machine's memory, with the settings to reduce."""

import contextlib
import re
from collections.abc import Iterator

import jax

from jaxmeta.recipes import settings
from jaxmeta.recipes.base import Training
from jaxmeta.recipes.experiment import Experiment
from jaxmeta.recipes.tasks import Problem
from jaxmeta.training.memory import TooLarge, check_fits
from jaxmeta.training.state import Trained


def check_training(training: Training, trained: Trained, problem: Problem) -> None:
    """Raise where parameters, gradient, optimizer state and task batch exceed the memory."""
    params = trained.meta_params
    state = jax.eval_shape(training.optimizer().init, params)
    tasks = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((training.task_batch, *leaf.shape), leaf.dtype),
        problem.example,
    )
    check_fits("parameters, optimizer and tasks", trained, params, state, tasks)


@contextlib.contextmanager
def naming_settings(experiment: Experiment) -> Iterator[None]:
    """Add to an error about memory the settings whose values cause it."""
    try:
        yield
    except (TooLarge, OverflowError, MemoryError) as error:
        # The largest numbers can't even form a shape; they appear in the message only.
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

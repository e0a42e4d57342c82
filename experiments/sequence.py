"""Train a network with a memory on sequences: `python -m experiments.sequence --help`.

    python -m experiments.sequence ntm --task copy
    python -m experiments.sequence dnc --task repeat-copy
    python -m experiments.sequence mann --task labels      # of Omniglot, shifted by a step

Training draws the lengths of its sequences from a range; the test has fixed ones, longer ones too.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np
import tyro

from experiments.command_line import guarded, read_arguments
from experiments.folders import fields_of, prepare_settings, run_folder
from experiments.progress import Progress
from experiments.run import circumstances, plain, run_keys, train_in
from jaxmeta import files, plots
from jaxmeta.core import Objective, PyTree, Task, binary_cross_entropy
from jaxmeta.data import Dataset, load, sequences
from jaxmeta.data._label_stream import CHARACTERS, LabelKind, accuracy_by_instance, label_stream
from jaxmeta.learners.memory import (
    Machine,
    as_model,
    dnc,
    lstm_machine,
    mann,
    ntm,
    run,
    sequence_learner,
)
from jaxmeta.training import build, checkpoints, evaluation
from jaxmeta.training import config as configs
from jaxmeta.training.config import Experiment
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.parallel import mesh_for, on_first_process
from jaxmeta.training.state import Sample

Lengths = tuple[int, int]


@dataclass(frozen=True)
class Sequences(Experiment):
    """Train a network with a memory on sequences, evaluate it on longer ones."""

    experiment: ClassVar[str] = "sequence"
    of_test: ClassVar[tuple[str, ...]] = ("test_lengths",)
    learner: tyro.conf.Positional[Literal["ntm", "dnc", "mann", "lstm"]] = "ntm"
    """Neural Turing machine, differentiable neural computer, memory-augmented network, or an LSTM
    without another memory."""
    task: Literal["copy", "repeat-copy", "associative-recall", "priority-sort", "labels"] = "copy"
    """What to do with a sequence; labels: name images, told the label of the one before."""
    steps: int = 10_000
    """Updates."""
    task_batch: int = 16
    """Sequences of an update."""
    clip: float | None = 10.0
    """Clip each entry of the gradient to ± this; None: not at all."""
    bits: int | None = None
    """Of each vector; None: as published, 6 for associative-recall, else 8."""
    lengths: Lengths | None = None
    """Least and most vectors of a training sequence, items of associative-recall, vectors kept and
    shown of priority-sort; None: as published."""
    repeats: Lengths = (1, 10)
    """Least and most repeats of repeat-copy in training; the most at test."""
    test_lengths: tuple[int, ...] | None = None
    """Lengths at test; None: 20, 40, 80, 120 for copy, else the longest of training. A run that is
    done is tested at others by --resume."""
    dataset: str = "omniglot"
    """Of labels: as in `experiments.few_shot`."""
    image_size: int = 20
    """Of labels: side of the images in pixels."""
    ways: int = 5
    """Of labels: classes of a stream."""
    instances: int = 10
    """Of labels: images of each class."""
    labels: LabelKind = "one-hot"
    """Of labels: how a class is told, one-hot or as a string of five letters."""
    distortions: bool = False
    """Of labels: distort the images of training at random, by affine maps."""
    slots: int | None = None
    """Rows of the memory; None: the learner's own, as of all below."""
    slot_width: int | None = None
    """Numbers of a row."""
    width: int | None = None
    """Numbers of the controller's hidden state; of lstm, of each layer."""
    read_heads: int | None = None
    """Heads that read."""
    controller: Literal["lstm", "feedforward"] | None = None
    """Of ntm: what moves the heads."""
    strength: float | None = None
    """Of mann: learned sharpness of its reads, at first; None: not learned, 1, as published."""
    layers: int | None = None
    """Of lstm: how many lie on top of each other."""
    out: Path | None = None
    """Run folder; None: under runs/, named after the run: a new one, with --resume the newest."""
    resume: bool = False
    """Go on from the newest checkpoint of the run folder."""
    overwrite: bool = False
    """Delete the run that the folder holds and start anew."""


_LENGTHS: dict[str, Lengths] = {
    "copy": (1, 20),
    "repeat-copy": (1, 10),
    "associative-recall": (2, 6),
    "priority-sort": (16, 20),
}


_OF_TASK = {
    "repeats": ("repeat-copy",),
    **dict.fromkeys(("bits", "lengths", "test_lengths"), tuple(_LENGTHS)),
    **dict.fromkeys(
        ("dataset", "image_size", "ways", "instances", "labels", "distortions"), ("labels",)
    ),
}


def bits_of(settings: Sequences) -> int:
    """Of each vector, as published where no other number is given."""
    if settings.bits is not None:
        return settings.bits
    return 6 if settings.task == "associative-recall" else 8


def machine_of(settings: Sequences, outputs: int) -> Machine:
    """The learner with the sizes that are given.

    Raises:
      ValueError: a size that this learner does not have.
    """
    machines = {"ntm": ntm, "dnc": dnc, "mann": mann, "lstm": partial(lstm_machine, width=256)}
    make: Callable[..., Machine] = machines[settings.learner]
    sizes = ("slots", "slot_width", "width", "read_heads", "controller", "strength", "layers")
    given = {name: getattr(settings, name) for name in sizes if getattr(settings, name) is not None}
    for name in given.keys() - inspect.signature(make).parameters.keys():
        raise ValueError(f"--{name.replace('_', '-')} {given[name]}: {settings.learner} has none.")
    return make(outputs=outputs, **given)


def lengths_of(settings: Sequences) -> tuple[Lengths, tuple[int, ...]]:
    """Of training, from and to, and of the tests."""
    if settings.task == "labels":
        return (settings.instances, settings.instances), (settings.instances,)
    trained = settings.lengths or _LENGTHS[settings.task]
    further = (20, 40, 80, 120) if settings.task == "copy" else (trained[1],)
    return trained, settings.test_lengths or further


def sampler_of(settings: Sequences, dataset: Dataset | None, part: str, lengths: Lengths) -> Sample:
    """The sequences of training, validation or test, with lengths in this range."""
    bits = bits_of(settings)
    match settings.task:
        case "copy":
            return sequences.copy(bits=bits, lengths=lengths)
        case "repeat-copy":
            most = settings.repeats[1]
            repeats = (most, most) if part == "test" else settings.repeats
            return sequences.repeat_copy(
                bits=bits, lengths=lengths, repeats=repeats, scaled_to=settings.repeats
            )
        case "associative-recall":
            return sequences.associative_recall(bits=bits, lengths=lengths)
        case "priority-sort":
            trained = settings.lengths or _LENGTHS["priority-sort"]
            return sequences.priority_sort(bits=bits, kept=trained[0], count=lengths[1])
        case "labels":
            assert dataset is not None
            classes = getattr(dataset, part)
            return label_stream(
                classes,
                ways=settings.ways,
                instances=settings.instances,
                labels=settings.labels,
                distortions=settings.distortions and part == "train",
            )


def objective_of(settings: Sequences) -> Objective:
    """Cross-entropy of bits, or of labels with the accuracy by instance."""
    if settings.task != "labels":
        return binary_cross_entropy
    return accuracy_by_instance(tuple(range(1, settings.instances + 1)))


def run_sequences(settings: Sequences, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train, evaluate at each test length, draw, write `results.json`; return it.

    Raises:
      ValueError, OSError: with one plain line for the command line to show.
    """
    configs.check(settings)
    configs.check_foreign(settings, settings.task, _OF_TASK)
    settings = dataclasses.replace(settings, bits=bits_of(settings))
    fields = fields_of(settings)
    dataset = None
    if settings.task == "labels":
        dataset = load(
            settings.dataset,
            image_size=settings.image_size,
            rotations="as-classes",
            seed=settings.seed,
        )
        fields["images_sha256"] = dataset.protocol["images_sha256"]
    trained, tested = lengths_of(settings)
    train_sample = sampler_of(settings, dataset, "train", trained)
    held_out = sampler_of(settings, dataset, "validation", trained)
    tests = {length: sampler_of(settings, dataset, "test", (length, length)) for length in tested}
    train_key, validation_key, test_key = run_keys(settings.seed)
    outputs = CHARACTERS**2 if settings.labels == "strings" else settings.ways
    if dataset is None:
        outputs = jax.eval_shape(train_sample, train_key).query.targets.shape[-1]
    machine = machine_of(settings, outputs)
    learner = sequence_learner(as_model(machine), objective_of(settings))
    mesh = mesh_for(settings.task_batch, tasks_at_once=settings.tasks_at_once)
    update = build.update_for(learner, settings, mesh, at_once=settings.tasks_at_once)
    on_first_process(lambda: prepare_settings(settings, folder, fields))
    everywhere = mesh_for(jax.device_count())
    evaluator = partial(evaluation, learner, tasks_at_once=25, mesh=everywhere)
    validate = evaluator(settings.validation_tasks)
    outcome = train_in(
        folder,
        settings,
        update,
        train_sample,
        train_key,
        lambda params: validate(params, held_out, validation_key),
        name=f"{settings.learner} · {settings.task}",
        mesh=mesh,
        resume=settings.resume,
        progress=progress,
    )
    by_length = {}
    for length, sample in tests.items():
        progress.say(f"evaluating on {_named(settings.task, length)}.")
        estimates = evaluator(settings.eval_tasks)(outcome.best.meta_params, sample, test_key)
        by_length[str(length)] = plain(estimates)
    results = {
        "learner": settings.learner,
        "task": settings.task,
        "settings": fields,
        "protocol": {
            "trained_lengths": trained,
            **({"test_repeats": settings.repeats[1]} if settings.task == "repeat-copy" else {}),
            "selected_on": f"validation, {settings.validation_tasks} sequences every "
            f"{settings.checkpoint_every} steps",
            **({} if dataset is None else dataset.protocol),
        },
        "by_length": by_length,
        "num_tasks": settings.eval_tasks,
        "seed": settings.seed,
        "steps": settings.steps,
        "best_step": outcome.best_step,
        "wall_seconds": round(outcome.wall_seconds, 1),
        "tasks_per_second": round(outcome.tasks_per_second, 1),
        **circumstances(mesh),
        "parameters_sha256": checkpoints.parameters_sha256(outcome.state.meta_params),
        "evaluated_parameters_sha256": checkpoints.parameters_sha256(outcome.best.meta_params),
        "resumed_from_step": outcome.resumed_from_step,
    }

    def keep() -> None:
        files.write_json(folder / "results.json", results)
        title = f"{settings.learner} · {settings.task}"
        plots.learning_curve(folder / "learning_curve.png", read_metrics(folder), title=title)
        for length, sample in tests.items():
            _draw(
                folder / f"sequence-{length}.png",
                settings,
                machine,
                outcome.best.meta_params,
                jax.jit(sample)(test_key),
                f"{settings.learner} · {_named(settings.task, length)}",
            )

    on_first_process(keep)
    return results


def _draw(
    path: Path, settings: Sequences, machine: Machine, params: PyTree, task: Task, title: str
) -> None:
    _, outputs, seen = jax.jit(partial(run, machine))(params, task.query.inputs)
    inputs, targets, mask = jax.device_get(task.query)
    if settings.task == "labels":
        letters = targets.reshape(len(targets), -1)  # of a one-hot label, one
        logits = outputs.reshape(*letters.shape, -1)
        probabilities = jax.nn.softmax(logits).reshape(outputs.shape)
        targets = np.eye(logits.shape[2])[letters].reshape(outputs.shape)
        mask = np.ones(len(targets), bool)
        inputs = inputs[:, -outputs.shape[1] :]  # labels before; the pixels say little in a row
    else:
        probabilities = jax.nn.sigmoid(outputs)
    weights = {name: np.asarray(values) for name, values in seen.items()}
    plots.sequence_episode(
        path, inputs, targets, np.asarray(probabilities), mask, weights, title=title
    )


def _named(task: str, length: Any) -> str:
    """The task at a length, in words."""
    size = f"{length} instances of each class" if task == "labels" else f"length {length}"
    return f"{task} of {size}"


def lines_of(results: dict[str, Any]) -> list[str]:
    """The results as lines of text."""
    lines = []
    for length, row in results["by_length"].items():
        head = f"{results['learner']} · {_named(results['task'], length)}"
        if "accuracy" in row:
            instances = sorted(
                int(number) for name in row if (number := name.removeprefix("accuracy_")).isdigit()
            )
            shown = ", ".join(f"{n}: {100 * row[f'accuracy_{n}']:.1f} %" for n in instances)
            lines.append(f"{head} · accuracy at instance {shown}")
        else:
            lines.append(
                f"{head} · {row['bits']:.3g} ± {row['bits_ci95']:.2g} bits a sequence, "
                f"{100 * row['bit_error']:.2g} % of the bits wrong"
            )
    return lines


def main(settings: Sequences) -> None:
    name = f"{settings.learner}-{settings.task}"
    folder = settings.out or run_folder(name, settings.resume)
    print("\n".join(lines_of(run_sequences(settings, folder, Progress()))))
    print(f"results and pictures: {folder}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(read_arguments(Sequences, "sequence"))))

"""Sequences for networks with a memory: `python -m experiments.sequence [LEARNER]`.

Training draws sequence lengths from a range. Each test has a fixed length, which may be longer.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Batch, Model, Task, binary_cross_entropy
from jaxmeta.data import Dataset, label_stream, load, sequences
from jaxmeta.data._label_stream import CHARACTERS, LabelKind, accuracy_by_instance
from jaxmeta.data.images.dataset import classes_of, unseen
from jaxmeta.data.tables import read_numbers
from jaxmeta.learners.memory import run
from jaxmeta.recipes import (
    ACCURACY,
    LOSS,
    Domain,
    Figure,
    HeldOut,
    Needs,
    Preset,
    Problem,
    Report,
    Tasks,
    Training,
    UserTask,
    domain,
)
from jaxmeta.recipes.images import data_identity
from jaxmeta.recipes.settings import AT_TEST, PLACE, AtLeastTwo, Count, check_chosen, option
from jaxmeta.training.update import Sample

Lengths = tuple[int, int]

_LENGTHS: dict[str, Lengths] = {
    "copy": (1, 20),
    "repeat-copy": (1, 10),
    "associative-recall": (2, 6),
    "priority-sort": (16, 20),
}


@dataclass(frozen=True)
class Vectors:
    """Sequences of random bits."""

    bits: Count | None = None
    """Bits per vector. Defaults to the published values, 6 for associative-recall, else 8."""
    lengths: Lengths | None = None
    """Smallest and largest number of vectors in training, or of items for associative-recall.
    For priority-sort, the numbers kept and shown. Defaults to the published values."""
    repeats: Lengths = (1, 10)
    """Smallest and largest number of repeats in training, for repeat-copy; the largest at test."""
    test_lengths: Annotated[tuple[int, ...] | None, AT_TEST] = None
    """Lengths at test. Defaults to 20, 40, 80, 120 for copy, else to the longest in training."""


@dataclass(frozen=True)
class Labels:
    """Streams of images, where each image comes with the label of the previous one."""

    dataset: Annotated[str, PLACE] = "omniglot"
    """As in `experiments.few_shot`."""
    image_size: Count = 20
    """Side of the images in pixels."""
    ways: AtLeastTwo = 5
    """Classes per stream."""
    instances: AtLeastTwo = 10
    """Images per class."""
    labels: LabelKind = "one-hot"
    """Encoding of the labels: one-hot, or as strings of five letters."""
    distortions: bool = False
    """Distort the training images by random affine maps."""


@domain("sequence", kind="sequence")
@dataclass(frozen=True)
class Sequence(Domain):
    """Train a network with a memory on sequences and evaluate it on longer ones."""

    task: Literal["copy", "repeat-copy", "associative-recall", "priority-sort", "labels"] = "copy"
    """Operation on the sequence; labels: classify images, given the label of the previous one."""
    vectors: Vectors = field(default_factory=Vectors)
    stream: Labels = field(default_factory=Labels)

    default_learner: ClassVar[str] = "ntm"
    presets: ClassVar[tuple[Preset, ...]] = (
        Preset("default", {"steps": 10_000, "task_batch": 16, "clip": 10.0}),
    )

    def check(self) -> None:
        """Check that no options of another task are given."""
        others = " or ".join(_LENGTHS) if self.task == "labels" else self.task
        check_chosen(self, self.task, {"labels": "stream", others: "vectors"})
        repeats = self.vectors.repeats
        if self.task != "repeat-copy" and repeats != Vectors().repeats:
            raise ValueError(f"{option('repeats', repeats)} applies only to --task repeat-copy.")

    def resolved(self) -> "Sequence":
        own = self.vectors
        if self.task == "labels":
            return self
        lengths = own.lengths or _LENGTHS[self.task]
        further = (20, 40, 80, 120) if self.task == "copy" else (lengths[1],)
        vectors = dataclasses.replace(
            own,
            bits=own.bits or (6 if self.task == "associative-recall" else 8),
            lengths=lengths,
            test_lengths=own.test_lengths or further,
        )
        return dataclasses.replace(self, vectors=vectors)

    def label(self) -> str:
        return self.task

    def _sample(self, dataset: Dataset | None, part: str, lengths: Lengths) -> Sample:
        """The sequences of training, validation or test, with lengths in this range."""
        own, bits = self.vectors, self.vectors.bits or 8
        if dataset is not None:
            stream = self.stream
            return label_stream(
                getattr(dataset, part),
                ways=stream.ways,
                instances=stream.instances,
                labels=stream.labels,
                distortions=stream.distortions and part == "train",
            )
        if self.task == "copy":
            return sequences.copy(bits=bits, lengths=lengths)
        if self.task == "repeat-copy":
            most = own.repeats[1]
            repeats = (most, most) if part == "test" else own.repeats
            return sequences.repeat_copy(
                bits=bits, lengths=lengths, repeats=repeats, scaled_to=own.repeats
            )
        if self.task == "associative-recall":
            return sequences.associative_recall(bits=bits, lengths=lengths)
        assert own.lengths is not None
        return sequences.priority_sort(bits=bits, kept=own.lengths[0], count=lengths[1])

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        stream, objective, outputs = self.stream, binary_cross_entropy, 0
        if self.task == "labels":
            told = CHARACTERS**2 if stream.labels == "strings" else stream.ways
            steps, pixels = stream.ways * stream.instances, int(np.prod(data["image_shape"]))
            inputs, objective = (
                jnp.zeros((steps, pixels + told)),
                accuracy_by_instance(tuple(range(1, stream.instances + 1))),
            )
            targets = (steps, CHARACTERS) if stream.labels == "strings" else (steps,)
            query, outputs = Batch(inputs, jnp.zeros(targets, jnp.int32)), told
        else:
            resolved = self.resolved()
            assert resolved.vectors.lengths is not None
            sample = resolved._sample(None, "train", resolved.vectors.lengths)
            shapes = jax.eval_shape(sample, jax.random.key(0))
            query = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.query)
            outputs = query.targets.shape[-1]

        def no_network(constants: Any, outputs: int | None) -> Model:
            raise ValueError("sequences require a machine with a memory, not a network.")

        return Problem(
            kind="sequence",
            train=train,
            example=Task((), query),
            objective=objective,
            network=no_network,
            outputs=outputs,
            steps=training.steps,
            data=data,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        dataset, own, data = None, self.vectors, {}
        if needs.requests and (self.task != "labels" or self.stream.labels != "one-hot"):
            raise ValueError(
                f"{option('task', self.task)} {option('labels', self.stream.labels)}: this learner "
                "asks for labels; give --task labels --labels one-hot."
            )
        if self.task == "labels":
            found = load(
                self.stream.dataset,
                image_size=self.stream.image_size,
                rotations="as-classes",
                seed=training.seed,
            )
            dataset = unseen(found, needs.seen)
            data = data_identity(dataset)
            count = self.stream.instances
            trained, tested = (count, count), (count,)
            group = dataclasses.asdict(self.stream)
        else:
            assert own.lengths is not None and own.test_lengths is not None
            trained, tested = own.lengths, own.test_lengths
            group = dataclasses.asdict(dataclasses.replace(own, test_lengths=None))

        def held_out(part: str, lengths: Lengths) -> HeldOut:
            identity = {**data, **group, "task": self.task, "part": part, "lengths": lengths}
            return HeldOut(self._sample(dataset, part, lengths), identity, at_once=25)

        return Tasks(
            train=lambda: self._sample(dataset, "train", trained),
            validation=lambda: held_out("validation", trained),
            tests={self._named(length): held_out("test", (length, length)) for length in tested},
            figures=(ACCURACY if dataset is not None else Figure("bits", "bits a sequence"), LOSS),
            selection=LOSS if dataset is None or needs.requests else ACCURACY,
            title=self.task,
            summary={"task": self.task},
            protocol={
                "trained_lengths": trained,
                **({"test_repeats": own.repeats[1]} if self.task == "repeat-copy" else {}),
                **group,
                **({"test_lengths": tested} if dataset is None else dataset.protocol),
            },
            data=data,
            classes=None if dataset is None else partial(classes_of, dataset),
            draw=self._draw,
            extra_lines=self._lines,
        )

    def _named(self, length: int) -> str:
        if self.task == "labels":
            return f"{length} instances of each class"
        return f"length {length}"

    def _lines(self, results: Mapping[str, Any]) -> list[str]:
        """The bit error at every length, or the accuracy at every instance of a class."""
        if self.task == "labels":
            found = {}
            for metric in ("accuracy", "right", "requests"):
                found[metric] = [
                    f"{number}: {100 * results[name]:.1f} %"
                    for number in range(1, self.stream.instances + 1)
                    if (name := f"{metric}_{number}") in results
                ]
            lines = [
                f"{metric} at instance {', '.join(own)}" for metric, own in found.items() if own
            ]
            if "requests" in results:
                lines.append(f"labels asked for: {100 * results['requests']:.1f} %")
            return lines
        rows = results.get("tests") or {next(iter(self._tested())): results}
        wrong = [f"{name}: {100 * row['bit_error']:.2g} %" for name, row in rows.items()]
        return [f"bit error at {', '.join(wrong)}"]

    def _tested(self) -> list[str]:
        return [self._named(length) for length in self.vectors.test_lengths or ()]

    def _draw(self, made: Report) -> None:
        """Draw a sequence of every test: the outputs, and the reads and writes of the memory."""
        from jaxmeta import plots

        if not hasattr(made.recipe, "machine"):
            return  # no memory to draw
        for name, test in made.tests.items():
            task = jax.jit(test.source)(made.key)  # pyright: ignore[reportArgumentType, reportCallIssue]
            number = next(word for word in name.split() if word.isdigit())
            machine = made.recipe.machine(test.problem)
            _, outputs, seen = jax.jit(partial(run, machine))(
                made.trained.meta_params, task.query.inputs
            )
            inputs, targets, mask = jax.device_get(task.query)
            if self.task == "labels":
                letters = targets.reshape(len(targets), -1)  # a single one for a one-hot label
                logits = outputs.reshape(*letters.shape, -1)
                probabilities = jax.nn.softmax(logits).reshape(outputs.shape)
                targets = np.eye(logits.shape[2])[letters].reshape(outputs.shape)
                mask = np.ones(len(targets), bool)
                inputs = inputs[:, -outputs.shape[1] :]  # the previous labels, without the pixels
            else:
                probabilities = jax.nn.sigmoid(outputs)
            plots.sequence_episode(
                made.folder / f"sequence-{number}.png",
                inputs,
                targets,
                np.asarray(probabilities),
                mask,
                {name: np.asarray(values) for name, values in seen.items()},
                title=f"{made.title} · {name}",
            )

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read the inputs from a table of numbers (CSV), one row per step. There is no support."""
        inputs = read_numbers(query)
        rows = [f"step {number}" for number in range(len(inputs))]
        return UserTask(support=(), inputs=inputs, rows=rows, names=[])  # pyright: ignore[reportArgumentType]

"""Settings of few-shot tasks of images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from jaxmeta.data import Dataset
from jaxmeta.data._episodes import Rotations, turned_classes
from jaxmeta.data.groups import group_sizes
from jaxmeta.files import shown
from jaxmeta.recipes.settings import AT_TEST, AtLeastTwo, Count, Natural, Positive

WithinGroups = Literal["none", "training", "test", "both"]


@dataclass(frozen=True)
class Episode:
    """The tasks (episodes)."""

    ways: Annotated[AtLeastTwo, AT_TEST] = 5
    """Classes per test task."""
    shots: Annotated[Count, AT_TEST] = 1
    """Support examples per class of a test task."""
    queries: Annotated[Count, AT_TEST] = 15
    """Query examples per class of a test task."""
    sessions: Annotated[Count, AT_TEST] = 1
    """Sessions of a test task, with equally many of the classes each: after a session, all classes
    so far are told apart."""
    train_ways: AtLeastTwo | None = None
    """Classes per training task. Defaults to the test value, unless a preset sets it.
    If the data set has fewer, learners that can be tested with other ways use all of them."""
    train_shots: Count | None = None
    """Support examples per class of a training task. Defaults to the test value, unless a preset
    sets it."""
    train_queries: Count | None = None
    """Query examples per class of a training task. Defaults to the test value, unless a preset sets
    it."""
    rotations: Rotations = "none"
    """Rotations by 0, 90, 180, 270 degrees: none, drawn per task, or as additional classes."""
    test_rotations: Annotated[Literal["same", "none", "per-task", "as-classes"], AT_TEST] = "same"
    """Rotations of validation and test tasks. same: those of training tasks."""
    within_groups: Annotated[WithinGroups, AT_TEST] = "none"
    """Draw all classes of a task from one group, such as an alphabet, with equal probabilities:
    for no tasks, for training tasks, for validation and test tasks, or for both."""
    unlabelled: Natural = 0
    """Unlabelled support examples per class."""
    distractors: Natural = 0
    """Number of additional classes whose support examples are all unlabelled."""
    distortions: bool = False
    """Distort the images of training tasks by random affine maps."""
    hard_tasks: bool = False
    """Draw every second training batch from the classes with most errors in the batch before."""
    shuffle_labels: Annotated[bool, AT_TEST] = False
    """A control: shuffle the labels of every task, so that accuracy is at chance."""
    pipeline: Literal["auto", "device", "stream"] = "auto"
    """Keep the images on the device, or stream tasks from the host. auto: device if they fit."""
    device_budget: Positive = 2.0
    """Device memory for images, in GiB, with --pipeline auto."""

    def check(self) -> None:
        if self.ways % self.sessions or (self.sessions > 1 and self.unlabelled):
            raise ValueError(
                f"--sessions {self.sessions} of --ways {self.ways}: give a divisor, and "
                "no --unlabelled."
            )
        if self.distractors and not self.unlabelled:
            raise ValueError(
                f"--distractors {self.distractors} require --unlabelled of at least 1."
            )
        if self.hard_tasks and (self.unlabelled or self.distortions):
            raise ValueError("--hard-tasks cannot be combined with --unlabelled or --distortions.")
        if self.hard_tasks and self.within("train"):
            raise ValueError(
                f"--hard-tasks cannot be combined with --within-groups {self.within_groups}; give "
                "test or none."
            )
        if self.shuffle_labels and self.unlabelled:
            raise ValueError("--shuffle-labels cannot be combined with --unlabelled.")
        if self.pipeline == "stream" and (self.hard_tasks or self.distortions):
            raise ValueError("--hard-tasks and --distortions require --pipeline device.")

    def sizes(self, train: bool) -> dict[str, int]:
        """Ways, shots and queries of a training or a test task."""
        sizes = {"ways": self.ways, "shots": self.shots, "queries": self.queries}
        if train:
            own = {name: getattr(self, f"train_{name}") for name in sizes}
            sizes |= {name: value for name, value in own.items() if value is not None}
        return sizes

    def rotations_of(self, part: str) -> Rotations:
        """The rotations of the tasks of `train`, `validation` or `test`."""
        if part == "train" or self.test_rotations == "same":
            return self.rotations
        return self.test_rotations

    def within(self, part: str) -> bool:
        """Whether all classes of a task of this part are of one group."""
        return self.within_groups in ("both", "training" if part == "train" else "test")

    def groups(self, dataset: Dataset, part: str) -> Mapping[str, str] | None:
        """The group of each class, if the tasks of this part are drawn within groups.

        Raises:
          ValueError: they are, but the data set has no groups.
        """
        if not self.within(part):
            return None
        if dataset.groups is None:
            raise ValueError(
                f"--within-groups {self.within_groups}: the classes of {shown(dataset.name)} have "
                "no groups; give --within-groups none, or a --dataset with groups, such as glyphs."
            )
        return dataset.groups

    def described_groups(self, dataset: Dataset, ways: Mapping[str, int]) -> dict[str, Any]:
        """The protocol of tasks within groups: how many groups of each part are drawn from.

        Args:
          dataset: the images.
          ways: the classes that are drawn for a task of each part, distractors included.
        """
        found = {}
        for part, classes in dataset.parts.items():
            # A set without groups may be evaluated by a run that was trained within groups.
            if self.within(part) and dataset.groups is not None:
                turns = turned_classes(self.rotations_of(part))
                sizes = group_sizes(classes, dataset.groups, turns).values()
                large = sum(size >= ways[part] for size in sizes)
                found[part] = {"drawn": large, "too_small": len(sizes) - large}
        return {"group_probabilities": "equal", "groups": found} if found else {}

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """The changes of an evaluation, which leave the training tasks as they were.

        Raises:
          ValueError: `within_groups` names training tasks that were not drawn within groups.
        """
        if "within_groups" not in changes:
            return changes
        wanted, trained = changes["within_groups"], self.within("train")
        if wanted in ("training", "both") and not trained:
            raise ValueError(
                f"--within-groups {wanted}: the training tasks of this run were not drawn within "
                "groups, and an evaluation only changes the test tasks; give test or none."
            )
        names = ("training", "both") if trained else ("none", "test")
        return {**changes, "within_groups": names[wanted in ("test", "both")]}

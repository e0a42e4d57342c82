"""Few-shot classification of images: `python -m experiments.few_shot [LEARNER]`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core import Batch, Task, cross_entropy
from jaxmeta.data import Dataset, episodes, numbered
from jaxmeta.data._episodes import turned_classes
from jaxmeta.data.images.dataset import PARTS, classes_of
from jaxmeta.data.stream import task_stream
from jaxmeta.data.transformed import distorted, in_random_order, with_unlabelled
from jaxmeta.recipes import (
    ACCURACY,
    Domain,
    HeldOut,
    Needs,
    Preset,
    Problem,
    Report,
    Tasks,
    Training,
    UserTask,
    domain,
    presets,
)
from jaxmeta.recipes.cells import cell_lines, cell_results, draw_cell
from jaxmeta.recipes.episode import Episode
from jaxmeta.recipes.images import ImageNetwork, Images, data_identity, query_images
from jaxmeta.recipes.predictions import CURVE, abstention
from jaxmeta.recipes.sessions import judge_of_sessions, session_lines
from jaxmeta.training.feed import Source
from jaxmeta.training.hard_tasks import cross_entropy_and_worst_class, hard_task_update
from jaxmeta.training.state import shared_of


def _published(ways: int, shots: int) -> Preset:
    return Preset(
        f"omniglot-{ways}w{shots}s",
        {
            "dataset": "omniglot",
            "rotations": "per-task",
            "ways": ways,
            "shots": shots,
            "train_queries": shots,
            "steps": 60_000,
            "task_batch": 16 if ways >= 20 else 32,
        },
    )


def _groceries(shots: int) -> Preset:
    return Preset(
        f"grocery-5w{shots}s",
        {
            "dataset": "grocery",
            "shots": shots,
            "train_queries": 5,
            "network": "resnet12",
            "width": 16,
            "steps": 300,
            "task_batch": 4,
            "outer_schedule": "cosine",
            "validation_tasks": 100,
            "checkpoint_every": 50,
            "chunk": 5,
        },
        wall_time="25 min on 2 CPU cores",
    )


@domain("few-shot", kind="classification")
@dataclass(frozen=True)
class FewShot(Domain):
    """Meta-train a few-shot image classifier and evaluate it on unseen classes."""

    images: Images = field(default_factory=Images)
    episode: Episode = field(default_factory=Episode)
    image_network: ImageNetwork = field(default_factory=ImageNetwork)

    presets: ClassVar[tuple[Preset, ...]] = (
        # MAML's network and settings with fewer tasks per step and more queries per class.
        Preset(
            "default",
            {
                "steps": 2000,
                "task_batch": 8,
                "train_queries": 5,
                "checkpoint_every": 250,
                "outer_schedule": "cosine",
            },
            wall_time="3 min on 2 CPU cores",
        ),
        *(_published(ways, shots) for ways in (5, 20) for shots in (1, 5)),
        # The one-shot classification of Lake et al. 2015: the 20 classes of a test task are upright
        # characters of one alphabet of the evaluation set.
        Preset(
            "omniglot-challenge",
            {
                **_published(20, 1).settings,
                "split": "lake",
                "within_groups": "both",
                "test_rotations": "none",
            },
        ),
        # Within an hour on a CPU core; test it with --ways 5, too.
        Preset("omniglot-fast", {**_published(20, 1).settings, "validation_tasks": 100}),
        *(_groceries(shots) for shots in (1, 5)),
        *presets.MINIIMAGENET,
    )

    def resolved(self) -> "FewShot":
        sizes = {f"train_{name}": size for name, size in self.episode.sizes(True).items()}
        return dataclasses.replace(self, episode=dataclasses.replace(self.episode, **sizes))

    def label(self) -> str:
        episode = self.episode
        within = "-within-groups" if episode.within("test") else ""
        return f"{Path(self.images.dataset).name}-{episode.ways}w{episode.shots}s{within}"

    def evaluation_changes(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        for part in (self.images, self.episode, self.image_network):
            changes = part.evaluation_changes(changes)
        return changes

    def _sizes(self, needs: Needs, data: Mapping[str, Any], train: bool) -> dict[str, int]:
        sizes = self.episode.sizes(train)
        if train and needs.any_ways:
            classes = data["classes"]["train"] * turned_classes(self.episode.rotations)
            sizes["ways"] = min(sizes["ways"], classes)
        return sizes

    def problem(
        self, training: Training, needs: Needs, data: Mapping[str, Any], *, train: bool
    ) -> Problem:
        of_training, sizes = (self._sizes(needs, data, part) for part in (True, train))

        def batch(examples: int) -> Batch:
            rows = of_training["ways"] * examples
            images = jnp.zeros((rows, *data["image_shape"]))
            return Batch(images, jnp.zeros((rows,), jnp.int32))

        objective, network = cross_entropy, self.image_network
        if train and self.episode.hard_tasks:
            objective = cross_entropy_and_worst_class(sizes["ways"])
        return Problem(
            kind="classification",
            train=train,
            example=Task(batch(of_training["shots"]), batch(of_training["queries"])),
            objective=objective,
            network=lambda constants, outputs: network.build(outputs, train=train),
            outputs=of_training["ways"],
            ways=sizes["ways"],
            trained_ways=of_training["ways"],
            support=sizes["ways"] * sizes["shots"],
            steps=training.steps,
            comparison=lambda constants: network.comparison(),
            context_layer=network.context_layer,
            data=data,
            fold=network.fold if network.query_statistics == "training" else None,
            unfold=network.unfold if network.query_statistics == "training" else None,
            architecture=network.architecture,
        )

    def tasks(self, training: Training, needs: Needs) -> Tasks:
        episode = self.episode
        if episode.unlabelled and not needs.unlabelled:
            raise ValueError(
                f"--unlabelled {episode.unlabelled}: this learner requires a label for every "
                "example; leave --unlabelled out, or choose a semi-supervised learner."
            )
        if episode.hard_tasks and needs.own_objective:
            raise ValueError("--hard-tasks requires a learner that is trained by cross-entropy.")
        self.image_network.check_learner(needs)
        statistics = self.image_network.query_statistics
        dataset = self.images.load(training.seed, episode.rotations, needs.seen)
        data = data_identity(dataset)
        streamed = self._pipeline(dataset) == "stream"
        if streamed and statistics == "training":
            raise ValueError(
                "--query-statistics training does not support streamed tasks; give "
                "--query-statistics group, --pipeline device or a larger --device-budget."
            )
        if episode.hard_tasks and (needs.in_order or needs.numbered or streamed):
            raise ValueError(
                "--hard-tasks requires tasks that are drawn on the device, and a learner without "
                "tasks by number or examples in order; give another learner, --pipeline device or "
                "a larger --device-budget."
            )
        sizes = {train: self._sizes(needs, data, train) for train in (True, False)}
        names = ("unlabelled", "distractors", "shuffle_labels")
        identity = {
            "images_sha256": data["images_sha256"],
            **sizes[False],
            "rotations": episode.rotations_of("test"),
            **{name: getattr(episode, name) for name in names},
            **({"within_groups": True} if episode.within("test") else {}),
            "in_order": needs.in_order,
            "streamed": streamed,
        }

        def source(part: str) -> Source:
            return self._source(dataset, part, sizes[part == "train"], needs, training.seed)

        def held_out(part: str) -> HeldOut:
            # A curve takes a query prediction per inner step (50 for Reptile), so fewer tasks.
            held = HeldOut(source(part), {**identity, "part": part}, trajectory_tasks=200)
            if episode.sessions == 1 or part != "test":
                return held
            return held._replace(judge=judge_of_sessions(episode.ways, episode.sessions))

        notes = ()
        if sizes[True]["ways"] < episode.sizes(True)["ways"]:
            fewer = sizes[True]["ways"]
            notes = (
                f"{self.images.dataset} has only {fewer} training classes; training tasks are "
                f"{fewer}-way.",
            )
        ways = {part: sizes[part == "train"]["ways"] + episode.distractors for part in PARTS}
        within = episode.described_groups(dataset, ways)
        for part, found in within.get("groups", {}).items():
            if found["too_small"]:
                groups = sum(found.values())
                notes += (
                    f"{part}: groups with fewer than {ways[part]} classes are left out, "
                    f"{found['too_small']} of {groups}.",
                )
        return Tasks(
            train=lambda: source("train"),
            validation=lambda: held_out("validation"),
            tests={"test": held_out("test")},
            figures=(ACCURACY,),
            selection=ACCURACY,
            title=f"{Path(self.images.dataset).name} · {episode.ways}-way {episode.shots}-shot"
            f"{' within a group' if episode.within('test') else ''}",
            summary={"dataset": self.images.dataset, **sizes[False]},
            protocol={
                "train_episode": sizes[True],
                **dataset.protocol,
                "test_rotations": episode.rotations_of("test"),
                "within_groups": episode.within_groups,
                **within,
                "query_statistics": self.image_network.query_statistics,
                "transductive": self.image_network.query_statistics == "batch",
                "test_views": self.image_network.test_views,
                "shuffled_labels": episode.shuffle_labels,
                **({"sessions": episode.sessions} if episode.sessions > 1 else {}),
                "pipeline": "stream" if streamed else "device",
                "network": self.image_network.described(comparison=needs.comparison),
                "hard_tasks": episode.hard_tasks,
                "distortions": episode.distortions,
                "unlabelled": episode.unlabelled,
                "distractors": episode.distractors,
            },
            data=data,
            classes=partial(classes_of, dataset),
            calibration=partial(query_images, source, training.seed)
            if statistics == "training"
            else tuple,
            meta_update=hard_task_update if episode.hard_tasks else None,
            # On a CPU the working set of one convolutional task fits in the cache, the working set
            # of 32 does not: 0.23 s against 0.39 s per step.
            at_once=1 if jax.default_backend() == "cpu" else None,
            streamed=streamed,
            notes=notes,
            report=self._report,
            draw=_draw,
            extra_lines=cell_lines if self.image_network.architecture else session_lines,
        )

    def _report(self, made: Report) -> dict[str, Any]:
        cells = cell_results(made) if self.image_network.architecture else {}
        return {**cells, **abstention(made)}

    def _pipeline(self, dataset: Dataset) -> str:
        """As configured; for auto, the device if the images of all parts fit in the budget."""
        if self.episode.pipeline != "auto":
            return self.episode.pipeline
        size = sum(getattr(dataset, part).images.nbytes for part in PARTS)
        return "device" if size <= self.episode.device_budget * 2**30 else "stream"

    def _source(
        self, dataset: Dataset, part: str, sizes: dict[str, int], needs: Needs, seed: int
    ) -> Source:
        """The tasks of one part of the classes; no two parts share a class."""
        episode, classes = self.episode, getattr(dataset, part)
        drawn: dict[str, Any] = {
            "rotations": episode.rotations_of(part),
            "groups": episode.groups(dataset, part),
            "shuffle_labels": episode.shuffle_labels,
            "ways": sizes["ways"] + episode.distractors,
            "shots": sizes["shots"] + episode.unlabelled,
            "queries": sizes["queries"],
        }

        def labelled(sample: Any) -> Any:
            if not episode.unlabelled:
                return sample
            return with_unlabelled(
                sample,
                ways=sizes["ways"],
                shots=sizes["shots"],
                unlabelled=episode.unlabelled,
                distractors=episode.distractors,
            )

        if self._pipeline(dataset) == "stream":
            if episode.distortions or needs.in_order or needs.numbered:
                raise ValueError(
                    "--distortions, and learners that require the support in random order or "
                    "numbered tasks, do not support streamed tasks; give --pipeline device or a "
                    "larger --device-budget."
                )
            stream = task_stream(classes, **drawn, seed=(seed, PARTS.index(part)))
            return stream._replace(prepare=labelled(stream.prepare))
        try:
            sample = labelled(episodes(classes, **drawn))
        except ValueError as error:
            if not episode.unlabelled:
                raise
            raise ValueError(
                f"{error}. These ways include {episode.distractors} --distractors, and these shots "
                f"{episode.unlabelled} --unlabelled."
            ) from error
        if needs.numbered and part == "train":
            if episode.unlabelled or episode.distortions:
                raise ValueError(
                    "this learner has a head for each training task and does not support "
                    "--unlabelled or --distortions."
                )
            return numbered(sample, needs.numbered)
        sample = in_random_order(sample) if needs.in_order else sample
        return distorted(sample) if episode.distortions and part == "train" else sample

    def read(
        self, data: Mapping[str, Any], support: Path, query: Path, ink: bool | None
    ) -> UserTask:
        """Read `support/class/*.png`, and query images from a file or a folder."""
        return self.images.user_task(data, support, query, ink)

    def for_user_task(self, given: UserTask) -> "FewShot":
        episode = dataclasses.replace(self.episode, ways=len(given.names))
        return dataclasses.replace(self, episode=episode)


def _draw(made: Report) -> None:
    """Draw one test task, and the learner's own picture of adapting to it."""
    from jaxmeta import plots

    test, learner, (task, _, learn_key) = made.test("test")
    shared = shared_of(learner, made.trained)
    meta_params = made.trained.meta_params
    adapted = jax.jit(learner.adapt)(learn_key, meta_params, task.support, **shared)
    outputs = jax.jit(learner.predict)(adapted, task.query.inputs)
    plots.image_episode(
        made.folder / "episode.png",
        np.asarray(task.support.inputs),
        np.asarray(task.support.targets),
        np.asarray(task.query.inputs),
        np.asarray(task.query.targets),
        np.asarray(outputs.argmax(axis=-1)),
        title=f"{made.title}: one test task",
    )
    if CURVE in made.results:
        curve = made.results[CURVE]
        plots.risk_over_coverage(
            made.folder / "risk_coverage.png",
            *(np.asarray(curve[name], float) for name in ("thresholds", "coverage", "risk")),
            title=f"{made.title}: abstaining below a probability",
        )
    if test.problem is not None:
        # Learners with inner steps already have a curve in adaptation.png.
        name = "adapted.png" if "after_inner_steps" in made.results else "adaptation.png"
        made.recipe.draw(made.folder / name, test.problem, adapted, task, made.title)
        if test.problem.architecture:
            draw_cell(made)

"""Presets that several learners share."""

from typing import Any

from jaxmeta.recipes.base import Preset

_OMNIGLOT = ("omniglot-5w1s", "omniglot-5w5s", "omniglot-20w1s", "omniglot-20w5s")
_OMNIGLOT += ("omniglot-challenge",)
_MINIIMAGENET = ("miniimagenet-5w1s", "miniimagenet-5w5s")

TWENTY_WAYS = "few-shot/omniglot-[2c]*"
"""The pattern of the presets of Omniglot with 20 ways: 20w1s, 20w5s and challenge."""


def omniglot(published: str = "", *, wall_time: str = "", **settings: Any) -> Preset:
    """The settings that a learner changes in all presets of Omniglot.

    Args:
      published: accuracies at 5-way 1- and 5-shot, 20-way 1- and 5-shot, and at the Omniglot
        challenge, separated by commas; – for a missing one.
      wall_time: wall time of 5-way 1-shot, and the device.
      settings: values by setting name.

    >>> omniglot("98.8, 99.7, 96.0, –", steps=10_000).published["omniglot-20w1s"]
    '96.0'
    """
    return Preset("few-shot/omniglot-*", settings, _figures(_OMNIGLOT, published), wall_time)


def miniimagenet(published: str = "", *, wall_time: str = "", **settings: Any) -> Preset:
    """The settings that a learner changes in the presets of miniImageNet; see `omniglot`.

    >>> miniimagenet("49.42 ± 0.78, 68.20 ± 0.66").published["miniimagenet-5w5s"]
    '68.20 ± 0.66'
    """
    figures = _figures(_MINIIMAGENET, published)
    return Preset("few-shot/miniimagenet-*", settings, figures, wall_time)


def _figures(presets: tuple[str, ...], published: str) -> dict[str, str]:
    figures = zip(presets, published.split(", ") if published else ())
    return {name: figure for name, figure in figures if figure != "–"}


SIXTY_WAYS: dict[str, Any] = {
    "train_ways": 60,
    "train_queries": 5,
    "task_batch": 1,
    "network": "conv4-pool",
    "query_statistics": "training",
    "outer_schedule": "halving",
}
"""The training tasks of prototypical networks on Omniglot (Snell et al. 2017, section 3.1)."""

SIXTY_WAYS_OMNIGLOT: dict[str, Any] = {
    **SIXTY_WAYS,
    "rotations": "as-classes",
    "steps": 10_000,
    "checkpoint_every": 200,
    "chunk": 10,
}
"""`SIXTY_WAYS`, with the classes and the length of a run on Omniglot."""

FAST = Preset(
    "few-shot/omniglot-fast",
    {
        "outer_rate": 4e-3,
        "outer_schedule": "cosine",
        "steps": 3400,
        "checkpoint_every": 850,
    },
    wall_time="45 min on 2 CPU cores",
)
"""For learners with the settings `SIXTY_WAYS`."""

MINIIMAGENET = tuple(
    Preset(
        name,
        {
            "dataset": "miniimagenet",
            "ways": 5,
            "shots": shots,
            "train_queries": 15,
            "network": "conv4-pool",
            "steps": 60_000,
            "task_batch": 4,
            "eval_tasks": 600,
        },
    )
    for name, shots in zip(_MINIIMAGENET, (1, 5))
)
"""The tasks of miniImageNet, for few-shot classification."""

MAML = (
    Preset(TWENTY_WAYS, {"inner_rate": 0.1, "inner_steps": 5, "eval_inner_steps": 5}),
    Preset(
        "few-shot/miniimagenet-*",
        {"inner_rate": 0.01, "inner_steps": 5, "eval_inner_steps": 10, "width": 32, "clip": 10.0},
    ),
    Preset("few-shot/miniimagenet-5w5s", {"task_batch": 2}),
    Preset("text/*", {"inner_rate": 0.1, "inner_steps": 5, "eval_inner_steps": 10}),
    *(
        Preset(
            f"regression/{name}",
            {"inner_rate": 1e-3, "inner_steps": 1, "eval_inner_steps": 10},
        )
        for name in ("default", "sinusoid")
    ),
    Preset(
        "regression/sinusoid-frequency",
        {"inner_rate": 1e-2, "inner_steps": 1, "eval_inner_steps": 1},
    ),
)
"""For MAML and its close variants."""

COMPARING = (
    # Each example is normalised by itself; training is 20-way.
    Preset(
        "few-shot/*",
        {"train_ways": 20, "train_queries": 5, "task_batch": 2, "query_statistics": "group"},
    ),
    Preset("few-shot/omniglot-*", {"rotations": "as-classes"}),
    Preset("few-shot/grocery-*", {"train_ways": None, "task_batch": 4}),
)
"""For learners that compare examples."""

READING = (
    # Each example is normalised by itself; a step has more tasks.
    Preset("few-shot/*", {"train_queries": 5, "task_batch": 16, "query_statistics": "group"}),
    Preset("few-shot/omniglot-*", {"rotations": "as-classes"}),
    Preset("few-shot/grocery-*", {"task_batch": 4}),
)
"""For learners that read the support set with a network."""

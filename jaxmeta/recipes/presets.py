"""Presets that several learners share."""

from jaxmeta.recipes.base import Preset

MAML = (
    Preset("few-shot/omniglot-20w*", {"inner_rate": 0.1, "inner_steps": 5, "eval_inner_steps": 5}),
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
"""MAML and what differs from it by one idea."""

COMPARING = (
    # Each example is judged by itself, with 20-way training.
    Preset(
        "few-shot/*",
        {"train_ways": 20, "train_queries": 5, "task_batch": 2, "query_statistics": "group"},
    ),
    Preset("few-shot/omniglot-*", {"rotations": "as-classes"}),
    Preset("few-shot/grocery-*", {"train_ways": None, "task_batch": 4}),
)
"""Learned comparison."""

READING = (
    # Each example is judged by itself, with more tasks a step.
    Preset("few-shot/*", {"train_queries": 5, "task_batch": 16, "query_statistics": "group"}),
    Preset("few-shot/omniglot-*", {"rotations": "as-classes"}),
    Preset("few-shot/grocery-*", {"task_batch": 4}),
)
"""Reading the support set."""

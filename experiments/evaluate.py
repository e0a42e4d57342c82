"""Evaluate a run again, also under other ways, shots or data.

python -m experiments.evaluate RUN_DIR [--eval-tasks N] [--ways W] [--shots S] [--dataset NAME]
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command_line import closing_line, guarded, read_arguments


@dataclass(frozen=True)
class Evaluate:
    """Evaluate the best checkpoint of a run on held-out tasks."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    eval_tasks: int | None = None
    """Held-out tasks; None: as many as the run was evaluated on."""
    ways: int | None = None
    """Classes of a task, where the learner allows it; None: as in the run."""
    shots: int | None = None
    """Support examples a class; None: as in the run."""
    queries: int | None = None
    """Query examples a class; None: as in the run."""
    dataset: str | None = None
    """Another image set, with images of the same size; None: the run's."""
    inner_steps: int | None = None
    """Inner steps, for learners that have them; None: as in the run."""
    shuffle_labels: bool = False
    """The control: labels shuffled in every task, so that only chance can be reached."""
    seed: int | None = None
    """Seed of the tasks; None: the run's, which gives the very tasks of its results."""
    out: Path | None = None
    """File for the result, as JSON; None: RUN_DIR/evaluation-WwSs.json, or as the name says."""


def evaluate(options: Evaluate) -> None:
    """Evaluate, write the result beside the run, print the closing line."""
    import jax

    from experiments import run as runs
    from jaxmeta import files
    from jaxmeta.training import evaluation, restore
    from jaxmeta.training.config import FewShot, check
    from jaxmeta.training.parallel import mesh_for
    from jaxmeta.training.restore import read_config, with_episode

    config, _ = read_config(options.run_dir)
    config = with_episode(config, ways=options.ways, shots=options.shots)
    changed = {
        "dataset": options.dataset,
        "queries": options.queries,
        "eval_tasks": options.eval_tasks,
    }
    changed = {name: value for name, value in changed.items() if value is not None}
    if isinstance(config, FewShot):
        changed["shuffle_labels"] = options.shuffle_labels or config.shuffle_labels
        if options.dataset not in (None, config.dataset):
            changed["split"] = None
    elif options.ways or options.dataset or options.shuffle_labels:
        raise ValueError("a regression has no --ways, --dataset or --shuffle-labels.")
    elif options.shots and config.task != "sinusoids":
        raise ValueError("tasks of a random number of points have no --shots.")
    if options.inner_steps is not None:
        if not hasattr(config.learner, "eval_inner_steps"):
            raise ValueError(f"{config.learner.name} takes no inner steps.")
        changed["learner"] = replace(config.learner, eval_inner_steps=options.inner_steps)
    config = replace(config, **changed)
    check(config)

    trained = restore(options.run_dir, config=config)
    dataset = runs.load_dataset(config)
    if dataset is not None and dataset.train.images.shape[1:] != trained.image_shape:
        raise ValueError(
            f"{dataset.name} has images of {dataset.train.images.shape[1:]}, the run was trained "
            f"on {trained.image_shape} (height, width, channels); choose another --dataset."
        )
    seed = config.seed if options.seed is None else options.seed
    sample, key = runs.test_tasks(config, dataset, seed)
    at_once = runs.evaluation_tasks_at_once(config)
    mesh = mesh_for(jax.device_count())
    evaluate = evaluation(trained.learner, config.eval_tasks, tasks_at_once=at_once, mesh=mesh)
    estimates = evaluate(trained.meta_params, sample, key)
    results = {
        **runs.describe(config, dataset),
        **runs.plain(estimates),
        "run": options.run_dir.name,
        "seed": seed,
        "num_tasks": config.eval_tasks,
        "best_step": trained.step,
        **runs.circumstances(mesh),
    }
    results |= runs.beside_oracle(config, trained.learner, trained.meta_params, sample, key)
    path = options.out or options.run_dir / _file_name(options, results)
    files.write_json(path, results)
    print(closing_line(results))
    print(f"result: {path}")


def _file_name(options: Evaluate, results: dict) -> str:
    """Such as `evaluation-20w5s.json`, `evaluation-5w1s-shuffled.json`."""
    ways = f"{results['ways']}w" if "ways" in results else ""
    task = f"{ways}{results['shots']}s" if "shots" in results else "points"
    parts = ["evaluation", task]
    if options.dataset:
        parts.append(Path(options.dataset).name)
    if options.inner_steps is not None:
        parts.append(f"{options.inner_steps}steps")
    if options.shuffle_labels:
        parts.append("shuffled")
    return "-".join(parts) + ".json"


if __name__ == "__main__":
    sys.exit(guarded(lambda: evaluate(read_arguments(Evaluate, "evaluate"))))

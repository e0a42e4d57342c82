"""The three pictures of a run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import plots
from jaxmeta.core import Array, Batch, Key, MetaLearner, PyTree, Task, valid_mask
from jaxmeta.data.synthetic._sinusoids import sinusoid_curve, sinusoid_parameters
from jaxmeta.data.synthetic.gaussian_processes import Kernel, kernel_of, posterior
from jaxmeta.learners.process import Gaussian
from jaxmeta.training import build_learner
from jaxmeta.training.config import AnyExperiment, FewShot, Regression
from jaxmeta.training.feed import Source, first_task
from jaxmeta.training.logs import read_metrics
from jaxmeta.training.options import Process, Prototypical

Predict = Callable[[Batch, Array], Gaussian]  # context, places


def draw_all(
    folder: Path,
    config: AnyExperiment,
    results: dict[str, Any],
    learner: MetaLearner,
    meta_params: PyTree,
    source: Source,
    key: Key,
) -> None:
    """Write `learning_curve.png`, `adaptation.png` and `episode.png` (one test task)."""
    title = title_of(results)
    plots.learning_curve(
        folder / "learning_curve.png",
        read_metrics(folder),
        title=f"{title}\ntrained on {_trained_on(results)}",
    )

    # The evaluation's first task; its key is split as there.
    sample_key, learn_key = jax.random.split(jax.random.split(key, 2)[0])
    task = jax.jit(lambda sample, key: sample(key))(first_task(source), sample_key)
    adapted = jax.jit(learner.adapt)(learn_key, meta_params, task.support)
    if "after_inner_steps" in results:
        _draw_adaptation(folder / "adaptation.png", config, results, title)
    elif isinstance(config, FewShot) and isinstance(config.learner, Prototypical):
        _draw_embedding(folder / "adaptation.png", config, adapted, task, title)
    if isinstance(config, FewShot):
        outputs = jax.jit(learner.predict)(adapted, task.query.inputs)
        plots.image_episode(
            folder / "episode.png",
            np.asarray(task.support.inputs),
            np.asarray(task.support.targets),
            np.asarray(task.query.inputs),
            np.asarray(task.query.targets),
            np.asarray(outputs.argmax(axis=-1)),
            title=f"{title}: one test task",
        )
    elif isinstance(config.learner, Process):

        def predict(support: Batch, inputs: Array) -> Gaussian:
            return learner.predict(learner.adapt(learn_key, meta_params, support), inputs)

        path, predict = folder / "episode.png", jax.jit(predict)
        if config.task == "images":
            _draw_completion(path, task, predict, f"{title}: one test image")
        else:
            kernel = kernel_of(source, sample_key) if config.task == "gp" else None  # pyright: ignore
            _draw_process(path, task, predict, kernel, f"{title}: one test curve")
    elif config.task == "sinusoids":
        _draw_curve(
            folder / "episode.png", config, learner, meta_params, task, (sample_key, learn_key)
        )


def title_of(results: dict[str, Any]) -> str:
    """Such as `maml · glyphs · 5-way 1-shot`."""
    ways = f"{results['ways']}-way " if "ways" in results else ""
    if "points" in results:
        shots = "{} to {} points".format(*results["points"])
    else:
        shots = f"{results['shots']}-shot"
    dataset = Path(results["dataset"]).name  # of a folder of images its name alone
    return f"{results['learner']} · {dataset} · {ways}{shots}"


def _trained_on(results: dict[str, Any]) -> str:
    """Such as `5 ways, 1 shot, 15 queries`."""
    sizes = dict(results["protocol"]["train_episode"])
    words = ["{} to {} points".format(*sizes.pop("points"))] if "points" in sizes else []
    one = {"ways": "way", "shots": "shot", "queries": "query"}
    words += [f"{size} {name if size > 1 else one[name]}" for name, size in sizes.items()]
    if results["protocol"].get("shuffled_labels"):
        words.append("labels shuffled")
    return ", ".join(words)


def _draw_adaptation(
    path: Path, config: AnyExperiment, results: dict[str, Any], title: str
) -> None:
    curve = results["after_inner_steps"]
    name = "accuracy" if "accuracy" in curve else "loss"
    plots.adaptation_curve(
        path,
        np.asarray(curve[name]),
        np.asarray(curve[f"{name}_ci95"]),
        ylabel="test accuracy" if name == "accuracy" else "mean squared error",
        title=title,
        trained_steps=getattr(config.learner, "inner_steps"),  # noqa: B009  (not all have them)
    )


def _draw_embedding(path: Path, config: FewShot, adapted: Any, task: Task, title: str) -> None:
    encoder = build_learner.network_of(config, None)
    params = adapted.meta_params["encoder"]
    embed = jax.jit(lambda inputs, reference: encoder.apply(params, inputs, reference=reference))
    plots.embedding_map(
        path,
        np.asarray(embed(task.support.inputs, None)),
        np.asarray(task.support.targets),
        np.asarray(embed(task.query.inputs, adapted.reference)),
        np.asarray(task.query.targets),
        np.asarray(adapted.prototypes_WD),
        title=f"{title}: embeddings of one test task",
    )


def _draw_curve(
    path: Path,
    config: Regression,
    learner: MetaLearner,
    meta_params: PyTree,
    task: Task,
    keys: tuple[Key, Key],
) -> None:
    sample_key, learn_key = keys
    ranges = {name: getattr(config, name) for name in ("amplitude", "phase", "frequency")}
    x = jnp.linspace(*config.domain, 200)[:, None]
    assert learner.trajectory is not None
    fits = np.asarray(learner.trajectory(learn_key, meta_params, task.support, x))
    learned: Any = config.learner
    steps = sorted({0, learned.inner_steps, learned.eval_inner_steps})
    plots.curve_episode(
        path,
        np.asarray(x)[:, 0],
        np.asarray(sinusoid_curve(sinusoid_parameters(sample_key, **ranges), x))[:, 0],
        np.asarray(task.support.inputs)[:, 0],
        np.asarray(task.support.targets)[:, 0],
        {step: fits[step][:, 0] for step in steps if step < len(fits)},
        title=f"{config.learner.name}: one test curve",
    )


def _draw_process(
    path: Path, task: Task, predict: Predict, kernel: Kernel | None, title: str
) -> None:
    x = jnp.linspace(task.query.inputs.min(), task.query.inputs.max(), 200)[:, None]
    plots.process_episode(
        path,
        np.asarray(x)[:, 0],
        _band(predict(task.support, x)),
        _points(task.support),
        _points(task.query),
        oracle=None if kernel is None else _band(posterior(kernel, task.support, x)),
        title=title,
    )


def _band(found: tuple[Array, Array]) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = found
    return np.asarray(mean)[:, 0], np.asarray(deviation)[:, 0]


def _points(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    real = np.asarray(valid_mask(batch.mask, len(batch.inputs)))
    return np.asarray(batch.inputs)[real, 0], np.asarray(batch.targets)[real, 0]


def _draw_completion(path: Path, task: Task, predict: Predict, title: str) -> None:
    support, query = jax.device_get(task)
    image = query.targets[:, 0]
    side = len(np.unique(query.inputs[:, 0]))
    most = len(support.inputs)
    order = np.random.default_rng(0).permutation(len(image))[:most]
    contexts = {}
    for count in (10, 50, 100, 300):
        if count <= most:
            real = jnp.arange(most) < count
            contexts[count] = Batch(query.inputs[order], query.targets[order], real)
    if not contexts:  # all of these are larger: the task's own
        contexts[int(support.mask.sum())] = support
    rows = {}
    for count, context in contexts.items():
        shown = context.inputs[np.asarray(context.mask)]
        known = (query.inputs[:, None] == shown[None]).all(axis=-1).any(axis=1)
        values = (known, *_band(predict(context, query.inputs)))
        rows[count] = tuple(array.reshape(side, -1) for array in values)
    plots.completions(path, image.reshape(side, -1), rows, title=title)

"""Speed of the text encoder: `python -m experiments.text_speed`.

Sentences per second of all-MiniLM-L6-v2, and steps per second of first-order MAML on its last two
layers, beside PyTorch in turns in one process. The turns share the noise of a busy machine, so that
ratios are more exact than the figures themselves. PyTorch and transformers are measured where they
are installed.
"""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import text_peers
from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.core import Batch, Model, PyTree, Task, cross_entropy
from jaxmeta.data.text import Encoder, Tokens, load_encoder
from jaxmeta.data.text.encoder import installed
from jaxmeta.inner import first_order
from jaxmeta.learners import maml
from jaxmeta.models.bert import bert, bert_layers, pooled
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import Count

WAYS, QUERIES, INNER_STEPS, INNER_RATE = 5, 5, 5, 0.01

Turn = Callable[[], Any]
"""Does the work once, and waits for its end."""


@dataclass(frozen=True)
class TextSpeed:
    """Measure the text encoder on this machine."""

    batches: tuple[Count, ...] = (1, 10, 100)
    """Sentences per call of the encoder."""
    tokens: Count = 32
    """Tokens per sentence, of which a quarter to all are valid."""
    shots: Count = 1
    """Support sentences per class of the MAML task, which has 5 classes and 5 queries of each."""
    cores: Count | None = None
    """Number of cores to use. Defaults to all that the process may use."""
    encoder: Path | None = None
    """Folder of a BERT. Defaults to all-MiniLM-L6-v2."""
    compiled: bool = False
    """Measure torch.compile, too; it compiles for minutes."""
    rounds: Count = 9
    """Number of timed rounds, in each of which every contestant has a turn."""
    seconds: float = 0.5
    """Least time of a turn, in which the work is repeated."""
    out: Path = Path("text_speed.json")
    """JSON file for the figures."""


def sentences(
    rng: np.random.Generator, vocabulary: int, count: int, tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask of random sentences."""
    lengths = rng.integers(max(1, tokens // 4), tokens + 1, count)
    mask = np.arange(tokens)[None] < lengths[:, None]
    ids = rng.integers(1, vocabulary, (count, tokens))
    return np.where(mask, ids, 0).astype(np.int32), mask


def forward_turns(encoder: Encoder, batch: int, options: TextSpeed) -> dict[str, Turn]:
    """The encoders on a batch; all give the same vectors."""
    rng, vocabulary = np.random.default_rng(batch), encoder.config.vocabulary
    ids, mask = sentences(rng, vocabulary, batch, options.tokens)
    apply = jax.jit(bert(encoder.config).apply)
    weights = jax.device_put(encoder.weights)
    tokens = Tokens(jnp.asarray(ids), jnp.asarray(mask))
    turns: dict[str, Turn] = {"jaxmeta": lambda: jax.block_until_ready(apply(weights, tokens))}
    for name, forward in _torch_forwards(encoder, options).items():
        turns[name] = _without_gradients(forward, ids, mask)
    expected = np.asarray(turns["jaxmeta"]())
    for name, turn in turns.items():
        np.testing.assert_allclose(np.asarray(turn()), expected, atol=1e-4, err_msg=name)
    return turns


def _torch_forwards(encoder: Encoder, options: TextSpeed) -> dict[str, text_peers.Forward]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    plain = text_peers.plain_forward(encoder.config, encoder.weights)
    found = {"PyTorch": plain}
    with contextlib.suppress(ImportError):
        found["transformers"] = text_peers.transformers_forward(str(options.encoder or installed()))
    if options.compiled:
        found["PyTorch, compiled"] = torch.compile(plain)
    return found


def _without_gradients(forward: text_peers.Forward, ids: np.ndarray, mask: np.ndarray) -> Turn:
    import torch  # pyright: ignore[reportMissingImports]

    given = torch.from_numpy(ids).long(), torch.from_numpy(mask)

    def turn() -> Any:
        with torch.inference_mode():
            return forward(*given)

    return turn


def maml_turns(encoder: Encoder, options: TextSpeed) -> dict[str, Turn]:
    """A step of first-order MAML on the last two layers, from states of the layers below."""
    config, rng = encoder.config, np.random.default_rng(0)
    upper = {str(n): encoder.weights["layers"][str(n)] for n in range(config.layers)[-2:]}
    head = {
        "kernel": rng.normal(0, 0.02, (config.width, WAYS)).astype(np.float32),
        "bias": np.zeros(WAYS, np.float32),
    }
    params = {"layers": upper, "head": head}

    def batch(per_class: int) -> Batch:
        targets = np.repeat(np.arange(WAYS, dtype=np.int32), per_class)
        _, mask = sentences(rng, config.vocabulary, len(targets), options.tokens)
        states = rng.normal(0, 0.5, (*mask.shape, config.width)).astype(np.float32)
        return Batch((states, mask), targets)

    task = Task(batch(options.shots), batch(QUERIES))
    turns = {"jaxmeta": _jaxmeta_step(encoder, params, task)}
    with contextlib.suppress(ImportError):
        turns |= _torch_steps(encoder, params, task, options)
    first = {name: turn() for name, turn in turns.items()}  # the loss before the first update
    for name, loss in first.items():
        np.testing.assert_allclose(float(loss), float(first["jaxmeta"]), rtol=1e-3, err_msg=name)
    return turns


def _jaxmeta_step(encoder: Encoder, params: PyTree, task: Task) -> Turn:
    def apply(params: PyTree, inputs: Any, *, reference: Any = None, key: Any = None) -> Any:
        states, mask = inputs
        vectors = pooled(bert_layers(encoder.config, params["layers"], states, mask), mask)
        return vectors @ params["head"]["kernel"] + params["head"]["bias"][None]

    model = Model(lambda key, inputs: params, apply)
    learner = maml(
        model, cross_entropy, optax.sgd(INNER_RATE), INNER_STEPS, differentiation=first_order
    )
    optimizer = optax.adam(1e-5)
    carry = None

    @jax.jit
    def step(state: Any, task: Task) -> Any:
        params, moments = state
        key = jax.random.key(0)
        grads, info, _ = learner.grad(key, params, task, carry)  # pyright: ignore
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), info.loss

    start = jax.tree.map(jnp.asarray, params)
    state, task = (start, optimizer.init(start)), jax.device_put(task)

    def turn() -> Any:
        nonlocal state
        state, loss = jax.block_until_ready(step(state, task))
        return loss

    return turn


def _torch_steps(
    encoder: Encoder, params: PyTree, task: Task, options: TextSpeed
) -> dict[str, Turn]:
    import torch  # pyright: ignore[reportMissingImports]

    def part(batch: Batch) -> Any:
        states, mask = (torch.from_numpy(array) for array in batch.inputs)
        return states, mask, torch.from_numpy(batch.targets).long()

    given = part(task.support), part(task.query)
    settings = {"steps": INNER_STEPS, "inner_rate": INNER_RATE}
    turns = {}
    for name in ("PyTorch", "PyTorch, compiled")[: 1 + options.compiled]:
        step = text_peers.first_order_maml(
            encoder.config, text_peers.tensors(params), **settings, compiled="," in name
        )
        turns[name] = lambda step=step: step(given)[0]
    return turns


def timed(turns: dict[str, Turn], options: TextSpeed) -> dict[str, dict[str, float]]:
    """Median seconds of each contestant, and the median ratio of its time to that of jaxmeta."""
    repeats = {}
    for name, turn in turns.items():
        turn()
        start = time.perf_counter()
        turn()
        repeats[name] = max(1, round(options.seconds / (time.perf_counter() - start)))
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(options.rounds):
        for name, turn in turns.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                turn()
            taken[name].append((time.perf_counter() - start) / repeats[name])
    rows = {}
    for name, seconds in taken.items():
        ratios = [other / own for other, own in zip(seconds, taken["jaxmeta"])]
        rows[name] = {"seconds": statistics.median(seconds), "ratio": statistics.median(ratios)}
    return rows


def measure(options: TextSpeed) -> dict[str, Any]:
    """Measure all contestants in turns, write the medians and return them."""
    if options.cores is not None:  # before JAX and PyTorch count them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    cores = len(os.sched_getaffinity(0))
    with result_file(options.out, lambda found: "workloads" in found):
        encoder = load_encoder(options.encoder)
        peers = _versions(cores)
        workloads: dict[str, Any] = {}
        for batch in options.batches:
            name = f"encoder, {batch} sentence{'s' * (batch > 1)}"
            workloads[name] = timed(forward_turns(encoder, batch, options), options)
            for row in workloads[name].values():
                row["per_second"] = batch / row["seconds"]
            _say(name, workloads[name])
        name = f"first-order MAML on two layers, {WAYS}-way {options.shots}-shot"
        workloads[name] = timed(maml_turns(encoder, options), options)
        for row in workloads[name].values():
            row["per_second"] = 1 / row["seconds"]
        _say(name, workloads[name])
        results = {
            "workloads": workloads,
            "encoder": encoder.name,
            "tokens": options.tokens,
            "inner_steps": INNER_STEPS,
            "queries": QUERIES,
            "cores": cores,
            "rounds": options.rounds,
            "peers": peers,
            **provenance(),
        }
        files.write_json(options.out, results)
    return results


def _versions(cores: int) -> dict[str, str]:
    """The versions of the peers, which use the given number of threads from now on."""
    found = {}
    for name in ("torch", "transformers"):
        try:
            module = __import__(name)
        except ImportError:
            continue
        found[name] = module.__version__
        if name == "torch":
            module.set_num_threads(cores)
    return found


def _say(name: str, rows: dict[str, dict[str, float]]) -> None:
    print(name, flush=True)
    for contestant, row in rows.items():
        print(f"  {contestant}: {row['per_second']:.4g}/s · time ÷ jaxmeta's {row['ratio']:.2f}")


if __name__ == "__main__":
    command = "python -m experiments.text_speed"
    sys.exit(guarded(lambda: measure(read_arguments(TextSpeed, command))))

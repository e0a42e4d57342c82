"""Memory of a meta-gradient, by inner steps and differentiation: `python -m experiments.memory`.

Measures the bytes that XLA reserves on this device for temporary values of the compiled
meta-gradient of one 5-way 1-shot task with 15 queries. Programs are compiled, but not run.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.core import Batch, Carry, MetaLearner, Task, cross_entropy
from jaxmeta.inner import first_order, rematerialised, reverse_mode, second_order
from jaxmeta.learners import imaml, maml
from jaxmeta.models import conv4
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import Count

WAYS = {
    "maml, second order": second_order,
    "maml, rematerialised": rematerialised,
    "maml, reverse mode": reverse_mode,
    "maml, first order": first_order,
}


@dataclass(frozen=True)
class Memory:
    """Measure the memory of meta-gradients."""

    steps: tuple[Count, ...] = (5, 20, 80)
    """Numbers of inner steps to measure."""
    width: Count = 64
    """Channels of the four convolutions of stride 2."""
    out: Path = Path("memory.json")
    """JSON file for the figures."""


def learners(steps: int, width: int) -> dict[str, MetaLearner]:
    """The learners to compare, by name."""
    model = conv4(5, width=width, downsampling="stride")
    found = {
        name: maml(model, cross_entropy, optax.sgd(0.1), steps, differentiation=way)
        for name, way in WAYS.items()
    }
    return found | {"imaml": imaml(model, cross_entropy, optax.sgd(0.1), steps, strength=2.0)}


def bytes_of(learner: MetaLearner) -> int:
    """Temporary bytes of the learner's meta-gradient on one task."""

    def batch(examples: int) -> Batch:
        return Batch(jnp.zeros((examples, 28, 28, 1)), jnp.arange(examples, dtype=jnp.int32) % 5)

    task, key = Task(batch(5), batch(75)), jax.random.key(0)
    meta_params = jax.eval_shape(learner.init, key, task)
    carry = Carry(jnp.zeros((), jnp.int32), (), ())
    compiled = jax.jit(learner.grad).lower(key, meta_params, task, carry).compile()
    analysis: Any = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes)


def measure(options: Memory) -> dict[str, Any]:
    """Compile all meta-gradients, write the figures and return them."""
    what = f"conv4-stride, width {options.width}, one 5-way 1-shot task with 15 queries"

    def own(found: Any) -> bool:
        steps = {*map(str, options.steps)}
        return found["what"] == what and all(
            {*taken} == steps for taken in found["temporary_bytes"].values()
        )

    with result_file(options.out, own):
        results = {"what": what, "temporary_bytes": _taken(options), **provenance()}
        files.write_json(options.out, results)
    return results


def _taken(options: Memory) -> dict[str, dict[str, int]]:
    taken: dict[str, dict[str, int]] = {}
    for steps in options.steps:
        for name, learner in learners(steps, options.width).items():
            taken.setdefault(name, {})[str(steps)] = bytes_of(learner)
            print(f"{name} · {steps} steps · {taken[name][str(steps)] / 2**20:.1f} MiB", flush=True)
    return taken


if __name__ == "__main__":
    sys.exit(guarded(lambda: measure(read_arguments(Memory, "python -m experiments.memory"))))

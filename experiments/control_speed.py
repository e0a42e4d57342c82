"""Speed of meta-updates of policies, rollouts included: `python -m experiments.control_speed`.

In navigation with the setting of pytorch-maml-rl: 20 tasks, 20 episodes of 100 steps before and
after one adaptation step of rate 0.1, a policy of two layers of 64 tanh units. The half-cheetah has
10 episodes. `--peer` measures pytorch-maml-rl in turns with jaxmeta.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.data.control import environment_tasks, half_cheetah, navigation
from jaxmeta.environment import Environment
from jaxmeta.learners import maml_rl, promp
from jaxmeta.learners.control import log_likelihood, outputs_of, policy_model
from jaxmeta.models import mlp
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance
from jaxmeta.recipes.settings import Count
from jaxmeta.training.parallel import mesh_for
from jaxmeta.training.policy import proximal_update, trust_region_update
from jaxmeta.training.update import MetaUpdate

TASKS, STEPS = 20, 100
PEER = "navigation, pytorch-maml-rl"
CONFIG = "configs/maml/2d-navigation.yaml"  # the setting of `navigation, MAML with TRPO`

Turn = Callable[[], float]
"""`turn() -> seconds of a meta-update`."""


@dataclass(frozen=True)
class ControlSpeed:
    """Measure meta-updates of policies on this machine."""

    cheetah: bool = False
    """Measure the half-cheetah, too; requires brax, and compiles for minutes."""
    peer: tuple[Path, Path] | None = None
    """An interpreter with torch and gym, and a folder with the source of pytorch-maml-rl."""
    rounds: Count = 5
    """Number of timed rounds, in each of which every contestant has a turn."""
    updates: Count = 5
    """Meta-updates per turn."""
    out: Path = Path("control.json")
    """JSON file for the figures."""


def turn_of(environment: Environment, update: MetaUpdate, updates: int) -> Turn:
    """Compiles a meta-update; a turn goes on where the last one ended."""
    sample = environment_tasks(environment)
    state = jax.jit(update.init)(jax.random.key(0), sample)

    @jax.jit
    def run(state: Any) -> Any:
        return jax.lax.scan(lambda s, _: update.update(s, sample), state, length=updates)[0]

    last = [jax.block_until_ready(run(state))]

    def turn() -> float:
        start = time.perf_counter()
        last[0] = jax.block_until_ready(run(last[0]))
        return (time.perf_counter() - start) / updates

    return turn


def peer_turn(python: Path, folder: Path, updates: int) -> Turn:
    """The time of a process with `updates` more meta-updates, less that of one with one."""
    config = (folder / CONFIG).read_text()
    # Its fastest form: the threads of several processes would wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def seconds(batches: int) -> float:
        with TemporaryDirectory() as made:
            path = Path(made) / "config.yaml"
            path.write_text(config.replace("num-batches: 500", f"num-batches: {batches}"))
            line = [python.absolute(), "train.py", "--config", path, "--num-workers", "2"]
            start = time.perf_counter()
            subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)
            return time.perf_counter() - start

    return lambda: (seconds(1 + updates) - seconds(1)) / updates


def contestants(options: ControlSpeed) -> dict[str, tuple[Turn, int]]:
    """A turn and the environment steps of a meta-update, by name."""
    found: dict[str, tuple[Turn, int]] = {}

    def add(name: str, environment: Environment, episodes: int, update: MetaUpdate) -> None:
        print(f"compiling {name}.", flush=True)
        steps = 2 * TASKS * episodes * STEPS
        found[name] = (turn_of(environment, update, options.updates), steps)

    def learner(make: Callable[..., Any], environment: Environment, episodes: int, **own: Any):
        actions = environment.actions
        policy = policy_model(mlp((64, 64), outputs_of(actions), activation=jnp.tanh), actions)
        return make(environment, policy, optax.sgd(0.1), 1, episodes=episodes, **own)

    proximal = partial(proximal_update, optimizer=optax.adam(1e-3), task_batch=TASKS)
    plane = navigation(horizon=STEPS)
    maml = learner(maml_rl, plane, 20, surrogate=log_likelihood)
    if options.peer is not None:
        found[PEER] = (peer_turn(*options.peer, options.updates), 2 * TASKS * 20 * STEPS)
    add("navigation, MAML with TRPO", plane, 20, trust_region_update(maml, task_batch=TASKS))
    few = trust_region_update(maml, task_batch=TASKS, curvature_tasks=5)
    add("navigation, MAML with TRPO, curvature of 5 tasks", plane, 20, few)
    add("navigation, ProMP", plane, 20, proximal(learner(promp, plane, 20)))
    mesh = mesh_for(TASKS)
    if mesh is not None:  # as the commands, which make every core a device
        name = f"{mesh.size} devices"
        few = trust_region_update(maml, task_batch=TASKS, curvature_tasks=4, mesh=mesh)
        add(f"navigation, MAML with TRPO, curvature of 4 tasks, {name}", plane, 20, few)
        add(f"navigation, ProMP, {name}", plane, 20, proximal(learner(promp, plane, 20), mesh=mesh))
    if options.cheetah:
        robot = half_cheetah(horizon=STEPS)
        add("half-cheetah, ProMP", robot, 10, proximal(learner(promp, robot, 10)))
    return found


def measure(options: ControlSpeed) -> dict[str, Any]:
    """Measure all contestants in turns, write the medians and return them."""
    with result_file(options.out, lambda found: "meta_updates" in found):
        turns = contestants(options)
        taken: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(options.rounds):
            for name, (turn, _) in turns.items():
                taken[name].append(turn())
        rows = {}
        for name, (_, steps) in turns.items():
            seconds = statistics.median(taken[name])
            rows[name] = {
                "seconds": seconds,
                "environment_steps": steps,
                "environment_steps_per_second": steps / seconds,
            }
            if PEER in turns and name.startswith("navigation"):
                ratios = [peer / own for peer, own in zip(taken[PEER], taken[name])]
                rows[name]["ratio_to_peer"] = statistics.median(ratios)
            print(f"{name} · {seconds:.3g} s · {steps / seconds:,.0f} steps/s", flush=True)
        results = {"meta_updates": rows, "rounds": options.rounds, **provenance()}
        files.write_json(options.out, results)
    return results


if __name__ == "__main__":
    command = "python -m experiments.control_speed"
    sys.exit(guarded(lambda: measure(read_arguments(ControlSpeed, command))))

"""Operations and memory of the benchmark's compiled meta-updates: `python -m experiments.compiled`.

Programs are compiled for one CPU device, but not run: nothing here depends on how fast or busy the
machine is. A test compiles them again and compares with the committed file
`experiments/results/compiled-cpu/compiled.json`.
"""

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments.workloads import WORKLOADS, Workload, draw, initial, lowered_steps
from jaxmeta import files
from jaxmeta.commands.guard import guarded, read_arguments
from jaxmeta.recipes.outputs import result_file
from jaxmeta.recipes.results import provenance

PROGRAMS = (
    "sinusoid-1-step",
    "sinusoid-10-steps",
    "max-pool-1-step",
    "stride-2",
    "stride-2-first-order",
    "prototypical",
)
SOURCE = ("convolution", "dot_general", "sort")  # as JAX writes the program
KINDS = (  # as XLA optimises it
    *("convolution", "custom-call", "dot", "sort", "while", "call", "copy", "fusion"),
    *("gather", "reduce", "reduce-window", "scatter", "transpose"),
)
HEAVY = frozenset({"convolution", "custom-call", "dot", "sort", "while"})  # none may be added
GROWTH = 0.1  # relative, of everything else

# XLA's machine code is not looked at, and its optimised program doesn't depend on how that is made.
# The emitters decide what is fused: these are the default.
_OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
if jax.__version__.startswith("0.10."):  # later releases have no such flag
    _OPTIONS["xla_cpu_use_fusion_emitters"] = True


@dataclass(frozen=True)
class Compiled:
    """Count the operations of compiled meta-updates."""

    program: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Workloads to compile. Defaults to all with a meta-update, but one per network and method."""
    out: Path = Path("compiled.json")
    """JSON file for the figures."""


def figures(workload: Workload, *, optimised: bool = True) -> dict[str, Any]:
    """The operations of one chunk of meta-updates, and its floating-point operations and memory.

    Args:
      workload: see `experiments.workloads`.
      optimised: also compile the program. Otherwise, only the operations that JAX writes are
        counted, which takes no compilation.
    """
    params, tasks = initial(workload.problem), draw(workload)
    lowered, *_ = lowered_steps(workload, params, tasks, mesh=None)
    written = Counter(re.findall(r"stablehlo\.(\w+)", lowered.as_text()))
    found: dict[str, Any] = {"source": {kind: written[kind] for kind in SOURCE}}
    if not optimised:
        return found
    compiled = lowered.compile(compiler_options=_OPTIONS)
    kinds = instructions(compiled.as_text())
    analysis: Any = compiled.memory_analysis()
    return found | {
        "instructions": {"all": kinds.total(), **{kind: kinds[kind] for kind in KINDS}},
        "flops": compiled.cost_analysis()["flops"],
        "temporary_bytes": int(analysis.temp_size_in_bytes),
    }


def instructions(program: str) -> Counter[str]:
    """The number of instructions of each kind in the text of an optimised program.

    >>> instructions("  %sum = f32[2]{0} add(%a, %b)\\n  ROOT %all = (f32[2]{0}) tuple(%sum)")
    Counter({'add': 1, 'tuple': 1})
    """
    return Counter(re.findall(r"^ +(?:ROOT )?%?[\w.-]+ = \S.*? ([a-z][\w-]*)\(", program, re.M))


def grown(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What the program has more of than recorded, in words; only what both hold is compared.

    No convolution, product, sort, loop or call of a library may be added. Everything else may grow
    by a tenth, and so may floating-point operations and temporary memory.
    """
    limits = {
        f"{kind} ({part})": (before, found[part][kind], part == "source" or kind in HEAVY)
        for part in ("source", "instructions")
        if part in found
        for kind, before in recorded[part].items()
    }
    for name in ("flops", "temporary_bytes"):
        if name in found:
            limits[name] = (recorded[name], found[name], False)
    return [
        f"{name}: {now:,.0f}, recorded {before:,.0f}"
        for name, (before, now, exact) in limits.items()
        if now > (before if exact else before * (1 + GROWTH))
    ]


def measure(options: Compiled) -> dict[str, Any]:
    """Compile all programs, write the figures and return them.

    Raises:
      ValueError: an unknown program.
    """
    chosen = options.program or PROGRAMS
    for name in chosen:
        if name not in PROGRAMS:
            raise ValueError(f"unknown program {name!r}; choose from {', '.join(PROGRAMS)}.")

    def own(found: Any) -> bool:
        return {*found["programs"]} <= {*chosen}

    with result_file(options.out, own):
        programs = {}
        for name in chosen:
            programs[name] = figures(WORKLOADS[name])
            memory = programs[name]["temporary_bytes"] / 2**20
            count = programs[name]["instructions"]["all"]
            print(f"{name} · {count:,} instructions · {memory:.1f} MiB", flush=True)
        results = {"backend": jax.default_backend(), "programs": programs, **provenance()}
        files.write_json(options.out, results)
    return results


if __name__ == "__main__":
    sys.exit(guarded(lambda: measure(read_arguments(Compiled, "python -m experiments.compiled"))))

"""From a command line to a run, and from an error to one plain line and a status."""

import math
import os
import signal
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Union

import jax
import tyro
from scipy.special import stdtrit

from experiments import pictures, presets
from experiments.folders import run_folder
from experiments.progress import Progress
from experiments.regression_presets import OF_TASK
from experiments.run import run
from jaxmeta import files
from jaxmeta.data.cache import cache_folder
from jaxmeta.training import Interrupted
from jaxmeta.training.config import AnyExperiment, FewShot
from jaxmeta.training.parallel import is_first_process, join, with_all_cores

_Seeds = Annotated[
    tuple[int, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT,INT,...",
        instance_from_str=lambda words: _seeds_of(words[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda seeds: [",".join(map(str, seeds))],
    ),
]


def _seeds_of(word: str) -> tuple[int, ...]:
    """Nothing of what is no whole numbers: an error here would show tyro's insides."""
    numbers = word.split(",")
    return tuple(map(int, numbers)) if all(number.strip().isdigit() for number in numbers) else ()


@dataclass(frozen=True)
class RunOptions:
    """Where the run goes, and how."""

    preset: str | None = None
    """Settings worth a name, published where there are some; other options override them."""
    out: Path | None = None
    """Run folder; None: under runs/, named after the run: a new one, with --resume the newest."""
    resume: bool = False
    """Go on from the newest checkpoint of the run folder."""
    overwrite: bool = False
    """Delete the run that the folder holds and start anew."""
    devices: int | None = None
    """Devices that share the tasks of a batch; None: as many of all as make it shorter."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where several processes train together, or auto on a cluster."""
    num_processes: int | None = None
    """How many processes there are; None: as the cluster says."""
    process_id: int | None = None
    """Which of them this is, from 0; process 0 writes. None: as the cluster says."""
    seeds: _Seeds | None = None
    """Repeat the run with each of these seeds, such as 0,1,2, and report the mean with its 95 %
    interval."""


def main(experiment: type[AnyExperiment], arguments: list[str] | None = None) -> int:
    """Parse, run, print the closing line; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return guarded(lambda: _main(experiment, arguments))


def guarded(work: Callable[[], Any]) -> int:
    """Run `work` and turn what a user can mend into one plain line and a status, no traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with_compilation_cache()
        with_all_cores()
        work()
        return 0
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Interrupted as interruption:
        print(str(interruption), file=sys.stderr)
        return 128 + interruption.signal_number


def _terminate(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def with_compilation_cache() -> None:
    """JAX's persistent compilation cache, in the user's cache folder unless set otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))


def _main(experiment: type[AnyExperiment], arguments: list[str]) -> None:
    options, config = parse(experiment, arguments)
    if options.seeds is not None and len({*options.seeds}) < max(2, len(options.seeds)):
        raise ValueError(
            "--seeds: give two or more numbers that differ, such as 0,1; for one, --seed 0."
        )
    _join(options)
    progress = Progress(quiet=not is_first_process())
    say = print if is_first_process() else lambda line: None
    folder = options.out or folder_of(config, options.seeds is not None, options.resume)
    if options.seeds is None:
        results = run(
            config,
            folder,
            resume=options.resume,
            overwrite=options.overwrite,
            devices=options.devices,
            progress=progress,
        )
        say(closing_line(results))
    else:
        all_results = []
        for seed in options.seeds:
            results = run(
                replace(config, seed=seed),
                folder / f"seed_{seed}",
                resume=options.resume,
                overwrite=options.overwrite,
                devices=options.devices,
                progress=progress,
            )
            say(f"seed {seed}: {closing_line(results)}")
            all_results.append(results)
        say(_over_seeds(folder, all_results))
    say(f"results, pictures and checkpoints: {folder}")


def _join(options: RunOptions) -> None:
    """Join the other processes, where there are any."""
    alone = {"num-processes": options.num_processes, "process-id": options.process_id}
    if options.coordinator is None:
        for name, value in alone.items():
            if value is not None:
                raise ValueError(f"--{name} {value} without --coordinator: give HOST:PORT or auto.")
        return
    if options.out is None:
        raise ValueError("several processes need --out, a run folder that all of them see.")
    join(options.coordinator, options.num_processes, options.process_id)


def parse(
    experiment: type[AnyExperiment], arguments: list[str]
) -> tuple[RunOptions, AnyExperiment]:
    """The options and the configuration: the defaults of learner, preset and task, overridden.

    Read twice: learner, preset and task of the first reading decide the defaults that the
    second one starts from, and that `--help` shows. A misspelt learner is told its nearest in the
    first place alone, where usage has it; elsewhere tyro lists them all.
    """
    learners = presets.learners(experiment)
    if arguments and not arguments[0].startswith("-"):
        presets.check_known("learner", arguments[0], [kind.name for kind in learners])
    without_help = [argument for argument in arguments if argument not in ("-h", "--help")]
    options, config = _read(without_help, presets.find(experiment, learners[0], None), learners)
    preset = options.preset or OF_TASK.get(getattr(config, "task", ""))
    defaults = presets.find(experiment, type(config.learner), preset)
    return _read(arguments, defaults, learners)


def read_arguments(options: type, module: str) -> Any:
    """The options of a command that is no experiment, from the command line."""
    return tyro.cli(options, prog=f"python -m experiments.{module}")


def _read(
    arguments: list[str], defaults: AnyExperiment, learners: tuple[type, ...]
) -> tuple[RunOptions, AnyExperiment]:
    experiment = type(defaults)
    choices = tuple(
        Annotated[
            kind,
            tyro.conf.subcommand(
                kind.name,
                default=defaults.learner if type(defaults.learner) is kind else kind(),
                description=kind.__doc__,
            ),
        ]
        for kind in learners
    )
    # The learner's subcommands carry their own defaults, so the field is declared here.
    config_type = make_dataclass(
        experiment.__name__,
        [("learner", Union[choices], field(default=defaults.learner))],  # noqa: UP007
        bases=(experiment,),
        frozen=True,
    )
    values = {entry.name: getattr(defaults, entry.name) for entry in fields(experiment)}
    # The names of the fields head their groups of options in `--help`.
    command = make_dataclass("Command", [("run", RunOptions), ("experiment", config_type)])
    parsed = tyro.cli(
        command,
        args=arguments,
        default=command(RunOptions(), config_type(**values)),
        prog=f"python -m experiments.{experiment.experiment}",
        description=f"{experiment.__doc__} Presets: {', '.join(presets.PRESETS[experiment])}.",
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.CascadeSubcommandArgs,
        ),
    )
    values = {entry.name: getattr(parsed.experiment, entry.name) for entry in fields(experiment)}
    return parsed.run, experiment(**values)


def folder_of(config: AnyExperiment, many_seeds: bool, resume: bool) -> Path:
    """Such as `runs/maml-glyphs-5w1s-seed0`, see `run_folder`."""
    if isinstance(config, FewShot):
        dataset = Path(config.dataset).name
        name = f"{config.learner.name}-{dataset}-{config.ways}w{config.shots}s"
    else:
        what = {"gp": f"gp-{config.kernel}", "images": Path(config.dataset).name}
        name = f"{config.learner.name}-{what.get(config.task, f'sinusoid-{config.shots}s')}"
    if not many_seeds:
        name += f"-seed{config.seed}"
    return run_folder(name, resume)


def closing_line(results: dict[str, Any]) -> str:
    """Such as `maml · glyphs · 5-way 1-shot · 93.1 ± 0.6 % on 1000 held-out tasks`."""
    name = _judged_by(results)
    value, interval = results[name], results[f"{name}_ci95"]
    if name == "accuracy":
        shown = f"{100 * value:.1f} ± {100 * interval:.1f} %"
    else:
        shown = f"{_CALLED[name]} {value:.4f} ± {interval:.4f}"
    tasks = f"on {results['num_tasks']} held-out tasks"
    if "oracle" in results and "log_likelihood" in results:
        tasks += f" (the oracle {results['oracle']['log_likelihood']:.4f})"
    return f"{pictures.title_of(results)} · {shown} {tasks}"


_CALLED = {"log_likelihood": "log-likelihood", "loss": "mean squared error"}


def _judged_by(results: dict[str, Any]) -> str:
    """The figure that a run is known by."""
    return next(name for name in ("accuracy", "log_likelihood", "loss") if name in results)


# What the runs of all seeds have in common.
_SHARED = (
    *("learner", "dataset", "ways", "shots", "points", "queries", "steps", "num_tasks"),
    *("protocol", "command", "device", "versions"),
)


def _over_seeds(folder: Path, all_results: list[dict[str, Any]]) -> str:
    """Write the mean over n seeds and its interval, t s / √n; the line that says so."""
    first = all_results[0]
    key = _judged_by(first)
    values = [results[key] for results in all_results]
    deviation = statistics.stdev(values)
    interval = stdtrit(len(values) - 1, 0.975) * deviation / math.sqrt(len(values))
    summary = {
        **{name: first[name] for name in _SHARED if name in first},
        key: statistics.fmean(values),
        f"{key}_ci95": float(interval),
        f"{key}_deviation_between_seeds": deviation,
        "seeds": [results["seed"] for results in all_results],
        "runs": all_results,
    }
    if is_first_process():
        files.write_json(folder / "results.json", summary)
    return f"{closing_line(summary)}, over {len(values)} seeds"

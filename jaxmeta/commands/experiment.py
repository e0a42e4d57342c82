"""The command of every experiment: a learner, its options, and those of the domain."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from jaxmeta.files import shown
from jaxmeta.recipes import registry, settings
from jaxmeta.recipes.base import Domain, Recipe, Training
from jaxmeta.recipes.experiment import Experiment, presets_for, start
from jaxmeta.recipes.folders import locked_seeds_folder, run_folder
from jaxmeta.recipes.progress import Progress
from jaxmeta.recipes.results import closing_lines, summarise_seeds
from jaxmeta.recipes.runner import run
from jaxmeta.training.parallel import is_first_process, on_first_process
from jaxmeta.training.processes import join


def words(metavar: str, read: Any) -> Any:
    """An option with several values in one word, separated by commas."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda given: read(given[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda values: [",".join(map(str, values))],
    )


def _seeds(word: str) -> tuple[int, ...]:
    """The numbers of a word; empty if it is invalid, since tyro would show a raw error."""
    numbers = word.split(",")
    return tuple(map(int, numbers)) if all(number.strip().isdigit() for number in numbers) else ()


Seeds = Annotated[tuple[int, ...], words("INT,INT,...", _seeds)]
Modules = Annotated[tuple[str, ...], words("MODULE,...", lambda word: tuple(word.split(",")))]


@dataclass(frozen=True)
class RunOptions:
    """The run folder, devices and processes."""

    preset: str | None = None
    """Name of a preset, as published where possible; other options override its settings."""
    out: Path | None = None
    """Run folder. Defaults to a new folder runs/NAME, or the newest one with --resume."""
    resume: bool = False
    """Continue from the newest checkpoint in the run folder, or start if it has none yet."""
    overwrite: bool = False
    """Delete the run in the folder and start again."""
    devices: int | None = None
    """Number of devices that share a task batch. Defaults to as many as speed it up."""
    coordinator: str | None = None
    """For several processes: HOST:PORT of process 0, or auto on a cluster."""
    num_processes: int | None = None
    """Number of processes. Defaults to the cluster's number."""
    process_id: int | None = None
    """Number of this process, from 0; process 0 writes the files. Defaults to the cluster's."""
    seeds: Seeds | None = None
    """Run with each of these seeds, such as 0,1,2, and report the mean with a 95 % interval."""
    recipes: Modules = ()
    """Python modules with your own learners or tasks, such as my_module, separated by commas."""


def run_experiment(domain: type[Domain], arguments: list[str], prog: str) -> None:
    """Parse the arguments, run, print the closing lines.

    Raises:
      ValueError, OSError: with a message of one line for the command line.
    """
    options, experiment = parse(domain, arguments, prog)
    settings.check(experiment)
    if options.seeds is not None and len({*options.seeds}) < max(2, len(options.seeds)):
        raise ValueError(
            "--seeds: give two or more different numbers, such as 0,1; for a single one, --seed 0."
        )
    if options.seeds is not None and experiment.training.seed != Training.seed:
        raise ValueError(f"--seed {experiment.training.seed} with --seeds: give one of them.")
    if options.overwrite and options.out is None:
        raise ValueError("--overwrite requires --out, the folder of the run to replace.")
    _join(options)
    progress = Progress(quiet=not is_first_process())
    say = print if is_first_process() else lambda line: None

    def of_seed(folder: Path, seed: int) -> Any:
        training = dataclasses.replace(experiment.training, seed=seed)
        return run(
            dataclasses.replace(experiment, training=training),
            folder,
            resume=options.resume,
            overwrite=options.overwrite,
            devices=options.devices,
            progress=progress,
        )

    with folder_for(experiment, options) as folder:
        if options.seeds is None:
            results, tasks = of_seed(folder, experiment.training.seed)
            for line in closing_lines(tasks, results):
                say(line)
        else:
            _of_all_seeds(folder, options, of_seed, say, progress)
    say(f"results, pictures and checkpoints: {folder}")


def _of_all_seeds(
    folder: Path,
    options: RunOptions,
    of_seed: Callable[[Path, int], Any],
    say: Callable[[str], object],
    progress: Progress,
) -> None:
    """One run per seed, each in its own folder, and their mean."""
    assert options.seeds is not None
    with contextlib.ExitStack() as held:
        take = locked_seeds_folder(
            folder,
            options.seeds,
            resume=options.resume,
            overwrite=options.overwrite,
            say=progress.say,
        )
        on_first_process(lambda: held.enter_context(take))
        all_results, tasks = [], None
        for seed in options.seeds:
            results, tasks = of_seed(folder / f"seed_{seed}", seed)
            for line in closing_lines(tasks, results):
                say(f"seed {seed}: {line}")
            all_results.append(results)
        assert tasks is not None
        for line in summarise_seeds(folder, tasks, all_results):
            say(line)


@contextlib.contextmanager
def folder_for(experiment: Experiment, options: RunOptions) -> Iterator[Path]:
    """The run folder: the one given, or a new one, which is removed if it stays empty."""
    if options.resume and options.out is not None and not options.out.exists():
        raise ValueError(
            f"--resume: {shown(options.out)} does not exist; give the folder of a run that was "
            "started, or leave --resume out."
        )
    if options.out is not None or options.resume:
        yield options.out or folder_of(experiment, options)
        return
    while True:
        folder = folder_of(experiment, options)
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:  # another process has just made it
            continue
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def folder_of(experiment: Experiment, options: RunOptions) -> Path:
    """The default folder, such as `runs/maml-glyphs-5w1s-seed0`, see `run_folder`."""
    name = f"{experiment.learner.name}-{experiment.domain.label()}"
    if options.seeds is None:
        name += f"-seed{experiment.training.seed}"
    return run_folder(name, options.resume)


def _join(options: RunOptions) -> None:
    """Join the other processes, if there are any."""
    alone = {"num-processes": options.num_processes, "process-id": options.process_id}
    if options.coordinator is None:
        for name, value in alone.items():
            if value is not None:
                raise ValueError(f"--{name} {value} without --coordinator: give HOST:PORT or auto.")
        return
    if options.out is None:
        raise ValueError("several processes require --out, a run folder that all of them can see.")
    join(options.coordinator, options.num_processes, options.process_id)


def parse(
    domain: type[Domain], arguments: list[str], prog: str = "jaxmeta"
) -> tuple[RunOptions, Experiment]:
    """The options and the experiment: the defaults of learner and preset, with given options.

    The arguments are parsed twice: the learner, preset and task of the first pass decide the
    defaults of the second pass, which `--help` shows.

    Raises:
      ValueError: an unknown learner or preset, with the nearest names; an option both before and
        after the learner's name.
    """
    recipes = registry.known_learners(*domain.kinds)
    if domain.default_learner not in recipes:
        raise ValueError(
            f"{domain.name}: its default_learner {domain.default_learner!r} does not support tasks "
            f"of kind {domain.kind}; learners that do: {', '.join(recipes) or 'none'}."
        )
    default = recipes[domain.default_learner]
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] in registry.known_learners() and arguments[0] not in recipes:
            Experiment(domain(), registry.find_learner(arguments[0])()).check()
        registry.check_known("learner", arguments[0], list(recipes))
        if len(recipes) == 1:  # with a single choice tyro has no subcommand, so no name for it
            arguments = arguments[1:]
    elif not {"-h", "--help"} & {*arguments}:
        arguments = _with_learner(arguments, default.name, recipes)
    without_help = [argument for argument in arguments if argument not in ("-h", "--help")]
    options, experiment = _read(without_help, start(domain, default), recipes, prog)
    preset = options.preset or experiment.domain.default_preset()
    return _read(arguments, start(domain, type(experiment.learner), preset), recipes, prog)


def _with_learner(arguments: list[str], default: str, recipes: Mapping[str, Any]) -> list[str]:
    """The arguments with a learner first: tyro accepts an option on one side of its name only.

    Raises:
      ValueError: an option both before and after the learner's name.
    """
    place = next((place for place, word in enumerate(arguments) if word in recipes), None)
    if place is None:
        return [default, *arguments] if len(recipes) > 1 else arguments
    before, after = (
        {word.split("=")[0].replace("_", "-") for word in words if word.startswith("--")}
        for words in (arguments[:place], arguments[place:])
    )
    if before & after:
        raise ValueError(
            f"{min(before & after)} is given before and after {arguments[place]}; give it once."
        )
    return arguments


def presets_of(domain: type[Domain], learner: type[Recipe]) -> str:
    """The presets of a domain, each with its wall time and published result."""
    shown = []
    for preset in domain.presets:
        own = presets_for(domain, learner, preset.pattern)
        facts = [more.wall_time for more in own if more.wall_time][-1:]
        published = [
            more.published[preset.pattern] for more in own if preset.pattern in more.published
        ]
        facts += [f"published {figure}" for figure in published if isinstance(figure, str)]
        shown.append(preset.pattern + (f" ({'; '.join(facts)})" if facts else ""))
    return ", ".join(shown)


def _first_line(own: type) -> str:
    """The summary of a docstring, which help shows without the example below it."""
    return (own.__doc__ or "").partition("\n")[0]


def _read(
    arguments: list[str], defaults: Experiment, recipes: dict[str, type[Recipe]], prog: str
) -> tuple[RunOptions, Experiment]:
    learner, domain = defaults.learner, type(defaults.domain)
    choices = tuple(
        Annotated[
            kind,
            tyro.conf.subcommand(
                kind.name,
                default=learner if type(learner) is kind else kind(),
                description=kind.__doc__,
            ),
        ]
        for kind in recipes.values()
    )
    # The names of the fields become the headings of the groups of options in `--help`.
    command = make_dataclass(
        "Command",
        [
            ("run", RunOptions),
            ("training", Annotated[Training, tyro.conf.arg(help=_first_line(Training))]),
            ("tasks", domain),
            ("learner", Union[choices], field(default=learner)),  # noqa: UP007
        ],
    )
    parsed = tyro.cli(
        command,
        args=arguments,
        default=command(RunOptions(), defaults.training, defaults.domain, learner),
        prog=prog,
        description=f"{domain.__doc__} Presets, with the times and the published results of "
        f"{learner.name}: {presets_of(domain, type(learner))}.",
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.CascadeSubcommandArgs,
        ),
    )
    return parsed.run, Experiment(parsed.tasks, parsed.learner, parsed.training)

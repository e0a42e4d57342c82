"""The entry point of the command line: dispatches to experiments and to tools for runs."""

import importlib
import sys

from jaxmeta.commands.guard import guarded, recipes_named

# What each tool does; it is the module of that name in this package.
TOOLS = {
    "evaluate": "Evaluate a run again, also with other ways, shots or data.",
    "predict": "Use a run, or a trained learner by name, on tasks of your own.",
    "compare": "Compare runs on the same test tasks, pairwise.",
    "curves": "Draw a metric along the training of several runs.",
    "baselines": "Evaluate a pre-trained network without meta-learning.",
    "transfer": "Test runs on other image sets: a matrix, ranks, calibration.",
    "compress": "Compress the weights of a run, and measure the accuracy and the time.",
    "active": "Choose which examples to label; measure the accuracy over the labels.",
    "package": "Pack a finished run into a small folder.",
}


def main(
    command: str | None = None, arguments: list[str] | None = None, prog: str | None = None
) -> int:
    """Run a command and return its exit status.

        main("few-shot", ["prototypical", "--steps", "500"])

    Args:
      command: the name of an experiment or of a tool. Defaults to the first argument.
      arguments: the command's arguments. Defaults to the arguments of the process.
      prog: how the command was called, for its help.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if command is None:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(usage())
            return 0
        command, *arguments = arguments
    name, prog = command.replace("_", "-"), prog or f"jaxmeta {command}"

    def work() -> None:
        if name in TOOLS:
            module = importlib.import_module(f"jaxmeta.commands.{name}")
            module.command(arguments, prog)
        else:
            from jaxmeta.commands.experiment import run_experiment
            from jaxmeta.recipes import registry

            registry.load(recipes_named(arguments))
            registry.check_known("command", name, [*registry.known_domains(), *TOOLS])
            run_experiment(registry.find_domain(name), arguments, prog)

    return guarded(work)


def usage() -> str:
    """The list of commands."""
    from jaxmeta.recipes import known_domains

    known = {name: own.__doc__ or "" for name, own in sorted(known_domains().items())}
    lines = ["usage: jaxmeta COMMAND [LEARNER] [OPTIONS]; jaxmeta COMMAND --help", ""]
    for name, text in (known | TOOLS).items():
        lines.append(f"  {name:14} {' '.join(text.split())}")
    return "\n".join(lines)

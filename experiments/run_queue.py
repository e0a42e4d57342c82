"""Train a list of runs in the background, one at a time, from a frozen copy of the source.

    python -m experiments.run_queue start [LIST] [--folder runs/queue] [--cpus 1]
    python -m experiments.run_queue status      # and pause, continue, stop

LIST has one run per line, NAME COMMAND [OPTIONS], and comments after #:

    maml-omniglot            few_shot maml --preset omniglot-5w1s
    maml-omniglot/10-steps   evaluate --eval-inner-steps 10

A name with a slash is a further evaluation of a finished run. The folder of the queue contains
`source`, a git worktree of one commit, so that later edits do not affect the runs; the run folders;
the output of each run in NAME.log, that of the queue in queue.log; and queue.json, its state.
Everything may be killed at any time: `start` continues a run from its last checkpoint.
"""

import os
import platform
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from jaxmeta import files
from jaxmeta.commands.guard import guarded
from jaxmeta.recipes.folders import CONFIG, RESULTS
from jaxmeta.training.logs import read_metrics

ROOT = Path(__file__).parents[1]
FOLDER = Path("runs/queue")
SOURCE, STATE, LOG = "source", "queue.json", "queue.log"


class Run(NamedTuple):
    """A line of the list: a run folder, or RUN/EVALUATION, and the words of the command."""

    name: str
    words: list[str]


def read_list(path: Path) -> list[Run]:
    """The runs of a list; raises `ValueError`, with the line, if one is wrong."""
    runs: list[Run] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            name, *words = shlex.split(line, comments=True) or [""]
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}.") from error
        if not name:
            continue
        command = ROOT / "experiments" / f"{words[0].replace('-', '_') if words else ''}.py"
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) or name.split("/")[0] == SOURCE:
            fault = f"the name {name!r}; give letters, digits and hyphens, and not {SOURCE!r}"
        elif name in [run.name for run in runs]:
            fault = f"{name} appears twice; give each run a name of its own"
        elif not command.is_file() or ("/" in name) != (words[0] == "evaluate"):
            fault = f"{line.strip()!r}; give NAME COMMAND [OPTIONS], or RUN/NAME evaluate [OPTIONS]"
        else:
            runs.append(Run(name, [command.stem, *words[1:]]))
            continue
        raise ValueError(f"{path}, line {number}: {fault}.")
    return runs


def result_of(folder: Path, run: Run) -> Path:
    """The file that exists once the run is finished."""
    return folder / (f"{run.name}.json" if "/" in run.name else f"{run.name}/{RESULTS}")


def begun(folder: Path, run: Run) -> list[Path]:
    """The folders that a run has begun, one per seed; the newest is the last."""
    found = [folder / run.name / CONFIG, *(folder / run.name).glob(f"seed_*/{CONFIG}")]
    return [path.parent for path in sorted(filter(Path.exists, found), key=os.path.getmtime)]


def command_of(folder: Path, run: Run) -> list[str]:
    """The command line that starts or continues a run, as given in the folder of the source."""
    command, *options = run.words
    words, out = [sys.executable, "-m", f"experiments.{command}"], f"../{run.name}"
    if "/" in run.name:
        return [*words, os.path.dirname(out), *options, "--out", f"{out}.json"]
    return [*words, *options, "--out", out, *(["--resume"] if begun(folder, run) else [])]


def work(folder: Path = FOLDER) -> None:
    """Train the runs in the foreground; start does this in the background.

    Args:
      folder: Folder of the queue.
    """
    signals = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    # A run inherits the lock: if the queue is killed, the folder is locked until the run ends.
    with files.locked(folder) as lock:
        state = read_state(folder)
        for run in state["runs"]:
            if signals or result_of(folder, run).exists():
                continue
            log, trained = folder / f"{run.name.replace('/', '-')}.log", run.name.split("/")[0]
            if "/" in run.name and not (folder / trained / RESULTS).exists():
                state["failed"][run.name] = f"{trained} is not finished"
                continue
            files.write_json(folder / STATE, {**state, "current": run.name})
            process = _started(command_of(folder, run), folder / SOURCE, log, pass_fds=[lock])
            if signals:  # before the run could receive them, as all of the process group
                process.terminate()
            ended = process.wait()
            if not signals and not result_of(folder, run).exists():
                state["failed"][run.name] = f"status {ended}, {_last_line(log)}"
            print(f"{time.strftime('%F %T')} {run.name}: status {ended}", flush=True)
        files.write_json(folder / STATE, state)


def _started(command: list[str], place: Path, log: Path, **options: Any) -> subprocess.Popen[Any]:
    nothing = subprocess.DEVNULL
    with log.open("ab") as out:
        return subprocess.Popen(
            command, cwd=place, stdin=nothing, stdout=out, stderr=out, **options
        )


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return files.shown(next(filter(None, reversed(lines)), "without output"))


def read_state(folder: Path) -> dict[str, Any]:
    """The content of queue.json: the runs, the current one, the failed ones with their errors."""
    if not (folder / STATE).is_file():
        raise FileNotFoundError(f"{folder} has no queue; start one.")
    state = files.read_json(folder / STATE)
    return {**state, "runs": [Run(*run) for run in state["runs"]]}


def start(
    runs: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[LIST]")] = None,
    folder: Path = FOLDER,
    cpus: tuple[int, ...] = (),
) -> None:
    """Start the queue in the background, or continue it. Failed runs are tried again.

    Args:
      runs: File with one run per line. Defaults to the previous list, or to
        experiments/omniglot.txt.
      folder: Folder of the queue, for everything that it and its runs write.
      cpus: Core numbers, such as 0 1. Defaults to all cores.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if group := group_of(folder):
        raise ValueError(f"the queue in {folder} is {activity(group)} already.")
    last = read_state(folder)["list"] if (folder / STATE).exists() else "experiments/omniglot.txt"
    path = ROOT / last if runs is None else runs.resolve()
    state = {"list": str(path), "runs": read_list(path), "current": None, "failed": {}}
    if cpus and hasattr(os, "sched_setaffinity"):  # of this process, and all that it starts
        if not {*cpus} <= (own := os.sched_getaffinity(0)):
            raise ValueError(f"--cpus {shlex.join(map(str, cpus))}: choose from {sorted(own)}.")
        os.sched_setaffinity(0, cpus)
    commit = freeze(folder / SOURCE)
    os.setpriority(os.PRIO_PROCESS, 0, max(15, os.getpriority(os.PRIO_PROCESS, 0)))
    files.write_json(folder / STATE, state)
    command = [sys.executable, "-m", "experiments.run_queue", "work", "--folder", str(folder)]
    # A session of its own outlives the terminal, and is one process group.
    process = _started(command, ROOT, folder / LOG, start_new_session=True)
    while process.poll() is None and files.lock_holder(folder) != (process.pid, platform.node()):
        time.sleep(0.1)
    if process.returncode:
        raise ValueError(f"the queue ended: {_last_line(folder / LOG)}")
    print(f"{path}, commit {commit}, process {process.pid}; see {folder / LOG}")


def freeze(source: Path, root: Path = ROOT) -> str:
    """The commit of the source, which is made from the present commit if it does not exist.

    Raises:
      ValueError: there are changes without a commit, here or in the source.
    """
    if not source.exists():
        if changed := _git(root, "status", "--porcelain", "jaxmeta", ":(glob)experiments/*.py"):
            raise ValueError(f"commit these changes first: {' '.join(changed.split())}.")
        _git(root, "worktree", "add", "--force", "--detach", str(source), "HEAD")
    elif not (source / ".git").exists() or _git(source, "status", "--porcelain", "-uno"):
        raise ValueError(f"{source} is incomplete or was edited; remove it to make it again.")
    return _git(source, "rev-parse", "--short=12", "HEAD")


def _git(folder: Path, *words: str) -> str:
    found = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True)
    if found.returncode:
        raise ValueError(f"git {words[0]} in {folder}: {' '.join(found.stderr.split())}")
    return found.stdout.strip()


def group_of(folder: Path) -> int | None:
    """The process group of the queue and its run; None if neither is alive."""
    try:
        with files.locked(folder):
            return None
    except BlockingIOError:
        holder = files.lock_holder(folder)
    if holder is None:  # the lock has changed hands at this moment
        raise ValueError(f"the process that holds the lock of {folder} is not known; try again.")
    number, node = holder
    if node != platform.node():
        raise ValueError(f"the queue in {folder} is on {node}; give this command there.")
    return number


def activity(group: int) -> str:
    """`running` or `paused`, from the states of the processes."""
    try:
        listed = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True)
    except FileNotFoundError:  # some containers have no `ps`
        return "running"
    rows = [line.split() for line in listed.stdout.splitlines()]
    return "paused" if any(row[1][0] == "T" for row in rows if row[0] == str(group)) else "running"


def _send(folder: Path, *signals: signal.Signals) -> None:
    group = group_of(folder) if folder.is_dir() else None
    if group is None:
        raise ValueError(f"the queue in {folder} is not running; start it first.")
    for number in signals:
        os.killpg(group, number)


def pause(folder: Path = FOLDER) -> None:
    """Pause the run at once, for example while something is measured.

    Args:
      folder: Folder of the queue.
    """
    _send(folder, signal.SIGSTOP)


def resume(folder: Path = FOLDER) -> None:
    """Continue after a pause.

    Args:
      folder: Folder of the queue.
    """
    _send(folder, signal.SIGCONT)


def stop(folder: Path = FOLDER) -> None:
    """Save a checkpoint of the run and end the queue; start continues it.

    Args:
      folder: Folder of the queue.
    """
    _send(folder, signal.SIGTERM, signal.SIGCONT)
    while group_of(folder):
        time.sleep(0.2)


def status(folder: Path = FOLDER) -> None:
    """Print the state, steps, best validation, test result and minutes of each run.

    Args:
      folder: Folder of the queue.
    """
    state, group = read_state(folder), group_of(folder)
    now = activity(group) if group else "stopped"
    rows = [("run", "state", "steps", "minutes", "validation", "test")]
    for run in state["runs"]:
        kind = "stopped" if begun(folder, run) else "waiting"
        if result_of(folder, run).exists():
            kind = "finished"
        elif group and run.name == state["current"]:
            kind = now
        elif run.name in state["failed"]:
            kind = "failed"
        rows.append((run.name, kind, *_training(folder, run), _test(result_of(folder, run))))
    widths = [max(map(len, column)) for column in zip(*rows)]
    print(*("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), sep="\n")
    for name, fault in state["failed"].items():
        print(f"{name} failed: {fault}")
    print(f"The queue is {now}.")


def _training(folder: Path, run: Run) -> tuple[str, str, str]:
    """Steps, minutes and best validation of a run; with several seeds, of the newest."""
    if not (own := begun(folder, run)):
        return "–", "–", "–"
    rows, best = read_metrics(own[-1]), "–"
    whole = files.read_json(own[-1] / CONFIG)["training"]["steps"]
    for name, choose in (("loss", min), ("accuracy", max)):  # the accuracy, if there is one
        values = [row.get(f"validation_{name}") for row in rows]
        if known := [value for value in values if value is not None]:
            best = _shown(name, choose(known))
    gaps = [after["time"] - before["time"] for before, after in pairwise(rows)]
    usual = statistics.median(gaps or [0])
    # A gap of ten times the usual one is a pause, or a time when the queue was stopped.
    minutes = sum(gap if gap < 10 * usual else usual for gap in gaps) / 60
    return f"{rows[-1]['step'] if rows else 0:,} of {whole:,}", f"{minutes:,.0f}", best


def _test(path: Path) -> str:
    if not path.exists():
        return "–"
    found = files.read_json(path)
    name = found.get("figure", "accuracy" if "accuracy" in found else "loss")
    return " ± ".join(_shown(name, found.get(key)) for key in (name, f"{name}_ci95"))


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "NaN"
    return f"{100 * value:.2f} %" if name.startswith("accuracy") else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> None:
    """Carry out a command of the command line."""
    commands = {"start": start, "status": status, "pause": pause, "continue": resume}
    tyro.extras.subcommand_cli_from_dict(
        {**commands, "stop": stop, "work": work},
        args=arguments,
        prog="python -m experiments.run_queue",
        description=__doc__,
    )


if __name__ == "__main__":
    sys.exit(guarded(main))

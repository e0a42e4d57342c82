"""The committed notebooks: run from top to bottom, with outputs that tell nothing of a machine.

That they run is tested by pytest itself, with nbmake.
"""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from jaxmeta.commands.experiment import parse
from jaxmeta.recipes import find_domain, known_domains, settings

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
OF_A_MACHINE = (
    r"/(home|Users|root|tmp|work|private|mnt)/|[A-Z]:\\\\|\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b"
)


def text(lines) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def test_there_are_thirteen():
    assert sorted(int(path.name.partition("_")[0]) for path in NOTEBOOKS) == [*range(1, 14)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_with_what_it_gave(path):
    notebook = json.loads(path.read_text())
    opening = text(notebook["cells"][0]["source"])
    assert opening.startswith("# ")
    assert re.search(r"(seconds|half a minute) on two CPU cores", " ".join(opening.split()))

    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    pictures = 0
    for cell in code:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", text(output.get("text", ""))
            data = output.get("data", {})
            pictures += "image/png" in data
            written = [output.get("text", ""), data.get("text/plain", "")]
            assert not re.search(OF_A_MACHINE, "".join(map(text, written)))
    assert pictures >= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_light_and_names_no_machine(path):
    assert path.stat().st_size < 500_000
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert "execution" not in cell["metadata"]  # the time of each cell
        begins_amid_a_sentence = text(cell["source"])[:1].islower()
        assert not (cell["cell_type"] == "markdown" and begins_amid_a_sentence)
        assert not re.search(OF_A_MACHINE, text(cell["source"]))


COMMANDS = sorted(
    {
        tuple(shlex.split(command))
        for path in NOTEBOOKS
        for cell in json.loads(path.read_text())["cells"]
        for command in re.findall(
            r"python -m experiments\.([^\n`#]+)", text(cell["source"]).replace("\\\n", "")
        )
    }
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_that_a_notebook_names_is_understood(command):
    name, *arguments = command
    if name.replace("_", "-") in known_domains():
        _, experiment = parse(find_domain(name), arguments)
        settings.check(experiment)
    else:
        importlib.import_module(f"experiments.{name}")

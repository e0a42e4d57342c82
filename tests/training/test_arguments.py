"""The engine knows no command line: its texts name arguments, not flags."""

import ast
import re
from pathlib import Path

import pytest

from jaxmeta import training

# Of the command line, which moves out of the engine.
SOURCES = list(Path(training.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_text_names_a_flag(path):
    texts = [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    flags = [flag for text in texts for flag in re.findall(r"--[A-Za-z][\w-]*", text)]
    assert not flags, f"say the argument or the fact in place of {flags}"

"""Every public name is found in the built reference, and typed for a strict checker."""

import importlib
import importlib.util
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import jaxmeta

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]
USER_PROGRAM = Path(__file__).with_name("user_program.py")
PACKAGES = [
    "jaxmeta",
    *(found.name for found in pkgutil.walk_packages(jaxmeta.__path__, "jaxmeta.") if found.ispkg),
]
NAMES = [
    (package, name)
    for package in PACKAGES
    for name in getattr(importlib.import_module(package), "__all__", [])
]


def inventory(file: Path) -> set[str]:
    """The names that other sites can link to: behind four lines, compressed, one name a line."""
    lines = zlib.decompress(file.read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {line.split()[0] for line in lines}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The reference, built with every warning an error."""
    for module in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: uv run --group docs pytest")
    folder = tmp_path_factory.mktemp("site")
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "mkdocs", "build", "--strict"),  # --quiet would hide warnings
            *("-f", str(ROOT / "docs" / "mkdocs.yml"), "-d", str(folder)),
        ],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder


def test_the_reference_has_every_public_name(site):
    paths = {f"{package}.{name}" for package, name in NAMES}
    assert not paths - inventory(site / "objects.inv")


def test_the_reference_has_every_notebook(site):
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        assert (site / "notebooks" / notebook.stem / "index.html").is_file()


def test_a_users_program_passes_the_strict_checker(tmp_path):
    shutil.copy(USER_PROGRAM, tmp_path)
    # optax comes without a mark that it is typed, which is not the user's fault nor ours
    settings = {"typeCheckingMode": "strict", "reportMissingTypeStubs": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    finished = subprocess.run(
        [sys.executable, "-m", "pyright", "-p", str(tmp_path), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_a_users_program_runs(capsys):
    spec = importlib.util.spec_from_file_location("user_program", USER_PROGRAM)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    program.main()
    numbers = r"loss \d+\.\d\d, logits \(6, 3\), accuracy \d\.\d\d ± \d\.\d\d\n"
    assert re.fullmatch(numbers, capsys.readouterr().out)

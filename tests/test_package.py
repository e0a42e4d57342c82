"""The wheel, installed in fresh environments as a user would."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[1]


def run(*words: object, folder: Path, succeeds: bool = True) -> str:
    finished = subprocess.run(
        [str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=900
    )
    assert (finished.returncode == 0) == succeeds, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", folder, ROOT, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_packed_learners_are_in_the_wheel_and_in_the_sources(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "jaxmeta", tmp_path / "jaxmeta", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    wanted = {f"jaxmeta/weights/tiny/{name}" for name in ("config.json", "weights.npz")}
    for name in wanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    run(sys.executable, "-m", "uv", "build", "--out-dir", "built", folder=tmp_path)
    (wheel,), (source,) = ((tmp_path / "built").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    assert wanted <= {*zipfile.ZipFile(wheel).namelist()}
    with tarfile.open(source) as archive:
        assert wanted <= {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture
def install(wheel, tmp_path):
    """`install(extras)`: the folder of programs of an environment that has the wheel."""

    def installed(extras: str) -> Path:
        uv, environment = (sys.executable, "-m", "uv"), tmp_path / "environment"
        run(*uv, "venv", "--python", sys.executable, environment, folder=tmp_path)
        python = environment / "bin" / "python"
        run(*uv, "pip", "install", "--python", python, f"{wheel}{extras}", folder=tmp_path)
        return environment / "bin"

    return installed


def test_the_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxmeta"}
    assert not [name for name in names if name.startswith("jaxmeta/") and "test" in name]


def test_the_library_alone_runs_the_sample_and_names_the_extras(install, tmp_path):
    programs = install("")
    (sample,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "sample.py").write_text(sample)
    said = run(programs / "python", "sample.py", folder=tmp_path)
    before, after = map(float, re.findall(r"\d+\.\d", said))
    assert after < before / 2

    letters = "from jaxmeta.data import load; load('glyphs')"
    said = run(programs / "python", "-c", letters, folder=tmp_path, succeeds=False)
    assert "pip install 'jaxmeta[data]'" in said.splitlines()[-1]
    said = run(programs / "jaxmeta", "few-shot", folder=tmp_path, succeeds=False)
    assert said == "error: tyro is not installed; run: pip install 'jaxmeta[train]'\n"


def test_with_all_extras_the_command_runs(install, tmp_path):
    programs = install("[all]")
    options = ["--steps", "20", "--eval-tasks", "20", "--validation-tasks", "10", "--width", "8"]
    said = run(programs / "jaxmeta", "few-shot", *options, folder=tmp_path)
    assert re.search(r"maml · glyphs · 5-way 1-shot · \d+\.\d ± \d+\.\d % on 20 held-out", said)
    assert shutil.which("jaxmeta", path=str(programs))

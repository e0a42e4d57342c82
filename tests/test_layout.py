"""Imports point down, importing is light, public names are explained."""

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxmeta
from jaxmeta import learners
from jaxmeta.recipes import known_domains, known_learners

ROOT = Path(__file__).parent.parent

# From the top of the tower down; a floor may use itself and every floor below it.
TOWER = [
    *("experiments", "commands", "tables", "recipes", "active", "compress", "training"),
    *("learners", "inner", "models", "ops", "core", "metrics", "calibration", "objectives"),
    "files",
    *("architecture", "environment", "numbered", "text", "extras", "interrupts", "places"),
    "version",
]
BELOW = {floor: set(TOWER[height:]) for height, floor in enumerate(TOWER)}
for above in ("experiments", "commands", "tables", "recipes"):
    BELOW[above] |= {"data", "plots"}
BELOW["training"] |= {"data"}
BELOW["plots"] = {"plots"} | BELOW["learners"]  # beside training
for beside in ("architecture", "environment", "numbered", "text"):
    BELOW[beside] = {"core", "objectives"}
BELOW["data"] = {"data", "core", "environment", "objectives", "files", "extras", "version"}
BELOW["data"] |= {"architecture", "metrics", "numbered", "places", "text"}
BELOW["core"] = {"core", "objectives"}
BELOW["objectives"], BELOW["calibration"] = {"objectives"}, {"calibration", "objectives"}
BELOW["metrics"] = {"metrics"} | BELOW["calibration"]
BELOW["files"], BELOW["places"] = {"files"}, {"places"}
BELOW["extras"], BELOW["interrupts"] = {"extras"}, {"interrupts"}

HEAVY = (
    "PIL",
    "array_record",
    "grain",
    "gymnax",
    "matplotlib",
    "orbax",
    "safetensors",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "tokenizers",
)

SOURCES = sorted([*ROOT.glob("jaxmeta/**/*.py"), *ROOT.glob("experiments/**/*.py")])
PACKAGES = [
    "jaxmeta",
    *(found.name for found in pkgutil.walk_packages(jaxmeta.__path__, "jaxmeta.") if found.ispkg),
]


def floor(module: str) -> str:
    """`training` of `jaxmeta.training.loop`; `jaxmeta` alone is the roof, over everything."""
    parts = module.split(".")
    return parts[1] if parts[0] == "jaxmeta" and len(parts) > 1 else parts[0]


def imports(tree: ast.AST, *, for_types: bool = True) -> set[str]:
    """The dotted names that a file imports, at its head or within functions.

    `for_types`: also those that only a type checker sees.
    """
    unseen = set()
    for node in ast.walk(tree):
        if not for_types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            unseen |= {*ast.walk(node)}
    found = set()
    for node in {*ast.walk(tree)} - unseen:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from jaxmeta import core` imports a floor, `from jaxmeta import Task` the roof
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_floors(tree: ast.AST, *, for_types: bool = True) -> set[str]:
    floors = {path.stem for path in (ROOT / "jaxmeta").iterdir()}
    found = set()
    for name in imports(tree, for_types=for_types):
        if name.split(".")[0] in ("jaxmeta", "experiments"):
            used = floor(name)
            found.add(used if used in floors or used == "experiments" else "jaxmeta")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path):
    own = floor(".".join(path.relative_to(ROOT).with_suffix("").parts))
    own = "commands" if own == "__main__" else own  # `python -m jaxmeta`
    tree = ast.parse(path.read_text())
    used = imported_floors(tree)
    if own == "__init__":  # of jaxmeta: the vocabulary; all else waits until it is named
        assert imported_floors(tree, for_types=False) <= {"core", "interrupts", "version"}
    elif own == "experiments":
        assert used <= BELOW[own] | {"jaxmeta"}
    else:
        assert own in BELOW, f"{own} has no place in the layout: give it one in TOWER"
        assert used <= BELOW[own], f"{own} may not import {sorted(used - BELOW[own])}"


@pytest.mark.parametrize(
    ("line", "floors"),
    [
        ("from jaxmeta.inner import unroll", {"inner"}),
        ("from jaxmeta import data, Task", {"data", "jaxmeta"}),
        ("import jaxmeta.models._mlp", {"models"}),
        ("def f():\n  from experiments.run import run", {"experiments"}),
        ("import numpy", set()),
    ],
)
def test_an_import_is_seen_in_every_form(line, floors):
    assert imported_floors(ast.parse(line)) == floors


# --- recipes and domains are known to their own files alone -------------------------------

REGISTERED = {**known_domains(), **known_learners()}
BUILT_IN = {n: own for n, own in REGISTERED.items() if own.__module__.startswith("jaxmeta.")}
# A domain may have the name of its kind of task, which recipes do ask for.
KINDS = {kind for own in known_domains().values() for kind in own.kinds}
# Files that speak of something else of that name.
OF_THE_SAME_NAME = {
    "jaxmeta.recipes.learners.ntm": {"lstm"},  # a controller
    "jaxmeta.commands.active": {"random"},  # an acquisition rule
    "jaxmeta.recipes.learned_rule": {"evolution"},  # a meta-gradient
    "jaxmeta.recipes.sentence_baselines": {"text"},  # an extra
}
# Where no learner or domain is special; jaxmeta/learners has the functions, experiments/ doors
# and benchmarks of chosen learners.
FLOORS = ("commands", "recipes", "training", "plots", "inner", "models", "ops")


def named_elsewhere(tree: ast.AST, module: str) -> set[str]:
    """The recipes and domains of other files that a file names: their class, or their name as a
    string, but for a default learner."""
    classes = {(own.__module__, own.__name__) for own in BUILT_IN.values()}
    names = {name for name, own in BUILT_IN.items() if own.__module__ != module} - KINDS
    allowed = {
        node
        for assigned in ast.walk(tree)
        if isinstance(assigned, ast.AnnAssign) and ast.unparse(assigned.target) == "default_learner"
        for node in ast.walk(assigned)
    }
    found = set()
    for node in {*ast.walk(tree)} - allowed:
        if isinstance(node, ast.ImportFrom) and node.module != module:
            found |= {alias.name for alias in node.names if (node.module, alias.name) in classes}
        elif isinstance(node, ast.Attribute):
            within = ast.unparse(node.value).rpartition(".")[2]
            found |= {
                name
                for place, name in classes
                if name == node.attr and place.rpartition(".")[2] == within and place != module
            }
        elif isinstance(node, ast.Constant) and node.value in names:
            found.add(str(node.value))
        elif isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(".name"):
            for compared in node.comparators:
                if isinstance(compared, ast.Constant) and compared.value in BUILT_IN:
                    found.add(str(compared.value))
    return found - OF_THE_SAME_NAME.get(module, set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_names_the_recipes_and_domains_of_others(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found = named_elsewhere(ast.parse(path.read_text()), module)
    if floor(module) not in FLOORS:
        found -= REGISTERED.keys()  # strings; a class is named nowhere
    assert not found, (
        f"{module} names {', '.join(sorted(found))}: let the recipe or domain say what it needs, "
        "in Needs, Problem or Tasks"
    )


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from jaxmeta.recipes.learners.maml import Maml", {"Maml"}),
        ("from jaxmeta.recipes.learners import maml\nmatch x:\n  case maml.Maml(): pass", {"Maml"}),
        ("isinstance(domain, few_shot.FewShot)", {"FewShot"}),
        ("if recipe.name in LIST or recipe.name == 'regression': pass", {"regression"}),
        ("LIST = ('maml', 'meta-sgd')", {"maml", "meta-sgd"}),
        ("if problem.kind == 'regression': pass", set()),
        ("from collections.abc import Sequence", set()),
        ("class Mine(Domain):\n  default_learner: ClassVar[str] = 'maml'", set()),
    ],
)
def test_a_name_is_seen_in_every_form(code, found):
    assert named_elsewhere(ast.parse(code), "jaxmeta.recipes.runner") == found


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_name_leads_to_its_file(name):
    module = BUILT_IN[name].__module__
    part = "domains" if name in known_domains() else "learners"
    assert module.startswith(f"jaxmeta.recipes.{part}.")
    # A variant stands beside what it varies: first-order-maml in maml.py.
    assert name.replace("-", "_").endswith(module.rpartition(".")[2])


def loaded(statement: str) -> set[str]:
    """The top modules that a fresh interpreter has after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=900, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stderr
    return set(finished.stdout.split())


def test_importing_is_light():
    """`import jaxmeta`, and every package in it, waits with what is heavy until it is used."""
    assert not loaded(f"import {', '.join(PACKAGES)}") & set(HEAVY)


def test_the_package_alone_loads_its_vocabulary_only():
    code = "import jaxmeta, sys; print(*(name for name in sys.modules if 'jaxmeta' in name))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert set(finished.stdout.split()) == {
        f"jaxmeta{name}" for name in ("", ".core", ".interrupts", ".objectives", ".version")
    }


def test_every_learner_is_found_at_the_top():
    found = {name for name in learners.__all__ if inspect.isfunction(getattr(learners, name))}
    assert found <= set(jaxmeta.__all__) <= set(dir(jaxmeta))
    assert all(getattr(jaxmeta, name) is getattr(learners, name) for name in found)
    with pytest.raises(AttributeError, match="has no attribute 'malm'"):
        jaxmeta.malm  # noqa: B018  # pyright: ignore


def test_no_file_names_tensorflow():
    for path in SOURCES:
        named = {name.split(".")[0] for name in imports(ast.parse(path.read_text()))}
        assert "tensorflow" not in named, path


def test_the_version_is_one():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited and cited[1] == jaxmeta.__version__
    assert jaxmeta.__version__ in (ROOT / "CHANGELOG.md").read_text()

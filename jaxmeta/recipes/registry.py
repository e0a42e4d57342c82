"""Recipes and domains by name; the name leads to the file.

`meta-sgd` is declared in `jaxmeta/recipes/learners/meta_sgd.py`, `few-shot` in
`jaxmeta/recipes/domains/few_shot.py`. Your own can be in any module that you name:
`--recipes my_module`, or `restore(run, recipes=["my_module"])`. No module is ever imported
because a file names it.
"""

import difflib
import functools
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)

_LEARNERS: dict[str, Any] = {}
_DOMAINS: dict[str, Any] = {}


def recipe(name: str, *, paper: str, kinds: tuple[str, ...]) -> Callable[[Class], Class]:
    """Register a learner's settings, a frozen dataclass that derives from `Recipe`.

        @recipe("tethered", paper="Authors 2020", kinds=("regression",))
        @dataclass(frozen=True)
        class Tethered(Recipe): ...

    Args:
      name: its name on the command line, in `config.json` and in results.
      paper: authors and year, such as "Li et al. 2017".
      kinds: the kinds of tasks that it supports: classification, regression, sequence, ...

    Raises:
      ValueError: another class has that name.
    """
    return _declare(_LEARNERS, name, paper=paper, kinds=kinds)


def domain(name: str, *, kind: str, also: tuple[str, ...] = ()) -> Callable[[Class], Class]:
    """Register a domain's settings, a frozen dataclass that derives from `Domain`.

        @domain("lines", kind="regression")
        @dataclass(frozen=True)
        class Lines(Domain): ...

    Args:
      name: its name as a command, `python -m jaxmeta NAME`, and in `config.json`.
      kind: the kind of its tasks.
      also: other kinds that its settings may choose, see `Domain.task_kind`.

    Raises:
      ValueError: another class has that name.
    """
    return _declare(_DOMAINS, name, kind=kind, kinds=(kind, *also))


def _declare(known: dict[str, Any], name: str, **attributes: Any) -> Callable[[Class], Class]:
    def register(kind: Class) -> Class:
        other = known.get(name)
        if other is not None and (other.__module__, other.__name__) != (
            kind.__module__,
            kind.__name__,
        ):
            raise ValueError(f"{name!r} is already declared in {other.__module__}; rename one.")
        for attribute, value in {"name": name, **attributes}.items():
            setattr(kind, attribute, value)
        known[name] = kind
        return kind

    return register


def load(modules: Iterable[str]) -> None:
    """Import the user's modules with recipes or domains.

    Raises:
      ValueError: no such module.
    """
    for module in modules:
        if os.getcwd() not in sys.path:  # an installed command does not look in the working folder
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module.split(".")[0] and error.name != module:
                raise
            raise ValueError(
                f"--recipes {module}: no such module in the working folder or on PYTHONPATH."
            ) from error


@functools.cache
def _load_built_in() -> None:
    for package in ("jaxmeta.recipes.learners", "jaxmeta.recipes.domains"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")


def find_learner(name: str) -> Any:
    """The recipe of that name.

    Raises:
      ValueError: an unknown name, with the nearest names.

    >>> find_learner("maml").paper
    'Finn et al. 2017'
    """
    return _find("learner", _LEARNERS, name)


def find_domain(name: str) -> Any:
    """The domain of that name, which may be written with underscores.

    Raises:
      ValueError: an unknown name, with the nearest names.

    >>> find_domain("few-shot").kind
    'classification'
    """
    return _find("experiment", _DOMAINS, name.replace("_", "-"))


def _find(what: str, known: dict[str, Any], name: str) -> Any:
    _load_built_in()
    check_known(what, name, list(known))
    return known[name]


def known_learners(*kinds: str) -> dict[str, Any]:
    """The recipes that support one of these kinds of tasks, by name, in order. Defaults to all.

    >>> "ntm" in known_learners("sequence"), "ntm" in known_learners("regression")
    (True, False)
    """
    _load_built_in()
    known = sorted(_LEARNERS.items())  # whatever was imported first
    return {name: own for name, own in known if not kinds or {*kinds} & {*own.kinds}}


def known_domains() -> dict[str, Any]:
    """All domains by name.

    >>> "few-shot" in known_domains()
    True
    """
    _load_built_in()
    return dict(_DOMAINS)


def check_known(what: str, name: str, known: list[str]) -> None:
    """Raise ValueError with the nearest names if the name is not known."""
    if name not in known:
        near = difflib.get_close_matches(name.replace("_", "-"), known, n=3, cutoff=0.3) or known
        hint = " For one of your own, give its module with --recipes."
        hint = hint if what in ("learner", "experiment") else ""
        raise ValueError(f"unknown {what} {name!r}; the nearest are {', '.join(near)}.{hint}")

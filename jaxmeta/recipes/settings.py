"""Settings as nested frozen dataclasses, checked by their annotations and stored as JSON."""

import dataclasses
import math
import reprlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

Settings = TypeVar("Settings")


class Bound(NamedTuple):
    """A bound of a number, in the annotation of its field.

    Attributes:
      accepts: whether a value is within the bound.
      remedy: what to give instead, as in "give a number that is {remedy}".
    """

    accepts: Callable[[Any], bool]
    remedy: str


class _AtTest:
    """Marks a setting that may change after training: `evaluate` offers it as an option."""


AT_TEST = _AtTest()


class _Place:
    """Marks a setting that is a location of files, such as a folder of images.

    A run's identity depends on the content (`Tasks.data`, `Recipe.data`), not on the location.
    """


PLACE = _Place()

_MOST = 2**31  # JAX counts in 32-bit integers by default

Count = Annotated[int, Bound(lambda value: 1 <= value < _MOST, "at least 1 and below 2^31")]
AtLeastTwo = Annotated[int, Bound(lambda value: 2 <= value < _MOST, "at least 2 and below 2^31")]
Natural = Annotated[int, Bound(lambda value: 0 <= value < _MOST, "0 or more and below 2^31")]
# JAX's keys use 32 bits of a seed, so larger seeds could coincide.
Seed = Annotated[int, Bound(lambda value: 0 <= value < 2**32, "at least 0 and below 2^32")]
Positive = Annotated[float, Bound(lambda value: 0 < value < math.inf, "positive and finite")]
NonNegative = Annotated[float, Bound(lambda value: 0 <= value < math.inf, "0 or more and finite")]
Fraction = Annotated[float, Bound(lambda value: 0 <= value <= 1, "between 0 and 1")]


def option(name: str, value: Any = None) -> str:
    """A setting as the command line writes it, at most 200 characters of each value.

    >>> option("inner_rate", 0.5), option("lengths", (1, 20))
    ('--inner-rate 0.5', '--lengths 1 20')
    """
    words = value if isinstance(value, tuple) else () if value is None else (value,)
    return " ".join(["--" + name.replace("_", "-"), *map(_short, map(str, words))])


def _short(word: str) -> str:
    return word if len(word) <= 200 else f"{word[:200]}…"


def check(settings: Any) -> None:
    """Check all values, before anything is loaded or compiled.

    Every field is checked against the `Bound` or `Literal` in its annotation, and every number
    must be finite; then the settings' own `check()` is called, if they have one. Nested settings
    are checked likewise. None is always accepted.

    Raises:
      ValueError: an invalid value, with its option and the valid values.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Rates:
    ...     outer_rate: Positive = 1e-3
    >>> check(Rates(outer_rate=-1.0))
    Traceback (most recent call last):
    ...
    ValueError: --outer-rate -1.0: give a number that is positive and finite.
    """
    for name, hint in get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name, None)
        if dataclasses.is_dataclass(value):
            check(value)
        elif value is not None:
            each = value if isinstance(value, tuple) else (value,)
            for bound in _marks(hint, Bound):
                if not all(map(bound.accepts, each)):
                    remedy = f"give a number that is {bound.remedy}."
                    raise ValueError(f"{option(name, value)}: {remedy}")
            # Otherwise code that handles the choices in turn would take it for the last one.
            choices = _choices(hint)
            if choices and value not in choices:
                raise ValueError(f"{option(name, value)}: choose from {', '.join(choices)}.")
            if any(isinstance(number, float) and not math.isfinite(number) for number in each):
                raise ValueError(f"{option(name, value)}: give a finite number.")
    if hasattr(settings, "check"):
        settings.check()


def check_chosen(settings: Any, chosen: str, groups: Mapping[str, str]) -> None:
    """Check that no settings of another `--task` than the chosen one are given.

    `groups` maps each task to the name of its nested settings.

    Raises:
      ValueError: a setting of another task differs from its default.
    """
    for task, group in groups.items():
        own = getattr(settings, group)
        for name, value in dataclasses.asdict(own).items():
            if group != groups.get(chosen) and value != getattr(type(own)(), name):
                raise ValueError(f"{option(name, value)} applies only to --task {task}.")


def check_owned(settings: Any, chooser: str, owned: Mapping[str, tuple[str, ...]]) -> None:
    """Check that no settings of another choice than the chosen one are given.

    `chooser` is the setting that chooses, such as `environment`; `owned` maps each of its choices
    to the names of the settings that apply to it alone.

    Raises:
      ValueError: a setting of another choice differs from its default.
    """
    for choice, names in owned.items():
        for name in names:
            value = getattr(settings, name)
            fits = name in owned[getattr(settings, chooser)]
            if not fits and value != getattr(type(settings)(), name):
                raise ValueError(
                    f"{option(name, value)} applies only to {option(chooser, choice)}."
                )


def at_test(settings: Any) -> Iterator[tuple[str, Any]]:
    """The names and types of the settings that may change after training."""
    hints = get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from at_test(value)
        elif AT_TEST in _marks(hints[field.name], _AtTest):
            yield field.name, hints[field.name]


def places(settings: type) -> set[str]:
    """The names of the settings that are locations of files, nested ones included."""
    found = set()
    for name, hint in get_type_hints(settings, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            found |= places(hint)  # pyright: ignore[reportArgumentType]
        elif PLACE in _marks(hint, _Place):
            found.add(name)
    return found


def values(settings: Any) -> dict[str, Any]:
    """All settings by name, nested ones included."""
    found = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        found |= values(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def names(settings: Any) -> set[str]:
    """The names of all settings, nested ones included."""
    return {*values(settings)}


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """The settings with `changes` applied to them and to nested settings; others are ignored.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Inner:
    ...     ways: int = 5
    >>> @dataclasses.dataclass(frozen=True)
    ... class Outer:
    ...     inner: Inner = Inner()
    >>> changed(Outer(), {"ways": 20, "of_another": 1})
    Outer(inner=Inner(ways=20))
    """
    own = {}
    for field in dataclasses.fields(settings):  # pyright: ignore[reportArgumentType]
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            own[field.name] = changed(value, changes)
        elif field.name in changes:
            own[field.name] = changes[field.name]
    return dataclasses.replace(settings, **own)  # pyright: ignore[reportArgumentType, reportCallIssue]


def from_json(kind: type[Settings], fields: Any) -> Settings:
    """Settings from the JSON form of their `dataclasses.asdict`.

    Missing settings take their defaults; every other value must be of its field's type.

    Raises:
      ValueError: an entry that is unknown or of the wrong type.
    """
    return _value(kind, fields, kind.__name__)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ValueError(f"{where} is {_brief(value)}, not a mapping of settings")
        hints = get_type_hints(hint, include_extras=True)
        known = {field.name for field in dataclasses.fields(hint)}
        for name in value.keys() - known:
            raise ValueError(f"{where} has no setting {name!r}")
        return hint(  # pyright: ignore[reportCallIssue]
            **{name: _value(hints[name], entry, name) for name, entry in value.items()}
        )
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _value(arguments[0], value, where)
    if origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _value(choice, value, where)
            except ValueError:
                continue
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
    elif origin is tuple and isinstance(value, list | tuple):
        every = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(every) == len(value):
            return tuple(_value(one, entry, where) for one, entry in zip(every, value))
    elif hint is float and type(value) is float:
        return value
    elif hint is float and type(value) is int and value.bit_length() <= 53:
        return float(value)  # JSON may write 1.0 as 1
    elif hint in (int, str, bool, type(None)) and type(value) is hint and _usable(value):
        return value
    raise ValueError(f"{where} is {_brief(value)}, expected {_words(hint)}")


def _usable(value: int | str | None) -> bool:
    """Whether a number fits 64 bits, and a text can be the name of a file."""
    return value.bit_length() < 64 if isinstance(value, int) else "\0" not in (value or "")


def _brief(value: Any) -> str:
    """A value in one line, shortened if it is long or deep."""
    return _short(" ".join(reprlib.repr(value).split()))


def _words(hint: Any) -> str:
    """A type in words, such as `int` or `one of batch, layer`."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_words, get_args(hint)))
    if get_origin(hint) is Annotated:
        return _words(get_args(hint)[0])
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _choices(hint: Any) -> tuple[str, ...]:
    """The values of a `Literal` in an annotation; empty if there is none."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (Annotated, Union, types.UnionType):
        return tuple(choice for part in get_args(hint) for choice in _choices(part))
    return ()


def _marks(hint: Any, kind: type) -> list[Any]:
    """The marks of a kind in an annotation, including marks within a union."""
    found = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, kind)]
    inner = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    return found + [mark for part in inner for mark in _marks(part, kind)]

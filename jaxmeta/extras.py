"""Imports of optional packages; if one is missing, the error names the extra to install."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Context for imports of packages that the extra `name` of jaxmeta installs.

    Raises:
      ModuleNotFoundError: a package is missing; the message says how to install it.

    >>> with extra("data"):
    ...     import a_missing_package
    Traceback (most recent call last):
    ModuleNotFoundError: a_missing_package is not installed; run: pip install 'jaxmeta[data]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "jaxmeta"):
            raise
        raise ModuleNotFoundError(
            f"{package} is not installed; run: pip install 'jaxmeta[{name}]'",
            name=error.name,
        ) from error

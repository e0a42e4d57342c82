"""Packages that an extra of jaxmeta brings; where one is missing, the extra is named."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import within this what the extra `name` of the package brings.

    Raises:
      ModuleNotFoundError: a package is missing; the message says how to install it.

    >>> with extra("data"):
    ...     import a_missing_package
    Traceback (most recent call last):
    ModuleNotFoundError: a_missing_package is not installed: pip install 'jaxmeta[data]' brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "jaxmeta"):
            raise
        raise ModuleNotFoundError(
            f"{package} is not installed: pip install 'jaxmeta[{name}]' brings it.",
            name=error.name,
        ) from error

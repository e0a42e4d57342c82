"""The folders of data and of the cache, from the environment."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`JAXMETA_CACHE_DIR`, else `jaxmeta` in `XDG_CACHE_HOME`, else `~/.cache/jaxmeta`.

    A relative `XDG_CACHE_HOME` is ignored, as its specification requires.

    Raises:
      OSError: neither variable is set, and the user has no home folder.
    """
    own = os.environ.get("JAXMETA_CACHE_DIR")
    if own:
        return in_home(own, "JAXMETA_CACHE_DIR")
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if not shared.startswith((os.sep, "~")):
        shared = "~/.cache"
    return in_home(shared, "JAXMETA_CACHE_DIR") / "jaxmeta"


def data_folder(name: str, given: str | Path | None = None) -> Path:
    """The folder of a set whose files the user provides: the given one, if any.

    Defaults to `name` in `JAXMETA_DATA_DIR`; without that variable, to `name` in `cache_folder()`.

    Raises:
      OSError: the user has no home folder, and the path needs one.
    """
    if given is not None:
        return Path(given).expanduser()
    own = os.environ.get("JAXMETA_DATA_DIR")
    return (in_home(own, "JAXMETA_DATA_DIR") if own else cache_folder()) / name


def in_home(path: str, variable: str) -> Path:
    """The path with `~` expanded.

    Raises:
      OSError: the user has no home folder; the message names the variable to set.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # HOME is not set, and the user is not in the user database
        raise OSError(
            f"{path} can't be found, since this user has no home folder; set HOME, or set "
            f"{variable} to a folder that can be written"
        ) from error

"""Downloads that are verified by checksum and written atomically."""

import errno
import hashlib
import os
import shutil
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO
from urllib.error import HTTPError

from jaxmeta import files

TIMEOUT = 60  # seconds without an answer


def download(url: str, path: Path, sha256: str) -> Path:
    """Downloads `url` to `path`, unless a file with the right checksum is already there.

    The file is written under another name, verified, and renamed, so that `path` is always
    complete.

    Args:
      url: an http, https or file URL.
      path: the file, in a folder that exists.
      sha256: the checksum of the content, hexadecimal.

    Raises:
      OSError: the URL can't be downloaded, or the file can't be written.
      ValueError: the content has another checksum.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source, target = Path(folder, "a"), Path(folder, "b")
    ...     _ = source.write_bytes(b"content")
    ...     expected = hashlib.sha256(b"content").hexdigest()
    ...     download(source.as_uri(), target, expected).read_bytes()
    b'content'
    """
    if path.exists() and checksum(path) == sha256:
        return path
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    print(f"downloading {url}", file=sys.stderr, flush=True)
    try:
        with files.naming(path), temporary.open("wb") as file:
            _fetch(url, file, path)
            file.flush()
            os.fsync(file.fileno())
        found = checksum(temporary)
        if found != sha256:
            raise ValueError(
                f"{url} is not the expected file: its sha256 is {found}, not {sha256}; run again, "
                f"and if the error remains, put the right file at {path}"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def checksum(path: Path) -> str:
    """The sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(url: str, file: IO[bytes], path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            shutil.copyfileobj(answer, file)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # an error of the disk, not of the network
        if isinstance(error, HTTPError):
            error.close()  # the error object holds the connection
        raise OSError(
            f"can't download {url} ({error}); run again, or put the file at {path} by hand"
        ) from error

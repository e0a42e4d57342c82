"""What is read of folders and archives: regular files, hidden ones left out, within limits."""

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from jaxmeta.files import shown

# What file managers and archivers leave behind; names that begin with a dot are hidden as well.
LEFT_BEHIND = {
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
    "system volume information",
}
ARCHIVE_ENTRIES = 200_000
ARCHIVE_BYTES = 2**31  # of the files that are read, unpacked


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data of the user's.

    >>> is_hidden("._apple.png"), is_hidden("__MACOSX"), is_hidden("apple.png")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def listed(folder: Path) -> list[str]:
    """The names in a folder, sorted, hidden ones left out.

    Raises:
      OSError: it can't be read.
    """
    try:
        return sorted(entry for entry in os.listdir(folder) if not is_hidden(entry))
    except OSError as error:  # the same kind of error, with the remedy
        raise type(error)(
            f"can't read the folder {shown(folder)} ({error.strerror}); "
            "give a folder that exists and may be read"
        ) from error


def walked(folder: Path) -> Iterator[Path]:
    """All that lies in a folder and in the folders in it, but for folders; links to folders are
    not followed, so that none is met twice.

    Raises:
      OSError: one of them can't be read.
    """
    for entry in listed(folder):
        path = folder / entry
        if not path.is_dir():
            yield path
        elif not path.is_symlink():
            yield from walked(path)


def regular(path: Path) -> os.stat_result:
    """The status of a regular file, or of one that a link leads to.

    Raises:
      OSError: there is none, or links lead in a circle.
      ValueError: a folder, a named pipe, a device or a socket, which might never end.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise type(error)(f"can't read {shown(path)} ({error.strerror}); remove it") from error
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{shown(path)} is not a regular file; replace or remove it")
    return found


def archive_names(path: Path, wanted: Callable[[PurePosixPath], bool]) -> list[PurePosixPath]:
    """The names of the files in a zip that are wanted, in its order, hidden ones left out.

    Raises:
      as `read_archive`.
    """
    with _opened(path) as archive:
        return [PurePosixPath(entry.filename) for entry in _wanted(path, archive, wanted)]


def read_archive(path: Path, wanted: Callable[[PurePosixPath], bool]) -> dict[PurePosixPath, bytes]:
    """The files in a zip that are wanted, by their names, sorted, hidden ones left out.

    Raises:
      OSError: it can't be read.
      ValueError: not a regular file, not a zip, or a damaged one; more than 200,000 entries, or
        more than 2 GiB of what is wanted. Nothing is unpacked then.
    """
    with _opened(path) as archive:
        try:
            return {
                PurePosixPath(entry.filename): archive.read(entry)
                for entry in sorted(_wanted(path, archive, wanted), key=lambda own: own.filename)
            }
        except ValueError:
            raise
        except Exception as error:  # a damaged or an encrypted one raises many kinds
            raise ValueError(f"{shown(path)} can't be unpacked ({error})") from error


def _opened(path: Path) -> zipfile.ZipFile:
    regular(path)
    try:
        return zipfile.ZipFile(path)
    except (ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{shown(path)} is not a zip that can be read ({error})") from error


def _wanted(
    path: Path, archive: zipfile.ZipFile, wanted: Callable[[PurePosixPath], bool]
) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > ARCHIVE_ENTRIES:
        raise ValueError(
            f"{shown(path)} holds {len(entries):,} files, {ARCHIVE_ENTRIES:,} are the most that "
            "are read"
        )
    found = [
        entry
        for entry in entries
        if not entry.is_dir()
        and not any(map(is_hidden, PurePosixPath(entry.filename).parts))
        and wanted(PurePosixPath(entry.filename))
    ]
    # An entry is never unpacked beyond the size that stands here.
    total = sum(entry.file_size for entry in found)
    if total > ARCHIVE_BYTES:
        raise ValueError(
            f"{shown(path)} is {total / 2**30:.1f} GiB unpacked, {ARCHIVE_BYTES / 2**30:.0f} GiB "
            "are the most that are read"
        )
    return found

"""Reading folders and archives: regular files only, without hidden ones, within limits."""

import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from jaxmeta.files import shown

# Files of file managers and archivers; names that begin with a dot are hidden as well.
LEFT_BEHIND = {
    *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
    "system volume information",
}
ARCHIVE_ENTRIES = 200_000
ARCHIVE_BYTES = 2**31  # of the files to read, unpacked


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left by a file manager or archiver.

    >>> is_hidden("._apple.png"), is_hidden("__MACOSX"), is_hidden("apple.png")
    (True, True, False)
    """
    return name.startswith(".") or name.lower() in LEFT_BEHIND


def listed(folder: Path) -> list[str]:
    """The names in a folder, sorted, without hidden ones.

    Raises:
      OSError: the folder can't be read.
    """
    try:
        return sorted(entry for entry in os.listdir(folder) if not is_hidden(entry))
    except OSError as error:  # the same type of error, with a remedy
        raise type(error)(
            f"can't read the folder {shown(folder)} ({error.strerror}); "
            "give a folder that exists and can be read"
        ) from error


def walked(folder: Path, *, links: bool = False) -> Iterator[Path]:
    """The files in a folder and its subfolders. Links to folders are not followed.

    With `links` those in the folder itself are, but none below.

    Raises:
      OSError: a folder can't be read.
    """
    for entry in listed(folder):
        path = folder / entry
        if not path.is_dir():
            yield path
        elif links or not path.is_symlink():
            yield from walked(path)


def regular(path: Path) -> os.stat_result:
    """The status of a regular file, or of the regular file that a link points to.

    Raises:
      OSError: the file is missing, or links form a cycle.
      ValueError: it is a folder, or a named pipe, device or socket, which might never end.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise type(error)(
            f"can't read {shown(path)} ({error.strerror}); give a file that exists and can be "
            "read, or remove it"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{shown(path)} is not a regular file; replace or remove it")
    return found


def archive_names(path: Path, wanted: Callable[[PurePosixPath], bool]) -> list[PurePosixPath]:
    """The names of the wanted files in a zip, in its order, without hidden ones.

    Raises:
      as `read_archive`.
    """
    with _opened(path) as archive:
        return [PurePosixPath(entry.filename) for entry in _wanted(path, archive, wanted)]


def read_archive(path: Path, wanted: Callable[[PurePosixPath], bool]) -> dict[PurePosixPath, bytes]:
    """The wanted files in a zip by name, sorted, without hidden ones.

    Raises:
      OSError: the zip can't be read.
      ValueError: it is not a regular file, not a zip, or damaged; or it has more than 200,000
        entries, or more than 2 GiB of wanted files, before any is unpacked.
    """
    with _opened(path) as archive:
        try:
            return {
                PurePosixPath(entry.filename): archive.read(entry)
                for entry in sorted(_wanted(path, archive, wanted), key=lambda own: own.filename)
            }
        except ValueError:
            raise
        except Exception as error:  # damaged or encrypted zips raise exceptions of many types
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
            f"{shown(path)} holds {len(entries):,} files; at most {ARCHIVE_ENTRIES:,} are supported"
        )
    found = [
        entry
        for entry in entries
        if not entry.is_dir()
        and not any(map(is_hidden, PurePosixPath(entry.filename).parts))
        and wanted(PurePosixPath(entry.filename))
    ]
    # An entry is never unpacked beyond its declared size.
    total = sum(entry.file_size for entry in found)
    if total > ARCHIVE_BYTES:
        raise ValueError(
            f"{shown(path)} is {total / 2**30:.1f} GiB unpacked; at most "
            f"{ARCHIVE_BYTES / 2**30:.0f} GiB are supported"
        )
    return found

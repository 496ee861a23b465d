"""The folder that dead letters lie in: its names, its size, and that nobody else looks into it.

What is in the files is the business of `dead_letters.py`. An OSError passes through.
"""

import contextlib
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Final

CURRENT: Final = "dead-letters.jsonl"
"""The segment that is appended to."""

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""Letters hold payloads: they are their owner's alone."""

_SEGMENT: Final = re.compile(r"dead-letters(\.[0-9TZ.]+)?\.jsonl")

_OURS: Final = re.compile(rf"{_SEGMENT.pattern}|\.{_SEGMENT.pattern}\.new")
"""The names of all files that we make."""


def make(folder: Path) -> None:
    """Make a folder where it is missing; its own name is on disk when this returns."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    if missing:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for path in missing:
            fsync(path.parent)


def fsync(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def segments(folder: Path) -> list[str]:
    """Return the names of all segments, in no order; none where there is no folder."""
    try:
        return [name for name in _names(folder) if _SEGMENT.fullmatch(name)]
    except FileNotFoundError:
        return []


def size(folder: Path) -> int:
    """Return the bytes of all segments."""
    total = 0
    for name in segments(folder):
        with contextlib.suppress(FileNotFoundError):  # a replay was faster
            total += (folder / name).stat().st_size
    return total


def keep_others_out(place: Path | int) -> None:
    """Take from all others what they may do with a folder, or an open file, of our own.

    A folder with anything else in it stays as it is: a relay that runs as root may have been told
    to put its letters into /var/log.
    """
    status = os.fstat(place) if isinstance(place, int) else place.stat()
    if not _is_open(status) or status.st_uid != os.geteuid():
        return
    if isinstance(place, int):
        os.fchmod(place, FILE_MODE)
    elif all(map(_OURS.fullmatch, _names(place))):
        place.chmod(FOLDER_MODE)


def warning(folder: Path) -> str | None:
    """Return what to tell an operator about a folder that is open to others."""
    try:
        status = folder.stat()
    except OSError:  # there is none yet, or we may not know
        return None
    if not _is_open(status):
        return None
    return (
        f"the folder of dead letters {folder} is open to others (mode {status.st_mode & 0o7777:o})"
        f": chmod 700 {shlex.quote(str(folder))}, or name one that holds nothing else"
    )


def _is_open(status: os.stat_result) -> bool:
    """Whether anybody but the owner may do anything."""
    return bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _names(folder: Path) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208 - Path.iterdir is lazy, and glob silent about errors

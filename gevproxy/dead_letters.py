"""Dead letters: jobs that a stage or the target refused, kept in files until a person decides.

A folder holds segments, files of one JSON object a line, a letter each:

    dead-letters.jsonl                          the current one, which is appended to
    dead-letters.20261006T120000.123456Z.jsonl  closed ones: only read, rewritten or removed

    {"time": "2026-10-06T12:00:00.123456Z", "forward": ..., "source": ..., "target": ...,
     "handle": ..., "unique": ..., "reason": ..., "payload": "<base64>"}

`handle` and `unique` are bytes: each is the character of the same number (Latin-1), so that any
bytes come back as they were and the usual ones can be read and searched for. `payload` is the job
as the source gave it, still encrypted if it was.

Whoever appends or closes holds a lock (flock) on the current segment and makes sure that it still
has that name; whoever takes letters out holds one on the folder. So any number of relays and
commands may share a folder. Files alone are touched here: no socket, no gevent, no log.
"""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shlex
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from gevproxy import letter_folder
from gevproxy.errors import GevproxyError
from gevproxy.letter_folder import CURRENT, FILE_MODE

CAP: Final = 256 * 1024 * 1024
"""Bytes that all segments of a folder may have together: half a million small checks."""

_CLOSED: Final = "dead-letters.%Y%m%dT%H%M%S.%fZ.jsonl"

_ID_BYTES: Final = 6
"""Of a line's digest: among half a million letters two share an id once in two thousand folders."""

_BYTES_AS_TEXT: Final = "latin-1"


class DeadLetterError(GevproxyError):
    """Dead letters cannot be written, read or removed. The text names the folder and a remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A job that was refused. `time` is aware; `source` and `target` read "host:port/queue".

    `unique` and `payload` are the job's as the source gave it, before any stage; `reason` is for
    a person and holds neither key nor payload.
    """

    time: datetime
    forward: str
    source: str
    target: str
    handle: bytes
    unique: bytes
    reason: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a segment. `letter` is None where the line is damaged.

    `id` is a digest of the line: it stays the same when other lines go. `offset` is where the line
    begins, in bytes; it holds until something is removed from this segment.
    """

    id: str
    offset: int
    letter: Letter | None


def encode(letter: Letter) -> bytes:
    """Return a letter's line, newline included."""
    time = letter.time.astimezone(UTC).isoformat(timespec="microseconds")
    fields = {
        "time": time.replace("+00:00", "Z"),
        "forward": letter.forward,
        "source": letter.source,
        "target": letter.target,
        "handle": letter.handle.decode(_BYTES_AS_TEXT),
        "unique": letter.unique.decode(_BYTES_AS_TEXT),
        "reason": letter.reason,
        "payload": b64encode(letter.payload).decode("ascii"),
    }
    return json.dumps(fields).encode("ascii") + b"\n"


def decode(line: bytes) -> Letter:
    """Read a letter's line. ValueError where it is none."""
    try:
        fields = json.loads(line)
        texts = {name: _text(fields[name]) for name in Letter.__dataclass_fields__}
        return Letter(
            time=datetime.fromisoformat(texts["time"]).astimezone(UTC),
            forward=texts["forward"],
            source=texts["source"],
            target=texts["target"],
            handle=texts["handle"].encode(_BYTES_AS_TEXT),
            unique=texts["unique"].encode(_BYTES_AS_TEXT),
            reason=texts["reason"],
            payload=b64decode(texts["payload"], validate=True),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError("this line is no dead letter") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


class DeadLetters:
    """The dead letters in a folder; `cap` bounds the bytes of all segments together.

    Every method blocks on the disk, and may wait for a lock that others hold for one write.
    Every OSError becomes a DeadLetterError.
    """

    def __init__(self, folder: Path, cap: int = CAP) -> None:
        self.folder = folder
        self._cap = cap
        self._current = folder / CURRENT

    def write(self, letters: Sequence[Letter]) -> None:
        """Append letters and wait until they are on disk: all of them, or none and an error.

        Makes the folder (0700) and the file (0600) where they are missing, and closes those of our
        own that are open to others. DeadLetterError where the letters do not fit under the cap, or
        the disk fails.
        """
        with self._reporting("written"):
            letter_folder.make(self.folder)
            letter_folder.keep_others_out(self.folder)
            with self._locked_current(os.O_CREAT) as fd:
                letter_folder.keep_others_out(fd)
                if not os.fstat(fd).st_size:
                    # Perhaps new: its name must be on disk before the first letter is.
                    letter_folder.fsync(self.folder)
                self._append(fd, letters)

    def close_current(self) -> None:
        """Close the current segment where it holds anything; the next letter begins a new one."""
        with self._reporting("set aside"), contextlib.suppress(FileNotFoundError):
            with self._locked_current() as fd:
                if os.fstat(fd).st_size:
                    self._current.rename(self._free_name())
            letter_folder.fsync(self.folder)

    def segments(self) -> list[Path]:
        """Return all segments, oldest first; the current one comes last."""
        with self._reporting("read"):
            # "dead-letters.jsonl" sorts behind "dead-letters.2": digits come before letters.
            return [self.folder / name for name in sorted(letter_folder.segments(self.folder))]

    def closed(self) -> list[Path]:
        """Return the closed segments, oldest first."""
        return [segment for segment in self.segments() if segment != self._current]

    def read(self, segment: Path) -> Iterator[Entry]:
        """Read a segment line by line. One that is gone is empty; an unfinished line is none."""
        with (
            self._reporting("read"),
            contextlib.suppress(FileNotFoundError),
            segment.open("rb") as file,
        ):
            for offset, line in _lines(file):
                if line.endswith(b"\n"):
                    yield _entry(offset, line)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other remover out. DeadLetterError where one is at work, or we may not."""
        with self._reporting("changed"):
            fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if not os.access(self.folder, os.W_OK):
                # Found out only after a replay, it would replay the same letters for ever.
                raise DeadLetterError(f"{self.folder}: this user may not remove anything there")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                text = f"{self.folder}: another replay or purge is at work there; wait for its end"
                raise DeadLetterError(text) from error
            yield
        finally:
            os.close(fd)

    def remove(self, segment: Path, offsets: Collection[int]) -> None:
        """Take the lines at these offsets out of a closed segment. Only inside `alone`.

        The rest is written to a new file, with owner and mode of the old, that then takes its
        place; a segment that is empty then goes. DeadLetterError leaves the segment as it was.
        """
        if not offsets:
            return
        rest = segment.with_name(f".{segment.name}.new")
        with self._reporting("removed"):
            rest.unlink(missing_ok=True)  # an earlier attempt that was killed
            try:
                if _copy(segment, rest, offsets):
                    rest.replace(segment)
                else:
                    segment.unlink()
            finally:
                rest.unlink(missing_ok=True)
            letter_folder.fsync(self.folder)

    def _append(self, fd: int, letters: Iterable[Letter]) -> None:
        """Write and fsync at the end of a locked segment, or leave it as it was."""
        begin = os.fstat(fd).st_size
        try:
            for line in self._fitting(letters):
                _write(fd, line)
            os.fsync(fd)
        except BaseException:
            # Where this fails too, letters may remain whose jobs were never completed: these can
            # come twice, but they are not lost.
            with contextlib.suppress(OSError):
                os.ftruncate(fd, begin)
            raise

    def _fitting(self, letters: Iterable[Letter]) -> Iterator[bytes]:
        """Yield each letter's line as long as the cap allows it."""
        room = self._cap - letter_folder.size(self.folder)
        for letter in letters:
            line = encode(letter)
            room -= len(line)
            if room < 0:
                raise DeadLetterError(
                    f"the dead letters in {self.folder} are full ({self._cap} bytes): replay or "
                    f"purge some, see `{self._list_command()}`"
                )
            yield line

    @contextlib.contextmanager
    def _locked_current(self, flags: int = 0) -> Iterator[int]:
        """Open and lock the current segment, and cut off what a crash left of a line.

        The batch of such a line was never confirmed to anybody.
        """
        while True:
            fd = os.open(self._current, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | flags, FILE_MODE)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if _is_named(fd, self._current):
                    _cut_torn_line(fd)
                    yield fd
                    return
                # It was closed while we waited for the lock.
            finally:
                os.close(fd)

    def _free_name(self) -> Path:
        """Return a name for a segment to be closed; the lock on it keeps others from taking it."""
        while True:
            path = self.folder / datetime.now(UTC).strftime(_CLOSED)
            if not path.exists():
                return path

    def _list_command(self) -> str:
        """Return what an operator types to see the letters, from any shell."""
        return f"gevproxy dead-letters list --folder {shlex.quote(str(self.folder))}"

    @contextlib.contextmanager
    def _reporting(self, done: str) -> Iterator[None]:
        """Translate an OSError; `done` is what should have happened to the letters."""
        try:
            yield
        except OSError as error:
            raise DeadLetterError(
                f"dead letters cannot be {done} in {self.folder}: {error.strerror or error}; "
                f"mend that, then see `{self._list_command()}`"
            ) from error


def _is_named(fd: int, path: Path) -> bool:
    """Tell whether an open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _cut_torn_line(fd: int) -> None:
    """Remove a last line that has no end."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as content:
            end = content.rfind(b"\n") + 1
        os.ftruncate(fd, end)


def _write(fd: int, data: bytes) -> None:
    """Write all of `data`: at the edge of a full disk the kernel takes a part of it first."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each line with the offset at which it begins."""
    offset = 0
    for line in file:
        yield offset, line
        offset += len(line)


def _entry(offset: int, line: bytes) -> Entry:
    id_ = hashlib.blake2b(line, digest_size=_ID_BYTES).hexdigest()
    try:
        return Entry(id_, offset, decode(line))
    except ValueError:
        return Entry(id_, offset, None)


def _copy(old: Path, new: Path, without: Collection[int]) -> int:
    """Copy a file but for the lines at some offsets, owner and mode too; return its bytes.

    The copy is on disk when this returns. `new` must not exist: as root we write into a folder of
    somebody else, who may have put a link there.
    """
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    with os.fdopen(fd, "wb") as target, old.open("rb") as source:
        for offset, line in _lines(source):
            if offset not in without:
                target.write(line)
        target.flush()
        status = os.fstat(source.fileno())
        os.fchown(fd, status.st_uid, status.st_gid)
        os.fchmod(fd, status.st_mode & 0o7777)
        os.fsync(fd)
        return target.tell()

"""A process of its own that tells when the daemon's loop stands still, and in what.

A thread could not: a regular expression that runs away holds the interpreter's lock, and a loop
that stands still cannot write a record. This file is run by its path, with the standard library
alone: it may import nothing of the project, which keeps it small and starts it in milliseconds.
The daemon's side of it is heart.py.
"""

import contextlib
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

BEAT: Final = struct.Struct("d")
"""When the daemon last ticked, on the monotonic clock that all processes share. 0: not yet."""

NOTE: Final = slice(16, 528)
"""The forward, the stage that runs and its version, one a line, filled up with NULs."""

LOG: Final = slice(528, 4096)
"""Where the log goes: "stderr", "stdout" or a path, filled up with NULs."""

MARK: Final = slice(4096, 8192)
"""The file for what the loop stands still in for long, filled up with NULs; "": none."""

SIZE: Final = 8192
"""Bytes of the memory that both processes see."""

STANDS_STILL: Final = 5.0
"""Seconds without a tick, of which there is one a second; a callback of 2 s is no case for us."""

MARK_AFTER: Final = 10.0
"""Seconds without a tick until a line is left for the next start. systemd waits 30 s."""

_STEP: Final = 0.5
"""Seconds between two looks."""

_IGNORED: Final = (
    signal.SIGABRT,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
)
"""What systemd and a terminal send to all processes of a service: ours ends with the daemon."""

_STATES: Final = {
    "R": "it computes",
    "S": "it waits",
    "D": "it waits for a disk",
    "T": "it is stopped by a signal",
    "t": "it is stopped by a debugger",
}
"""What a process does, by its letter in proc(5)."""

_STOPPED: Final = (_STATES["T"], _STATES["t"])


class Watcher:
    """Looks at the daemon's memory. `event` is the id of its records, `level` that of a stop."""

    def __init__(self, memory: mmap.mmap, parent: int, event: str, level: str) -> None:
        self._memory = memory
        self._parent = parent
        self._event = event
        self._level = level
        self._looked_at = self._awake_since = time.monotonic()
        self._stalled_at: float | None = None
        self._marked: tuple[str, int] | None = None  # a file, and its length without our line

    def look(self, now: float) -> None:
        """Write a record where the loop has come to a stop, and where it has gone on."""
        if now - self._looked_at > STANDS_STILL / 2:
            self._awake_since = now  # we stood still as well: the host was suspended
        self._looked_at = now
        (beat,) = BEAT.unpack_from(self._memory)
        if self._stalled_at is not None:
            if beat > self._stalled_at:
                self._write("info", "the loop goes on", beat - self._stalled_at)
                self._stalled_at = None
                self._unmark()
            elif self._marked is None and now - self._looked_from(beat) > MARK_AFTER:
                self._mark()
        elif beat and now - self._looked_from(beat) > STANDS_STILL:
            self._stalled_at = beat
            forward, stage, _ = self._place()
            place = f"stage {stage} of {forward}" if forward else stage or "no stage"
            text = f"the loop stands still in {place}: {self._state()}"
            self._write(self._level, text, now - beat, forward=forward, stage=stage)

    def _looked_from(self, beat: float) -> float:
        """Return from when on we have seen no tick."""
        return max(beat, self._awake_since)

    def _place(self) -> tuple[str, str, str]:
        """Return the forward and the stage that run, and the version of that."""
        forward, stage, version, *_ = [*self._text(NOTE).split("\n"), "", ""]
        return forward, stage, version

    def _mark(self) -> None:
        """Leave a line about the forward, unless somebody has merely stopped the daemon."""
        forward, stage, version = self._place()
        path = self._text(MARK)
        if not forward or not path or self._state() in _STOPPED:
            return
        record = {"forward": forward, "stage": stage, "version": version, "time": _now()}
        line = json.dumps(record).encode() + b"\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with contextlib.suppress(OSError):
            Path(path).parent.mkdir(0o700, parents=True, exist_ok=True)
            file = os.open(path, flags, 0o600)
            try:
                self._marked = path, os.fstat(file).st_size
                os.write(file, line)
            finally:
                os.close(file)

    def _unmark(self) -> None:
        """Take the line back."""
        if self._marked is not None:
            path, length = self._marked
            self._marked = None
            with contextlib.suppress(OSError):
                if Path(path).stat().st_size > length:
                    os.truncate(path, length)

    def _text(self, part: slice) -> str:
        return self._memory[part].rstrip(b"\0").decode(errors="replace")

    def _state(self) -> str:
        """Say what the daemon's main thread does."""
        try:
            stat = Path(f"/proc/{self._parent}/stat").read_text(errors="replace")
        except OSError:
            return "what it does cannot be seen"
        letter = stat.rpartition(")")[2].split()[0]
        return _STATES.get(letter, f"its state is {letter}")

    def _write(self, level: str, message: str, seconds: float, **fields: str) -> None:
        """Write a record as log.py does, in one piece: a short one never mixes with another."""
        record = {"time": _now(), "level": level, "event": self._event, "message": message}
        told = {name: value for name, value in fields.items() if value}
        line = json.dumps({**record, **told, "seconds": round(seconds, 3)}).encode() + b"\n"
        with contextlib.suppress(OSError), _opened(self._text(LOG)) as log:
            os.write(log, line)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextlib.contextmanager
def _opened(destination: str) -> Iterator[int]:
    """Give the log's descriptor; a file is opened each time, as it may have been moved away."""
    if destination in ("", "stderr", "stdout"):
        yield 1 if destination == "stdout" else 2
        return
    log = os.open(destination, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        yield log
    finally:
        os.close(log)


def main(memory: int, parent: int, event: str, level: str) -> None:
    """Watch until the daemon is gone, which is when the pipe at our stdin has no other end."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    watcher = Watcher(mmap.mmap(memory, SIZE), parent, event, level)
    lifeline = select.poll()
    lifeline.register(0, 0)
    while not lifeline.poll(_STEP * 1000):
        watcher.look(time.monotonic())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])

"""The daemon's signs of life for the process that watches its loop (watcher.py).

Both see one piece of memory: the time of the last tick, the stage that runs, where the log goes.
Writing to it takes no system call, so that a stage can be noted for every job. The process ends
with ours, however ours ends: a pipe that we hold open tells it.
"""

import contextlib
import mmap
import os
import sys
from pathlib import Path
from typing import Final

from gevproxy import watcher
from gevproxy.events import Event
from gevproxy.log import EventLog

START_AGAIN: Final = 10.0
"""Seconds from one start of the watching process to the next, should it die."""

_MEMORY_FD: Final = 3
"""The descriptor of the memory in the watching process."""


class Heart:
    """Keeps a process that watches us. Without one the relay works as ever, and says so."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._file = os.memfd_create("gevproxy")
        os.ftruncate(self._file, watcher.SIZE)
        self._memory = mmap.mmap(self._file, watcher.SIZE)
        self._view = memoryview(self._memory)
        self._lifeline: int | None = None
        self._pid: int | None = None
        self._start_at = 0.0

    @property
    def place(self) -> memoryview:
        """Where the stage that runs is noted."""
        return self._view[watcher.NOTE]

    def log_to(self, destination: str) -> None:
        """Say where the log goes; a name that has no room there stands for stderr."""
        self._put(watcher.LOG, destination)

    def mark_in(self, file: Path) -> None:
        """Say where a line is left about what we stand still in; without room for it, nowhere."""
        self._put(watcher.MARK, str(file))

    def _put(self, part: slice, text: str) -> None:
        place = self._view[part]
        name = os.fsencode(text)
        place[:] = (name if len(name) < len(place) else b"").ljust(len(place), b"\0")

    def beat(self, now: float) -> None:
        """Tell that the loop runs, in no stage; start the watching process where there is none."""
        watcher.BEAT.pack_into(self._memory, 0, now)
        self.place[:] = bytes(len(self.place))
        if self._pid is not None and self._has_ended(self._pid):
            self._forget()
            self._log.emit(Event.WATCHER_ABSENT, "it has ended, and is started anew")
        if self._pid is None and now >= self._start_at:
            self._start_at = now + START_AGAIN
            self._start()

    def note(self, stage: str) -> None:
        """Note what the daemon itself does, until the next beat."""
        place = self.place
        place[:] = f"\n{stage}".encode().ljust(len(place), b"\0")

    def stop(self) -> None:
        """Let the watching process go."""
        self._forget()

    def _start(self) -> None:
        ours = [watcher.__file__, str(_MEMORY_FD), str(os.getpid())]
        event = [Event.LOOP_STALLED.id, "error"]
        try:
            end, self._lifeline = os.pipe()
        except OSError as error:
            self._log.emit(Event.WATCHER_ABSENT, f"it cannot be started: {error.strerror}")
            return
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                # -I -S: no site, no user's files; it starts in 15 ms and holds 10 MiB.
                [sys.executable, "-I", "-S", *ours, *event],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, end, 0),
                    (os.POSIX_SPAWN_DUP2, self._file, _MEMORY_FD),
                ],
            )
        except OSError as error:
            self._forget()
            self._log.emit(Event.WATCHER_ABSENT, f"it cannot be started: {error.strerror}")
        finally:
            os.close(end)

    @staticmethod
    def _has_ended(pid: int) -> bool:
        try:
            return os.waitpid(pid, os.WNOHANG) != (0, 0)
        except ChildProcessError:
            return True

    def _forget(self) -> None:
        self._pid = None
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                os.close(self._lifeline)
            self._lifeline = None

"""The control socket of a running daemon: status, reload, pause and resume.

One connection carries one question and one answer, each a line of JSON:
    {"command": "status"}                       -> {"code": 1, "text": "...", "status": {...}}
    {"command": "reload"}                       -> {"added": [...], "changed": [...], ...}
    {"command": "pause", "forward": "h:4730/q"} -> {}
and what cannot be done is answered by {"error": "a sentence for a person"}.
What the commands do is the daemon's: this file decides who is heard, and for how long.
"""

import contextlib
import errno
import fcntl
import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import gevent
from gevent import socket

from gevproxy.control_client import MAX_REQUEST, SOCKET_NAME, ControlError
from gevproxy.events import Event
from gevproxy.gearman.connection import reason_of
from gevproxy.listener import Listener
from gevproxy.log import EventLog

DEADLINE: Final = 5.0
"""Seconds for a question to arrive, and again for its answer to be taken."""

_AT_ONCE: Final = 8
"""Connections that are served at a time; the next wait for one of them to end."""

_WAITING: Final = 128
"""Connections that the kernel keeps for us; one more is refused (EAGAIN)."""

_CREDENTIALS: Final = struct.Struct("3i")  # SO_PEERCRED of unix(7): pid, uid, gid

Answer = Mapping[str, object]
"""An answer; everything in it can be written as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """What the daemon does. A ControlError of theirs is the answer; they may block, not for long.

    `reload` returns when its outcome is known.
    """

    status: Callable[[], Answer]
    reload: Callable[[], Answer]
    pause: Callable[[str], Answer]
    resume: Callable[[str], Answer]


class ControlServer:
    """Listens in `folder`, which is made with mode 0700 where it does not exist.

    The socket has mode 0600: whoever may connect may pause a forward. Without one the relay works
    as ever: whatever stands in its way is a record in the log and no more.
    """

    def __init__(self, folder: Path | None, commands: Commands, log: EventLog) -> None:
        self._folder = folder
        self._commands = commands
        self._log = log
        self._lock: int | None = None  # the folder, held open and locked while we listen in it
        self._server: Listener | None = None

    def start(self) -> None:
        """Listen, or say in the log why not."""
        if self._folder is None:
            text = "neither RUNTIME_DIRECTORY nor XDG_RUNTIME_DIR is set"
            self._log.emit(Event.CONTROL_ABSENT, text)
            return
        path = self._folder / SOCKET_NAME
        try:
            self._lock = _lock(self._folder)
            listener = _listen(path)
        except OSError as error:
            self._unlock()
            self._log.emit(Event.CONTROL_ABSENT, f"{path}: {error.strerror or error}")
            return
        self._server = Listener(listener, self._serve, _AT_ONCE, self._on_failed)
        self._server.start()

    def _on_failed(self, error: OSError) -> None:
        text = f"connections cannot be accepted: {reason_of(error)}"
        self._log.sparse(Event.CONTROL_ABSENT, text)

    def stop(self) -> None:
        """Close and remove the socket; questions under way have a second to end. Blocks."""
        if self._server is not None and self._folder is not None:
            with contextlib.suppress(OSError):  # somebody else was faster
                (self._folder / SOCKET_NAME).unlink()
            self._server.stop(timeout=1)
            self._server = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _serve(self, sock: socket.socket, _address: object) -> None:
        """Answer one connection; the server closes it afterwards."""
        with contextlib.suppress(OSError):  # whoever asked has gone
            line = b""
            with gevent.Timeout(DEADLINE, False):
                line = _read_line(sock)
            answer = self._answer(line, *_who(sock))
            sock.settimeout(DEADLINE)
            sock.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes, pid: int, uid: int) -> Answer:
        """Carry out what a line asks for; whatever goes wrong is in the answer."""
        try:
            command, forward = _parse(line)
            act = self._find(command, forward)
            if command != "status":
                self._log.emit(
                    Event.CONTROL_COMMAND, command, forward=forward or None, pid=pid, uid=uid
                )
            return act()
        except ControlError as error:
            return {"error": str(error)}
        except Exception as error:  # noqa: BLE001 - it is reported, and the next question is answered
            self._log.emit(Event.CONTROL_FAILED, repr(error), exc_info=error)
            return {"error": "gevproxy met an error that nobody expected; its log has it"}

    def _find(self, command: str, forward: str) -> Callable[[], Answer]:
        """Return what carries out a command. ControlError where there is no such command."""
        match command:
            case "status":
                return self._commands.status
            case "reload":
                return self._commands.reload
            case "pause":
                return partial(self._commands.pause, forward)
            case "resume":
                return partial(self._commands.resume, forward)
            case _:
                raise ControlError("no such command; there are status, reload, pause and resume")


def _parse(line: bytes) -> tuple[str, str]:
    """Return command and forward ("" without one). ControlError where it is no question."""
    if not line.endswith(b"\n"):
        text = f"no line of JSON within {DEADLINE:g} s and {MAX_REQUEST} bytes"
        raise ControlError(text)
    try:
        question = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("the question is no JSON") from error
    if not isinstance(question, dict):
        raise ControlError("the question is no JSON object")
    command, forward = question.get("command"), question.get("forward", "")
    if not isinstance(command, str) or not isinstance(forward, str):
        raise ControlError("command and forward are texts")
    return command, forward


def _read_line(sock: socket.socket) -> bytes:
    """Return what comes, up to a line feed, the end or the largest question."""
    line = b""
    while not line.endswith(b"\n") and len(line) < MAX_REQUEST:
        data = sock.recv(MAX_REQUEST - len(line))
        if not data:
            break
        line += data
    return line


def _who(sock: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end, for the log."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def _lock(folder: Path) -> int:
    """Hold the folder as long as the result is open. OSError where another daemon has it.

    The kernel lets go when we die, so a socket that we find in a folder of ours is a dead one's,
    and no question has to find that out.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OSError(errno.EBUSY, "another gevproxy listens here") from error
    except OSError:
        os.close(handle)
        raise
    return handle


def _listen(path: Path) -> socket.socket:
    """Return a listening socket at `path`, in the place of a dead one. OSError where that fails."""
    if path.is_socket():
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen()
        listener.listen(_WAITING)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener

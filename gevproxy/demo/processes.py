"""The demo's processes: two job servers and the relay, each started, waited for and ended.

Every process is ended by its own pid, whatever happened before. Knows nothing of jobs.
"""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

from gevproxy.errors import GevproxyError, LinkError
from gevproxy.events import Event
from gevproxy.gearman import Server
from gevproxy.gearman.connection import connect

LOOPBACK: Final = "127.0.0.1"

NO_JOB_SERVER: Final = """\
there is no Gearman job server. Either put gearmand on PATH
    sudo apt-get install gearman-job-server    # Debian has it in /usr/sbin
or install geard, which is pure Python and needs no root, beside gevproxy
    pip install 'gevproxy[demo]'"""

_START: Final = 15.0
"""Seconds for a process to come up; a loaded machine is slow."""

_END: Final = 5.0
"""Seconds for a process to end after SIGTERM, then it is killed: the demo's jobs are toys."""

_ATTEMPTS: Final = 3
"""How often gearmand is started: another program may be faster at a port that was free."""

_FORWARDS: Final = 2
"""Of the demo's relay: checks out, results back."""

_POLL: Final = 0.02
"""Seconds between two looks at what is waited for."""

# geard's own command logs every packet when it stays in the foreground.
_GEARD: Final = """
import gear, signal
print("listening on", gear.Server(0, host="127.0.0.1").port, flush=True)
signal.pause()
"""

T = TypeVar("T")

StartServer = Callable[[str, Path, ExitStack], Server]
"""Starts a job server by this name and waits until it answers; its files are in the folder."""


class DemoError(GevproxyError):
    """The demo cannot go on. The text is for the person who started it."""


class Process:
    """A child process; all that it writes is in `log`.

    It is in a group of its own, so that a Ctrl-C reaches the demo alone, which then ends its
    children in order.
    """

    def __init__(
        self, name: str, command: list[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                env={**os.environ, **(environ or {})},
            )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.terminate()
        try:
            self._popen.wait(_END)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def output(self) -> str:
        """Return what it has written."""
        return self._log.read_text(errors="replace")

    def ended(self) -> str:
        """Say how it has ended, with its last words; empty while it runs."""
        code = self._popen.poll()
        if code is None:
            return ""
        last = "\n".join(self.output().splitlines()[-10:])
        return f"{self.name} has ended with exit code {code}. Its last words:\n{last}"

    def wait(self, look: Callable[[], T | None]) -> T:
        """Return what `look` finds, once it does. DemoError where that takes too long."""
        deadline = time.monotonic() + _START
        while (found := look()) is None:
            if words := self.ended():
                raise DemoError(words)
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} is not ready after {_START:.0f} s")
            time.sleep(_POLL)
        return found


def find_job_server() -> tuple[str, StartServer]:
    """Return name and starter of the job server to use: gearmand from PATH, else geard."""
    if shutil.which("gearmand"):
        return "gearmand", start_gearmand
    if importlib.util.find_spec("gear"):
        return "geard", start_geard
    raise DemoError(NO_JOB_SERVER)


def start_gearmand(name: str, folder: Path, stack: ExitStack) -> Server:
    """Start the gearmand that is on PATH, on a free port."""
    attempts = _ATTEMPTS
    while True:
        port = _free_port()
        log = folder / f"{name}.log"
        command = ["gearmand", f"--listen={LOOPBACK}", f"--port={port}", f"--log-file={log}"]
        command.append(f"--pid-file={folder / name}.pid")
        process = stack.enter_context(Process(f"gearmand {name}", command, log))
        try:
            return process.wait(partial(_gearmand_at, port, process.pid))
        except DemoError:
            attempts -= 1
            if not attempts:
                raise


def start_geard(name: str, folder: Path, stack: ExitStack) -> Server:
    """Start the geard of the PyPI package `gear`, on a free port that it picks itself."""
    command = [sys.executable, "-c", _GEARD]
    process = stack.enter_context(Process(f"geard {name}", command, folder / f"{name}.log"))
    found = process.wait(
        lambda: re.search(r"^listening on (\d+)\n", process.output(), re.MULTILINE)
    )
    return Server(LOOPBACK, int(found[1]))


def start_relay(config: Path, log: Path, stack: ExitStack) -> Process:
    """Start the relay as a service does, and wait until both its forwards are at their sources.

    Its control socket is beside the configuration, where it meets no other relay of this user's.
    """
    command = [sys.executable, "-m", "gevproxy", "run", "--config", str(config)]
    relay = stack.enter_context(
        Process("the relay", command, log, {"RUNTIME_DIRECTORY": str(config.parent)})
    )
    up = f'"event": "{Event.SOURCE_UP.id}"'
    relay.wait(lambda: relay.output().count(up) >= _FORWARDS or None)
    return relay


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _gearmand_at(port: int, pid: int) -> Server | None:
    """Return the address when it is our gearmand that answers there, not a faster stranger."""
    server = Server(LOOPBACK, port)
    try:
        with connect(server, None) as sock:
            sock.settimeout(1.0)
            sock.sendall(b"getpid\n")
            return server if sock.recv(64) == f"OK {pid}\n".encode() else None
    except (LinkError, OSError):
        return None

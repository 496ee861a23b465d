"""Real job servers as processes on 127.0.0.1, each with a port of its own for its whole life."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.kit.admin import Admin
from tests.kit.certificates import Pair
from tests.kit.eventually import eventually
from tests.kit.network import Namespace
from tests.kit.ports import Connect, free_port, loopback

START_DEADLINE = 15.0  # seconds; a loaded machine is slow
STOP_DEADLINE = 10.0
ATTEMPTS = 5  # ports tried before giving up

# geard's own command cannot stay in the foreground without logging every packet.
GEARD = """
import signal, sys, gear
gear.Server(int(sys.argv[1]), *(path or None for path in sys.argv[2:5]), host="127.0.0.1")
print("listening", flush=True)
signal.pause()
"""


def freeze(pid: int) -> None:
    """Stop a process and wait until all its threads stand still: one may be answering just now."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: set(_thread_states(pid)) == {"T"}, what=f"process {pid} stands still")


def _thread_states(pid: int) -> list[str]:
    """Return the state of each thread, as proc(5) names it."""
    stats = [task.joinpath("stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


class PortTaken(Exception):  # noqa: N818 - a state of the world, not a mistake
    """Somebody else was faster."""


class Server:
    """A job server process: started, stopped, killed, frozen and started again on one port."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="job-server-"))
        self.log = self.folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.host = "127.0.0.1"  # where a relay finds it
        self.connect: Connect = loopback

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"{self.host}:{self.port}"

    @property
    def admin(self) -> Admin:
        """Return a client of the text protocol."""
        return Admin(self.port, connect=self.connect)

    @property
    def pid(self) -> int:
        """Return the process id."""
        assert self.process is not None, "the server is not running"
        return self.process.pid

    def start(self) -> None:
        """Start on the port it had, at first on a free one, and wait until it answers."""
        assert self.process is None, "the server is running"
        attempts = 1 if self.port else ATTEMPTS
        for _ in range(attempts):
            port = self.port or free_port()
            try:
                self._launch(port)
            except PortTaken:
                self.kill()
                continue
            self.port = port
            return
        raise AssertionError(f"could not start on a port: {self._log_tail()}")

    def stop(self) -> None:
        """End it with SIGTERM, as an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it on the same port: its queues are empty, its handles new."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop its clock: the kernel still accepts and acknowledges for it."""
        freeze(self.pid)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _launch(self, port: int) -> None:
        raise NotImplementedError

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"no end within {STOP_DEADLINE} s of {number.name}") from None
        finally:
            if process.stdout:
                process.stdout.close()

    def _log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "no log"


class Gearmand(Server):
    """gearmand, with any further options of its command line."""

    listen = "127.0.0.1"
    prefix: Sequence[str] = ()  # of the command

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.options = options

    def _launch(self, port: int) -> None:
        command = [*self.prefix, "gearmand", f"--listen={self.listen}", f"--port={port}"]
        command += [f"--log-file={self.log}", f"--pid-file={self.folder / 'pid'}", *self.options]
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        eventually(lambda: self._answers(port), START_DEADLINE, what="an answer of gearmand")

    def _answers(self, port: int) -> bool:
        """Say whether it answers yet; that somebody else does is an error."""
        if self.process is None or self.process.poll() is not None:
            raise PortTaken
        try:
            pid = Admin(port, connect=self.connect).pid()
        except OSError:
            return False
        if pid != self.process.pid:
            raise PortTaken
        return True


class PersistentGearmand(Gearmand):
    """A gearmand whose queues survive its death, in a network of its own if one is given.

    A job's unique is its key there, so a job without one does not survive beside another. The
    file lies in memory: what a test shows is the death of the process, not of the disk.
    """

    def __init__(self, *options: str, namespace: Namespace | None = None, host: str = "") -> None:
        super().__init__(*options)
        memory = Path("/dev/shm")  # noqa: S108 - the folder below it is our own
        self.queues = Path(
            tempfile.mkdtemp(prefix="queues-", dir=memory if memory.is_dir() else None)
        )
        self.options += ("--queue-type=libsqlite3", f"--libsqlite3-db={self.queues / 'db'}")
        if namespace is not None:
            self.host = host
            self.listen = "0.0.0.0"  # noqa: S104 - all there is of it is in the test's hands
            self.prefix = namespace.prefix
            self.connect = namespace.connect

    def __exit__(self, *rest: object) -> None:
        super().__exit__(*rest)
        shutil.rmtree(self.queues, ignore_errors=True)


class Geard(Server):
    """The job server of the PyPI package `gear`; with TLS when given the files for it."""

    def __init__(self, key: str = "", certificate: str = "", authority: str = "") -> None:
        super().__init__()
        self.tls = (key, certificate, authority)

    def _launch(self, port: int) -> None:
        command = [sys.executable, "-c", GEARD, str(port), *self.tls]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise PortTaken


class Stunnel(Server):
    """stunnel: TLS on its port, plain text to the port of a job server behind it.

    `authority` is the file of those whose client certificates it demands; `options` are further
    lines of its configuration.
    """

    def __init__(
        self, behind: int, pair: Pair, authority: Path | None = None, *options: str
    ) -> None:
        super().__init__()
        self.behind = behind
        self.pair = pair
        self.authority = authority
        self.options = options

    def _launch(self, port: int) -> None:
        verify = ["verifyChain = yes", f"CAfile = {self.authority}"] if self.authority else []
        lines = [
            "foreground = yes",
            f"output = {self.log}",
            "debug = info",
            "pid =",
            "[gearman]",
            f"accept = 127.0.0.1:{port}",
            f"connect = 127.0.0.1:{self.behind}",
            f"cert = {self.pair.cert}",
            f"key = {self.pair.key}",
            *verify,
            *self.options,
        ]
        settings = self.folder / "stunnel.conf"
        settings.write_text("\n".join(lines) + "\n")
        with (self.folder / "output").open("ab") as output:
            command = ["stunnel4", str(settings)]
            self.process = subprocess.Popen(command, stdout=output, stderr=output)
        eventually(lambda: self._listens(port), START_DEADLINE, what="a port of stunnel")

    def _listens(self, port: int) -> bool:
        """Say whether it takes connections yet; that it has ended means a taken port."""
        if self.process is None or self.process.poll() is not None:
            raise PortTaken
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

"""The text protocol of a job server: what an operator sees."""

import subprocess
from collections.abc import Callable
from typing import NamedTuple

from tests.kit.ports import Connect, loopback


class QueueStatus(NamedTuple):
    """One line of `status`; total counts the running jobs too."""

    total: int
    running: int
    workers: int


class WorkerStatus(NamedTuple):
    """One line of `workers`."""

    address: str
    client_id: str
    functions: tuple[str, ...]


class Admin:
    """Asks the job server at a port of 127.0.0.1, each time on a connection of its own."""

    def __init__(self, port: int, timeout: float = 5.0, connect: Connect = loopback) -> None:
        self.port = port
        self.timeout = timeout
        self.connect = connect

    def command(self, text: str) -> str:
        """Return the one line that answers a command."""
        return self._ask(text, lambda answer: answer.endswith(b"\n")).strip()

    def listing(self, text: str) -> list[str]:
        """Return the lines of an answer that a single dot ends."""
        whole = self._ask(text, lambda answer: (b"\n" + answer).endswith(b"\n.\n"))
        return whole.splitlines()[:-1]

    def status(self) -> dict[str, QueueStatus]:
        """Return every queue with its counts."""
        rows = (line.split("\t") for line in self.listing("status"))
        return {name: QueueStatus(*map(int, counts)) for name, *counts in rows}

    def queue(self, name: str) -> QueueStatus:
        """Return the counts of one queue, all zero if the server does not know it."""
        return self.status().get(name, QueueStatus(0, 0, 0))

    def workers(self) -> list[WorkerStatus]:
        """Return every connection that the server knows, clients too."""
        found = []
        for line in self.listing("workers"):
            who, _, functions = line.partition(" :")
            _, address, client_id = who.split(" ", 2)
            found.append(WorkerStatus(address, client_id, tuple(functions.split())))
        return found

    def version(self) -> str:
        """Return the server's version."""
        return self.command("version").removeprefix("OK ")

    def pid(self) -> int:
        """Return the process id that the server gives as its own."""
        return int(self.command("getpid").removeprefix("OK "))

    def maxqueue(self, queue: str, jobs: int) -> None:
        """Limit how many jobs a queue takes; the queue has to exist."""
        answer = self.command(f"maxqueue {queue} {jobs}")
        assert answer == "OK", answer

    def _ask(self, text: str, is_whole: Callable[[bytes], bool]) -> str:
        with self.connect(self.port, self.timeout) as connection:
            connection.settimeout(self.timeout)
            connection.sendall(text.encode() + b"\n")
            answer = b""
            while not is_whole(answer):
                data = connection.recv(1 << 16)
                if not data:
                    raise ConnectionError(f"the server closed after {text!r}")
                answer += data
        return answer.decode()


def gearadmin_status(address: str) -> str:
    """Return what `gearadmin --status` prints for a server at host:port."""
    return _gearadmin(address, "--status")


def gearadmin_workers(address: str) -> str:
    """Return what `gearadmin --workers` prints for a server at host:port."""
    return _gearadmin(address, "--workers")


def _gearadmin(address: str, option: str) -> str:
    host, _, port = address.rpartition(":")
    command = ["gearadmin", "--host", host, "--port", port, option]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout

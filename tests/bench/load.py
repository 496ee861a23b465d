"""The bench's own hands at a job server: fills a queue, asks how deep queues are.

As cheap as Python can be, for it runs on the cores that the relay and the job servers need. Jobs
are submitted before the clock starts, and what has arrived is counted by asking the target, so no
worker competes with what is measured.
"""

import socket
from collections.abc import Sequence
from typing import Self

from tests.kit.packets import HEADER, REQUEST, RESPONSE, Kind

CREATED = RESPONSE + int(Kind.JOB_CREATED).to_bytes(4, "big")
"""How each confirm begins; no handle holds these bytes."""

BATCH = 1 << 17
"""Bytes sent at once, and a quarter of what is sent ahead of the confirms."""


def connect(port: int) -> socket.socket:
    """Connect to a job server of this host."""
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def submit(queue: bytes, unique: bytes, workload: bytes, kind: Kind = Kind.SUBMIT_JOB_BG) -> bytes:
    """Return a submission."""
    size = len(queue) + len(unique) + len(workload) + 2
    return b"%b%b\0%b\0%b" % (HEADER.pack(REQUEST, kind, size), queue, unique, workload)


class Created:
    """Counts the confirms in a stream."""

    def __init__(self) -> None:
        self.count = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        data = self._tail + data
        self.count += data.count(CREATED)
        self._tail = data[1 - len(CREATED) :]


def fill(port: int, queues: Sequence[bytes], jobs: int, workload: bytes) -> None:
    """Put `jobs` background jobs on queues in turn, and wait until the server has them all."""
    batch = max(1, BATCH // (len(workload) + 50))
    created, sent = Created(), 0
    with connect(port) as sock:
        while created.count < jobs:
            while sent < jobs and sent - created.count <= 3 * batch:
                numbers = range(sent, min(sent + batch, jobs))
                pieces = [submit(queues[n % len(queues)], b"u%d" % n, workload) for n in numbers]
                sock.sendall(b"".join(pieces))
                sent += len(pieces)
            created.feed(_receive(sock))


class Depth:
    """Asks one server again and again how many jobs its queues hold, running ones included."""

    def __init__(self, port: int) -> None:
        self._sock = connect(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def __call__(self) -> int:
        """Return the jobs of all queues."""
        self._sock.sendall(b"status\n")
        answer = b""
        while not (b"\n" + answer).endswith(b"\n.\n"):
            answer += _receive(self._sock)
        return sum(int(line.split(b"\t")[1]) for line in answer.splitlines()[:-1])


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 18)
    if not data:
        raise ConnectionError("the job server has hung up")
    return data

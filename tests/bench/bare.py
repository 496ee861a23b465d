"""The bare relay, the bench's first reference: what a gevent relay costs that promises nothing.

Run as `bare.py SOURCE_PORT TARGET_PORT QUEUE... WINDOW`. It pipelines as the program does, in the
same window, on the same loop, with a pair of connections for each queue, and has nothing else: no
ping, no reconnect, no stages, no counters, no accounting, no bound in bytes. It completes a job
after its JOB_CREATED, so that it does the same work on the wire. It imports nothing of the program.
"""

# ruff: noqa: E402 - the patch comes first
from gevent import monkey

monkey.patch_all()

import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator

import gevent

HEADER = struct.Struct(">4sII")
CAN_DO, PRE_SLEEP, NOOP, CREATED, NO_JOB = 1, 4, 6, 8, 10
COMPLETE, SUBMIT, GRAB, ASSIGN = 13, 18, 30, 31
Packets = list[tuple[int, bytes]]


def encode(kind: int, body: bytes = b"") -> bytes:
    """Return a request."""
    return HEADER.pack(b"\0REQ", kind, len(body)) + body


def connect(port: int) -> socket.socket:
    """Connect to a job server of this host."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def batches(sock: socket.socket) -> Iterator[Packets]:
    """Yield the whole packets of each received piece."""
    pieces, have, need = [], 0, HEADER.size
    while data := sock.recv(1 << 18):
        pieces.append(data)
        have += len(data)
        if have < need:
            continue
        buffer, start, found = b"".join(pieces), 0, []
        need = HEADER.size
        while have - start >= HEADER.size:
            _, kind, size = HEADER.unpack_from(buffer, start)
            end = start + HEADER.size + size
            if end > have:
                need = end - start
                break
            found.append((kind, buffer[start + HEADER.size : end]))
            start = end
        pieces, have = [buffer[start:]], have - start
        yield found
        gevent.sleep(0)


class Bare:
    """Both connections, and the handles of the jobs in between."""

    def __init__(self, source: int, target: int, queue: bytes, window: int) -> None:
        self.source, self.target = connect(source), connect(target)
        self.queue, self.window = queue, window
        self.handles: deque[bytes] = deque()
        self.outstanding = 0
        self.asleep = False
        self.source.sendall(encode(CAN_DO, queue))

    def grab(self) -> None:
        """Ask for as many jobs as the window has room for."""
        room = self.window - len(self.handles) - self.outstanding
        if room > 0 and not self.asleep:
            self.outstanding += room
            self.source.sendall(encode(GRAB) * room)

    def from_source(self) -> None:
        """Submit what is assigned; sleep when nothing is."""
        for packets in batches(self.source):
            submits, empty = [], False
            for kind, body in packets:
                if kind == ASSIGN:
                    self.outstanding -= 1
                    handle, _, unique, workload = body.split(b"\0", 3)
                    self.handles.append(handle)
                    submits.append(encode(SUBMIT, b"\0".join((self.queue, unique, workload))))
                elif kind == NO_JOB:
                    self.outstanding -= 1
                    empty = True
                elif kind == NOOP:
                    self.asleep = False
            if submits:
                self.target.sendall(b"".join(submits))
            if not empty:
                self.grab()
            elif not self.outstanding:
                self.asleep = True
                self.source.sendall(encode(PRE_SLEEP))

    def from_target(self) -> None:
        """Complete what is confirmed."""
        for packets in batches(self.target):
            done = [self.handles.popleft() + b"\0" for kind, _ in packets if kind == CREATED]
            if done:
                self.source.sendall(b"".join([encode(COMPLETE, body) for body in done]))
            self.grab()

    def run(self) -> None:
        """Relay until a server hangs up."""
        self.grab()
        ends = [gevent.spawn(self.from_source), gevent.spawn(self.from_target)]
        gevent.joinall(ends, count=1)


def main(source: str, target: str, *rest: str) -> None:
    """Relay every queue until a server hangs up."""
    *queues, window = rest
    ports = int(source), int(target)
    relays = [Bare(*ports, queue.encode(), int(window)) for queue in queues]
    gevent.joinall([gevent.spawn(relay.run) for relay in relays], count=1)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One job per round trip, the bench's second reference: what a proxy of the common kind does.

Run as `one_by_one.py SOURCE_PORT TARGET_PORT QUEUE`. Grab a job, submit it, wait for its
JOB_CREATED, complete it, grab the next. Blocking sockets, no gevent: as little as it can cost.
It imports nothing of the program.
"""

import socket
import struct
import sys

HEADER = struct.Struct(">4sII")
CAN_DO, PRE_SLEEP, COMPLETE, SUBMIT, GRAB, ASSIGN = 1, 4, 13, 18, 30, 31


class Peer:
    """A blocking connection to a job server of this host."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, kind: int, body: bytes = b"") -> None:
        """Send one request."""
        self.socket.sendall(HEADER.pack(b"\0REQ", kind, len(body)) + body)

    def receive(self) -> tuple[int, bytes]:
        """Wait for one packet."""
        _, kind, size = HEADER.unpack(self._take(HEADER.size))
        return kind, self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = self.socket.recv(1 << 18)
            if not data:
                raise SystemExit
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken


def run(source: Peer, target: Peer, queue: bytes) -> None:
    """Relay until a server hangs up."""
    source.send(CAN_DO, queue)
    while True:
        source.send(GRAB)
        kind, body = source.receive()
        if kind == ASSIGN:
            handle, _, unique, workload = body.split(b"\0", 3)
            target.send(SUBMIT, b"\0".join((queue, unique, workload)))
            target.receive()
            source.send(COMPLETE, handle + b"\0")
        else:
            source.send(PRE_SLEEP)
            source.receive()


if __name__ == "__main__":
    run(Peer(int(sys.argv[1])), Peer(int(sys.argv[2])), sys.argv[3].encode())

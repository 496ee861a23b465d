"""Peers that are at work while the clock runs, each a process of its own, on plain sockets.

    peers_process.py clients PORT QUEUE COUNT SECONDS   foreground jobs, one at a time on each of
                                                        COUNT connections; prints "begin", "end N"
    peers_process.py workers PORT QUEUE COUNT           take and answer, one at a time on each
    peers_process.py feed PORT QUEUE DEPTH SIZE         keep about DEPTH jobs waiting
    peers_process.py take PORT QUEUE                    take all that comes, many at a time

Run as a module. It ends when it is killed, or `clients` after its time.
"""

import selectors
import socket
import sys
import time
from collections.abc import Callable

from tests.bench.load import Depth, connect, fill, submit
from tests.kit.packets import Decoder, Kind, Packet, encode

WARMUP = 1.0  # seconds from the first answer to "begin"
PATIENCE = 60.0  # seconds until the first answer
WINDOW = 500  # jobs at once of `take`
PAUSE = 0.02  # seconds between two looks of `feed`

Answer = Callable[[Packet], bytes]


def serve(port: int, count: int, hello: bytes, answer: Answer, until: Callable[[], bool]) -> None:
    """Talk on `count` connections: say hello on each, then answer every packet."""
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            sock = connect(port)
            selector.register(sock, selectors.EVENT_READ, Decoder())
            sock.sendall(hello)
        while not until():
            for key, _ in selector.select(1.0):
                peer = key.fileobj
                assert isinstance(peer, socket.socket)
                data = peer.recv(1 << 18)
                if not data:
                    return
                out = b"".join([answer(packet) for packet in key.data.feed(data)])
                if out:
                    peer.sendall(out)


class Clients:
    """Counts the answers to foreground jobs; says when counting begins and what came of it."""

    def __init__(self, queue: bytes, seconds: float) -> None:
        self.job = submit(queue, b"", b"x" * 400, Kind.SUBMIT_JOB)
        self.count = 0
        self.seconds = seconds
        self.begin = self.end = 0.0
        self.give_up = time.monotonic() + PATIENCE
        self.begun = False

    def answer(self, packet: Packet) -> bytes:
        """Submit the next job when one has come back."""
        if packet.kind is not Kind.WORK_COMPLETE:
            return b""
        self.count += 1
        return self.job

    def is_over(self) -> bool:
        """Look at the clock."""
        now = time.monotonic()
        if not self.begin:
            if not self.count:  # no worker yet
                return now > self.give_up
            self.begin = now + WARMUP
            self.end = self.begin + self.seconds
        if not self.begun and now >= self.begin:
            self.begun, self.count = True, 0
            say("begin")
        if now < self.end:
            return False
        say(f"end {self.count}")
        return True


def worker(window: int) -> tuple[bytes, Answer]:
    """Return what a worker says at first, and how it answers."""
    grab, sleep = encode(Kind.GRAB_JOB_UNIQ), encode(Kind.PRE_SLEEP)
    empty = 0

    def answer(packet: Packet) -> bytes:
        nonlocal empty
        if packet.kind is Kind.JOB_ASSIGN_UNIQ:
            return encode(Kind.WORK_COMPLETE, packet.args[0], b"") + grab
        if packet.kind is Kind.NO_JOB:
            empty += 1
            if empty % window:
                return b""
            return sleep
        return grab * window if packet.kind is Kind.NOOP else b""

    return grab * window, answer


def feed(port: int, queue: bytes, depth: int, size: int) -> None:
    """Fill up whenever half of it has gone."""
    with Depth(port) as waiting:
        while True:
            missing = depth - waiting()
            if missing > depth // 2:
                fill(port, [queue], missing, b"x" * size)
            else:
                time.sleep(PAUSE)


def say(line: str) -> None:
    """Tell the bench."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(role: str, port: int, queue: bytes, *numbers: str) -> None:
    """Play a role."""
    if role == "clients":
        clients = Clients(queue, float(numbers[1]))
        serve(port, int(numbers[0]), clients.job, clients.answer, clients.is_over)
    elif role == "feed":
        feed(port, queue, int(numbers[0]), int(numbers[1]))
    else:
        window, count = (1, int(numbers[0])) if role == "workers" else (WINDOW, 1)
        hello, answer = worker(window)
        serve(port, count, encode(Kind.CAN_DO, queue) + hello, answer, lambda: False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), *sys.argv[4:])

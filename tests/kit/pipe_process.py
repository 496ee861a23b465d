"""The process behind `pipe.Pipe`: one selector loop, a delay line for each direction.

Started with one JSON argument; reads one JSON command a line on stdin, answers each with one
line, and ends with stdin. It imports nothing but the standard library.
"""

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Container

DEPTH = 16 << 20  # bytes on their way in one direction of one connection
CHUNK = 1 << 16
SLICE = 0.02  # seconds of a thin link that one chunk may take
SEGMENT = 1400  # bytes; loopback's own 64 KiB segments stall behind small buffers
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


class Lane:
    """One direction of the whole link: what its connections share."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.rate: float | None = None
        self.free_at = 0.0  # when the bytes already taken have left the thin end
        self.open = True
        self.bytes = 0

    def departure(self, size: int, now: float) -> float:
        """Return when the last of these bytes arrives at the far end."""
        if self.rate is None:
            return now + self.delay
        self.free_at = max(self.free_at, now) + size / self.rate
        return self.free_at + self.delay

    def chunk(self, now: float) -> int:
        """Return how many bytes it takes now; none while the link is busy."""
        if not self.open:
            return 0
        if self.rate is None:
            return CHUNK
        return 0 if self.free_at > now + SLICE else max(1, min(CHUNK, int(self.rate * SLICE)))


class Flow:
    """One direction of one connection: from a socket, along a lane, to a socket."""

    def __init__(self, lane: Lane, source: socket.socket, sink: socket.socket) -> None:
        self.lane = lane
        self.source = source
        self.sink = sink
        self.line: deque[tuple[float, bytes]] = deque()  # an empty chunk is the end
        self.held = 0
        self.ended = False  # the source has said its last
        self.finished = False  # and the sink has been told
        self.clogged = False

    def pull(self, now: float) -> None:
        """Take what the source has, as far as the lane does."""
        size = self.lane.chunk(now)
        if self.ended or not size or self.held >= DEPTH:
            return
        try:
            data = self.source.recv(size)
        except BlockingIOError:
            return
        self.ended = not data
        self.held += len(data)
        self.line.append((self.lane.departure(len(data), now), data))

    def push(self, now: float) -> None:
        """Deliver what has arrived at the far end."""
        self.clogged = False
        while self.lane.open and self.line and self.line[0][0] <= now:
            due, data = self.line.popleft()
            if not data:
                self.finished = True
                self.sink.shutdown(socket.SHUT_WR)
                return
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.held -= sent
            self.lane.bytes += sent
            if sent < len(data):
                self.line.appendleft((due, data[sent:]))
                self.clogged = True
                return

    def wakes_at(self, now: float) -> float | None:
        """Return when there is something to do that no socket will tell."""
        if not self.lane.open:
            return None
        times = [self.line[0][0]] if self.line and not self.clogged else []
        if not self.ended and self.lane.rate is not None and self.lane.free_at > now + SLICE:
            times.append(self.lane.free_at - SLICE)
        return min(times, default=None)

    def wants(self, now: float) -> tuple[bool, bool]:
        """Say whether to wait for the source to be readable and the sink to be writable."""
        reads = not self.ended and self.held < DEPTH and self.lane.chunk(now) > 0
        return reads, self.clogged and self.lane.open


class Link:
    """The listener, the connections and the commands."""

    def __init__(self, port: int, target: int, buffer: int) -> None:
        self.address = ("127.0.0.1", port)
        self.target = ("127.0.0.1", target)
        self.buffer = buffer
        self.lanes = (Lane(), Lane())
        self.flows: list[tuple[Flow, Flow]] = []
        self.accepted = 0
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ)
        # Holds the port while the listener is closed; it never listens.
        self.reserve = self.bind()
        self.listener: socket.socket | None = None
        self.listen()

    def bind(self) -> socket.socket:
        """Return a socket with our port and our buffers."""
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.narrow(bound)
        bound.bind(self.address)
        return bound

    def narrow(self, sock: socket.socket) -> None:
        """Give a socket small buffers; only before it connects or listens does it count."""
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def listen(self) -> None:
        """Accept connections from now on."""
        if self.listener is None:
            self.listener = self.bind()
            self.listener.listen(128)
            self.listener.settimeout(0)
            self.selector.register(self.listener, selectors.EVENT_READ)

    def refuse(self) -> None:
        """Refuse connections from now on."""
        if self.listener is not None:
            self.selector.unregister(self.listener)
            self.listener.close()
            self.listener = None

    def accept(self, listener: socket.socket) -> None:
        """Connect a new client to the target, or reset it where the target refuses."""
        try:
            client, _ = listener.accept()
        except OSError:
            return
        self.accepted += 1
        target = socket.socket()
        self.narrow(target)
        try:
            target.connect(self.target)
        except OSError:
            target.close()
            self.hang_up(client, reset=True)
            return
        for sock in (client, target):
            sock.settimeout(0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        to_target, to_client = self.lanes
        self.flows.append((Flow(to_target, client, target), Flow(to_client, target, client)))

    @staticmethod
    def hang_up(sock: socket.socket, reset: bool) -> None:
        """Close a socket, by RST or by FIN."""
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        sock.close()

    def end(self, pair: tuple[Flow, Flow], reset: bool) -> None:
        """End one connection on both sides."""
        self.flows.remove(pair)
        for sock in (pair[0].source, pair[0].sink):
            with contextlib.suppress(KeyError):
                self.selector.unregister(sock)
            self.hang_up(sock, reset)

    def command(self, name: str, *arguments: float | None) -> list[int]:
        """Do what the test asks."""
        to_target, to_client = self.lanes
        if name == "shape":
            for lane in self.lanes:
                lane.delay, lane.rate, lane.free_at = arguments[0] or 0.0, arguments[1], 0.0
        elif name == "drop":
            for pair in list(self.flows):
                self.end(pair, reset=bool(arguments[0]))
        elif name == "refuse":
            self.refuse()
        elif name == "blackhole":
            to_target.open, to_client.open = not arguments[0], not arguments[1]
        elif name == "restore":
            to_target.open = to_client.open = True
            self.listen()
        return [to_target.bytes, to_client.bytes, self.accepted, len(self.flows)]

    def watch(self, sock: socket.socket, events: int) -> None:
        """Tell the selector what a socket waits for."""
        known = self.selector.get_map().get(sock)
        if known is None:
            if events:
                self.selector.register(sock, events)
        elif not events:
            self.selector.unregister(sock)
        elif known.events != events:
            self.selector.modify(sock, events)

    def timeout(self) -> float | None:
        """Set what every socket waits for and return how long to wait."""
        now = time.monotonic()
        times = []
        for there, back in self.flows:
            reads_client, writes_target = there.wants(now)
            reads_target, writes_client = back.wants(now)
            self.watch(there.source, reads_client | writes_client << 1)
            self.watch(there.sink, reads_target | writes_target << 1)
            times += [due for flow in (there, back) if (due := flow.wakes_at(now)) is not None]
        return max(0.0, min(times) - now) if times else None

    def run(self) -> None:
        """Move bytes until stdin ends."""
        pending = b""
        while True:
            ready = {key.fileobj for key, _ in self.selector.select(self.timeout())}
            if 0 in ready:
                data = os.read(0, CHUNK)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    print(json.dumps(self.command(*json.loads(line))), flush=True)  # noqa: T201
            if self.listener in ready and self.listener is not None:
                self.accept(self.listener)
            for pair in list(self.flows):
                self.move(pair, ready)

    def move(self, pair: tuple[Flow, Flow], ready: Container[object]) -> None:
        """Move what can be moved on one connection, and end it when there is no more."""
        now = time.monotonic()
        try:
            for flow in pair:
                if flow.source in ready:
                    flow.pull(now)
                flow.push(now)
        except OSError:
            self.end(pair, reset=True)
        else:
            if all(flow.finished for flow in pair):
                self.end(pair, reset=False)


if __name__ == "__main__":
    link = Link(**json.loads(sys.argv[1]))
    print("ready", flush=True)  # noqa: T201
    link.run()

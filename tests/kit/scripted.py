"""Job servers that misbehave on purpose, each a small subclass of one that behaves.

A `ScriptedServer` does everything in one thread. A subclass overrides what it gets wrong;
tests read its records and steer it through the public methods, which are safe to call.
"""

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from tests.kit.packets import REQUEST, RESPONSE, SUBMITS, Decoder, Kind, Packet, encode
from tests.kit.peers import Job
from tests.kit.ports import free_port

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST
CHUNK = 1 << 18


class Peer:
    """A worker or client that is connected to a scripted server."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.decoder = Decoder(REQUEST)
        self.out = bytearray()
        self.asleep = False
        self.grabs = 0  # that came in all
        self.functions: set[bytes] = set()
        self.held: dict[bytes, Job] = {}


class ScriptedServer:
    """Behaves: creates what is submitted, hands out what `offer` gave it, answers pings."""

    def __init__(self) -> None:
        self.received: list[Packet] = []
        self.submitted: list[Job] = []  # in the order of their confirms
        self.completed: list[bytes] = []  # handles, in order
        self.connected_at: list[float] = []  # monotonic seconds
        self.peers: list[Peer] = []
        self.offered: deque[Job] = deque()
        self.created = itertools.count(1)
        self.assigned = itertools.count(1)
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.sequence = itertools.count()
        self.calls: deque[Callable[[], None]] = deque()
        self.selector = selectors.DefaultSelector()
        self.wake_read, self.wake_write = os.pipe()
        self.stopping = False
        self.listener = self._listen()
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # What a test calls.

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self.port}"

    def offer(self, *jobs: Job) -> None:
        """Queue jobs for workers."""
        self.call(lambda: self._offer(jobs))

    def drop(self, reset: bool = False) -> None:
        """End all connections; what their workers held is offered again, at the tail."""
        self.call(lambda: self._drop(reset))

    def call(self, action: Callable[[], None]) -> None:
        """Do something in the server's thread."""
        self.calls.append(action)
        os.write(self.wake_write, b"x")

    def close(self) -> None:
        """End the server and all its connections."""
        self.stopping = True
        os.write(self.wake_write, b"x")
        self.thread.join()
        for peer in self.peers:
            peer.socket.close()
        self.listener.close()
        self.selector.close()
        os.close(self.wake_read)
        os.close(self.wake_write)

    # What a subclass overrides.

    def on_connect(self, peer: Peer) -> None:
        """React to a new connection."""

    def on_packet(self, peer: Peer, packet: Packet) -> None:
        """React to a packet."""
        kind, args = packet
        if kind in SUBMITS:
            self.on_submit(peer, Job(*args))
        elif kind in (Kind.GRAB_JOB, Kind.GRAB_JOB_UNIQ):
            self.on_grab(peer)
        elif kind is Kind.GET_STATUS:
            self.reply(peer, Kind.STATUS_RES, args[0], b"0", b"0", b"0", b"0")
        elif kind is Kind.ECHO_REQ:
            self.reply(peer, Kind.ECHO_RES, args[0])
        elif kind is Kind.OPTION_REQ:
            self.reply(peer, Kind.OPTION_RES, args[0])
        elif kind is Kind.CAN_DO:
            peer.functions.add(args[0])
        elif kind is Kind.PRE_SLEEP:
            peer.asleep = True
            if self.offered:
                self.wake(peer)
        elif kind is Kind.WORK_COMPLETE:
            self.on_complete(peer, args[0])

    def on_submit(self, peer: Peer, job: Job) -> None:
        """React to a submitted job."""
        self.confirm(peer, job)

    def on_grab(self, peer: Peer) -> None:
        """React to a grab."""
        peer.asleep = False
        peer.grabs += 1
        if not self.offered:
            self.reply(peer, Kind.NO_JOB)
            return
        job = self.offered.popleft()
        handle = b"S:%d" % next(self.assigned)
        peer.held[handle] = job
        self.reply(peer, Kind.JOB_ASSIGN_UNIQ, handle, *job)

    def on_complete(self, peer: Peer, handle: bytes) -> None:
        """React to a completion."""
        if peer.held.pop(handle, None) is None:
            self.reply(peer, Kind.ERROR, b"JOB_NOT_FOUND", b"Job given in work result not found")
        else:
            self.completed.append(handle)

    # What a subclass uses; only in the server's thread.

    def confirm(self, peer: Peer, job: Job) -> None:
        """Record a job and answer JOB_CREATED."""
        self.submitted.append(job)
        self.reply(peer, Kind.JOB_CREATED, b"T:%d" % next(self.created))

    def reply(self, peer: Peer, kind: Kind, *args: bytes) -> None:
        """Send a packet to a peer, if it is still there."""
        self.send(peer, encode(kind, *args, magic=RESPONSE))

    def send(self, peer: Peer, data: bytes) -> None:
        """Send bytes to a peer, if it is still there."""
        if peer in self.peers:
            peer.out += data
            self._flush(peer)

    def wake(self, peer: Peer) -> None:
        """Tell a sleeping worker that there are jobs."""
        peer.asleep = False
        self.reply(peer, Kind.NOOP)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while; equal whiles keep their order."""
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.sequence), action))

    def hang_up(self, peer: Peer, reset: bool = False) -> None:
        """End a connection."""
        self.peers.remove(peer)
        self.selector.unregister(peer.socket)
        if reset:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        peer.socket.close()
        self._offer(tuple(peer.held.values()))

    # The loop.

    def _drop(self, reset: bool) -> None:
        for peer in list(self.peers):
            self.hang_up(peer, reset)

    @staticmethod
    def _listen() -> socket.socket:
        while True:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", free_port()))
                listener.listen(128)
            except OSError:
                listener.close()
                continue
            listener.settimeout(0)
            return listener

    def _offer(self, jobs: tuple[Job, ...]) -> None:
        self.offered.extend(jobs)
        if jobs:
            for peer in self.peers:
                if peer.asleep:
                    self.wake(peer)

    def _run(self) -> None:
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.selector.register(self.wake_read, selectors.EVENT_READ)
        while not self.stopping:
            timeout = max(0.0, self.timers[0][0] - time.monotonic()) if self.timers else None
            for key, events in self.selector.select(timeout):
                if key.fileobj is self.listener:
                    self._accept()
                elif key.fileobj == self.wake_read:
                    os.read(self.wake_read, CHUNK)
                elif key.data in self.peers:
                    self._serve(key.data, events)
            while self.calls:
                self.calls.popleft()()
            while self.timers and self.timers[0][0] <= time.monotonic():
                heapq.heappop(self.timers)[2]()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self.listener.accept()
            sock.settimeout(0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock)
            self.connected_at.append(time.monotonic())
            self.peers.append(peer)
            self.selector.register(sock, selectors.EVENT_READ, peer)
            self.on_connect(peer)

    def _serve(self, peer: Peer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(peer)
        if not events & selectors.EVENT_READ or peer not in self.peers:
            return
        try:
            data = peer.socket.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self.hang_up(peer)
            return
        for packet in peer.decoder.feed(data):
            self.received.append(packet)
            if peer in self.peers:
                self.on_packet(peer, packet)

    def _flush(self, peer: Peer) -> None:
        try:
            while peer.out:
                del peer.out[: peer.socket.send(peer.out)]
        except BlockingIOError:
            pass
        except OSError:
            self.hang_up(peer)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.out else 0)
        self.selector.modify(peer.socket, events, peer)


class AcceptsAndCloses(ScriptedServer):
    """A port that somebody else has taken: every connection ends at once."""

    def on_connect(self, peer: Peer) -> None:
        """Hang up."""
        self.hang_up(peer)


class Silent(ScriptedServer):
    """Accepts and reads, and never says a word."""

    def on_packet(self, *_: object) -> None:
        """Say nothing."""


class FallsSilent(ScriptedServer):
    """Behaves until `silent` is set."""

    silent = False

    def on_packet(self, peer: Peer, packet: Packet) -> None:
        """Behave, or say nothing."""
        if not self.silent:
            super().on_packet(peer, packet)


class Garbage(ScriptedServer):
    """Answers the first packet with something that is not Gearman."""

    def __init__(self, data: bytes = b"HTTP/1.1 400 Bad Request\r\n\r\n") -> None:
        super().__init__()
        self.data = data

    def on_packet(self, peer: Peer, *_: object) -> None:
        """Talk nonsense."""
        self.send(peer, self.data)


class ConfirmsLate(ScriptedServer):
    """Confirms every job so many seconds after it came."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Let the job wait for its confirm."""
        self.later(self.seconds, lambda: self.confirm(peer, job))


class Refuses(ScriptedServer):
    """Refuses some jobs with an ERROR in their place."""

    def __init__(
        self, refused: Callable[[Job], bool], code: bytes, text: bytes = b"refused"
    ) -> None:
        super().__init__()
        self.refused = refused
        self.code = code
        self.text = text
        self.refusals: list[Job] = []

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Confirm or refuse."""
        if self.refused(job):
            self.refusals.append(job)
            self.reply(peer, Kind.ERROR, self.code, self.text)
        else:
            self.confirm(peer, job)


class Full(Refuses):
    """A queue that is full, in gearmand's words, as long as `full` is set."""

    def __init__(self) -> None:
        super().__init__(lambda _: self.full, b"QUEUE_ERROR", b"Job queue is full")
        self.full = True


class ConfirmsTwice(ScriptedServer):
    """Confirms more than was submitted."""

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Confirm and confirm again."""
        self.confirm(peer, job)
        self.reply(peer, Kind.JOB_CREATED, b"T:%d" % next(self.created))


class HandlesStartAgain(ScriptedServer):
    """Its job handles start at 1 with every connection, as a restarted server's do."""

    def on_connect(self, *_: object) -> None:
        """Count from 1."""
        self.assigned = itertools.count(1)
        self.created = itertools.count(1)

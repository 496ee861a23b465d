"""Job servers that mean harm. Each behaves until it is told to attack, or from the start."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Self

from tests.kit.packets import HEADER, RESPONSE, Kind, Packet, encode
from tests.kit.peers import Job
from tests.kit.scripted import Peer, ScriptedServer

MIB = 1 << 20
SICK = b"sick"  # the queue of the forward that is attacked
PIECE = 4 * MIB  # bytes of an endless stream that are prepared at once
ROUND = 0.1  # seconds that a peer which does not read gives us to ask for more


def response(kind: Kind, *args: bytes) -> bytes:
    """Return the bytes of a packet from a server."""
    return encode(kind, *args, magic=RESPONSE)


def announced(kind: Kind, size: int) -> bytes:
    """Return the header of a packet of so many bytes."""
    return HEADER.pack(RESPONSE, kind, size)


def assigned(handle: bytes, queue: bytes = SICK, unique: bytes = b"u") -> bytes:
    """Return a job as it is handed to a worker."""
    return response(Kind.JOB_ASSIGN_UNIQ, handle, queue, unique, b"w")


class Says(ScriptedServer):
    """Behaves until it is told to attack; then it says something to each who is there or comes."""

    def __init__(self, stream: Callable[[], Iterator[bytes]]) -> None:
        super().__init__()
        self.stream = stream
        self.attacking = False
        self.struck: set[Peer] = set()

    def attack(self) -> None:
        """Begin."""

        def all_of_them() -> None:
            self.attacking = True
            for peer in list(self.peers):
                self.provoke(peer)

        self.call(all_of_them)

    def provoke(self, peer: Peer) -> None:
        """Do what makes a peer ask for what it gets."""
        self.strike(peer)

    def on_packet(self, peer: Peer, packet: Packet) -> None:
        """Behave, and strike."""
        super().on_packet(peer, packet)
        if self.attacking:
            self.provoke(peer)

    def strike(self, peer: Peer) -> None:
        """Say all of it, once, and no faster than it is read."""
        if peer not in self.struck:
            self.struck.add(peer)
            self._go_on(peer, self.stream())

    def _go_on(self, peer: Peer, stream: Iterator[bytes]) -> None:
        if peer.out or not (piece := next(stream, b"")):
            piece = b""
        self.send(peer, piece)
        if peer in self.peers and (piece or peer.out):
            self.later(0.001, lambda: self._go_on(peer, stream))


class Stops(Says):
    """Says it and never another word."""

    def on_packet(self, peer: Peer, packet: Packet) -> None:
        """Behave until it is over."""
        if not self.attacking:
            super().on_packet(peer, packet)


class Clings(Says):
    """Never ends a connection, whatever the other end does."""

    def __init__(self, stream: Callable[[], Iterator[bytes]]) -> None:
        super().__init__(stream)
        self.kept: list[socket.socket] = []

    def hang_up(self, peer: Peer, reset: bool = False) -> None:
        """Forget the peer, but keep a copy of its socket open."""
        self.kept.append(peer.socket.dup())
        super().hang_up(peer, reset)

    def close(self) -> None:
        """End at last."""
        super().close()
        for each in self.kept:
            each.close()


class Gushes(ScriptedServer):
    """Behaves, and begins to talk without an end when the other end has said its last."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0  # bytes
        self.cut = threading.Event()

    def hang_up(self, peer: Peer, reset: bool = False) -> None:
        """Keep the first connection, and talk there."""
        if not self.sent:
            self.sent = 1
            sock = peer.socket.dup()
            threading.Thread(target=self._gush, args=(sock,), daemon=True).start()
        super().hang_up(peer, reset)

    def _gush(self, sock: socket.socket) -> None:
        piece = response(Kind.NOOP) * 20_000
        with sock:
            sock.settimeout(60.0)
            with contextlib.suppress(OSError):
                while not self.stopping:
                    self.sent += sock.send(piece)
                return
        self.cut.set()


class Gives(Says):
    """Says it in the place of a job that was asked for."""

    def provoke(self, peer: Peer) -> None:
        """Wake who sleeps: it will grab."""
        if peer.asleep:
            self.wake(peer)

    def on_grab(self, peer: Peer) -> None:
        """Give what it has."""
        if self.attacking:
            peer.asleep = False
            self.strike(peer)
        else:
            super().on_grab(peer)


class Teases(Says):
    """Wakes whoever falls asleep, and has nothing for whoever grabs."""

    def provoke(self, peer: Peer) -> None:
        """Wake who sleeps."""
        if peer.asleep:
            self.wake(peer)


class Answers(Says):
    """Answers each job that is submitted with something else than a confirm."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        super().__init__(lambda: iter(()))
        self.answer = answer
        self.answered = 0

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Answer; the job is not taken."""
        del job
        self.answered += 1
        self.send(peer, self.answer(self.answered))


class Deaf:
    """Answers the first ping; from then on it reads nothing, and says more every now and then."""

    def __init__(self, rounds: Callable[[], Iterator[bytes]] = lambda: iter(())) -> None:
        self.rounds = rounds
        self.stopping = threading.Event()
        self.listener = ScriptedServer._listen()
        self.listener.settimeout(0.1)
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        self.listener.close()

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self.port}"

    def attack(self) -> None:
        """Do nothing: it has begun already."""

    def _run(self) -> None:
        while not self.stopping.is_set():
            with contextlib.suppress(OSError):
                sock, _ = self.listener.accept()
                with sock:
                    self._meet(sock)

    def _meet(self, sock: socket.socket) -> None:
        sock.settimeout(0.1)
        sock.recv(1 << 16)
        sock.sendall(response(Kind.STATUS_RES, b"gevproxy:ping", b"0", b"0", b"0", b"0"))
        for data in self.rounds():
            if self.stopping.wait(ROUND):
                return
            sock.sendall(data)
        self.stopping.wait()

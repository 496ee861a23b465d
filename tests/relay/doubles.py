"""Scripted servers with a brake: a test says when they go on."""

import threading
import time
from collections import deque

from tests.kit.eventually import eventually
from tests.kit.packets import Kind, Packet
from tests.kit.peers import Job
from tests.kit.scripted import Peer, ScriptedServer


class Withholds(ScriptedServer):
    """A target that confirms when it is told to; what it has not confirmed dies with its peer."""

    def __init__(self, free: int = 0) -> None:
        super().__init__()
        self.free = free  # confirms that may be given at once
        self.pending: deque[tuple[Peer, Job]] = deque()

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Keep the job until there is leave to confirm."""
        self.pending.append((peer, job))
        self._confirm()

    def hang_up(self, peer: Peer, reset: bool = False) -> None:
        """Forget what was not confirmed."""
        self.pending = deque(each for each in self.pending if each[0] is not peer)
        super().hang_up(peer, reset)

    def release(self, count: int = 1_000_000) -> None:
        """Confirm so many jobs, and if there are not yet so many, the next ones too."""

        def more() -> None:
            self.free += count
            self._confirm()

        self.call(more)

    def wait_pending(self, count: int, deadline: float = 10.0) -> None:
        """Wait until so many jobs wait for their confirm."""
        eventually(lambda: len(self.pending) == count, deadline, what=f"{count} pending")

    def _confirm(self) -> None:
        while self.free and self.pending:
            self.free -= 1
            self.confirm(*self.pending.popleft())


class Fills(Withholds):
    """A target whose queue is full, in gearmand's words, from when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.refusals: list[float] = []  # monotonic seconds

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Keep the job, or refuse it."""
        if self.full:
            self._refuse(peer)
        else:
            super().on_submit(peer, job)

    def fill(self) -> None:
        """Refuse what waits and what comes."""

        def all_of_them() -> None:
            self.full = True
            pending, self.pending = self.pending, deque()
            for peer, _ in pending:
                self._refuse(peer)

        self.call(all_of_them)

    def wait_refusals(self, count: int, deadline: float = 15.0) -> None:
        """Wait until so many jobs have been refused."""
        eventually(lambda: len(self.refusals) >= count, deadline, what=f"{count} refusals")

    def _refuse(self, peer: Peer) -> None:
        self.refusals.append(time.monotonic())
        self.reply(peer, Kind.ERROR, b"QUEUE_ERROR", b"Job queue is full")


class Reluctant(ScriptedServer):
    """Answers pings from when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Peer, Packet]] | None = []

    def on_packet(self, peer: Peer, packet: Packet) -> None:
        """Keep a ping, do the rest."""
        if self.waiting is not None and packet.kind is Kind.GET_STATUS:
            self.waiting.append((peer, packet))
        else:
            super().on_packet(peer, packet)

    def answer(self) -> None:
        """Answer the pings that wait, and all that come."""

        def all_of_them() -> None:
            waiting, self.waiting = self.waiting or [], None
            for peer, packet in waiting:
                self.on_packet(peer, packet)

        self.call(all_of_them)


class Rounds(ScriptedServer):
    """A source that collects grabs and answers them all at once, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.grabbing: list[Peer] = []
        self.collecting = False

    def send(self, peer: Peer, data: bytes) -> None:
        """Put all answers of one round into one piece, so that they are read as one."""
        if self.collecting:
            peer.out += data
        else:
            super().send(peer, data)

    def on_grab(self, peer: Peer) -> None:
        """Keep the grab."""
        peer.asleep = False
        self.grabbing.append(peer)

    def hang_up(self, peer: Peer, reset: bool = False) -> None:
        """Forget its grabs."""
        self.grabbing = [each for each in self.grabbing if each is not peer]
        super().hang_up(peer, reset)

    def wait_grabs(self, count: int) -> None:
        """Wait until so many grabs are unanswered."""
        eventually(lambda: len(self.grabbing) == count, what=f"{count} grabs")

    def answer(self) -> None:
        """Answer what has been collected, and wait until that is done."""
        done = threading.Event()

        def all_of_them() -> None:
            grabbing, self.grabbing = self.grabbing, []
            self.collecting = True
            for peer in grabbing:
                ScriptedServer.on_grab(self, peer)
            self.collecting = False
            for peer in set(grabbing):
                self.send(peer, b"")
            done.set()

        self.call(all_of_them)
        assert done.wait(10)


class NeverWakes(ScriptedServer):
    """A source whose wake-ups get lost."""

    def wake(self, peer: Peer) -> None:
        """Send no NOOP."""

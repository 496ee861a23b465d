"""Users that do not give up: what a job server has not confirmed they submit again.

They speak to their own job server directly, so that a fault between the servers is the relay's
affair alone, and a fault of a job server is seen by all. What they themselves may have repeated
they count: a ledger must not blame the relay for it.
"""

import select
import socket
import threading
import time
from collections import deque
from typing import Self

from tests.chaos.tally import Tally
from tests.kit.packets import Decoder, Kind, Packet, encode
from tests.kit.peers import Assigned, Consumer
from tests.kit.servers import Server

CHUNK = 1 << 18  # bytes read at once, and bytes of jobs prepared ahead of the socket
PAUSE = 0.05  # seconds between attempts to connect, and between looks at what may be sent
CONNECT = 10.0  # seconds


class Feed:
    """Submits the jobs of a tally in the background until each is confirmed.

    It stays at most `ahead` jobs before what has arrived, or keeps to `rate` jobs a second.
    """

    kind = Kind.SUBMIT_JOB_BG

    def __init__(
        self, server: Server, tally: Tally, *, ahead: int = 2000, rate: float | None = None
    ) -> None:
        self.server = server
        self.tally = tally
        self.ahead = ahead
        self.rate = rate
        self.resent = 0  # jobs that were submitted again, and may have been taken twice
        self.accepted = 0
        self.failure: BaseException | None = None
        self.waiting: deque[int] = deque()  # to be submitted again, before any new one
        self.unanswered: deque[int] = deque()
        self.next = 0
        self.began = time.monotonic()
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self.thread.join()

    @property
    def done(self) -> bool:
        """Whether every job has been confirmed."""
        if self.failure:
            raise self.failure
        return not self.thread.is_alive()

    @property
    def _open(self) -> bool:
        return bool(self.waiting or self.unanswered) or self.next < self.tally.count

    def _run(self) -> None:
        while self._open and not self.stopping:
            try:
                with self.server.connect(self.server.port, CONNECT) as sock:
                    sock.settimeout(0)
                    self._submit(sock)
            except OSError:
                time.sleep(PAUSE)
            except BaseException as failure:  # noqa: BLE001 - for whoever waits for us
                self.failure = failure
                return
            self._give_up()

    def _give_up(self) -> None:
        """Submit again what this connection has not confirmed."""
        self.resent += len(self.unanswered)
        self.waiting.extendleft(reversed(self.unanswered))
        self.unanswered.clear()

    def _allowed(self) -> int:
        """Return the number that may not be submitted yet."""
        if self.rate is not None:
            return min(self.tally.count, int((time.monotonic() - self.began) * self.rate))
        return min(self.tally.count, self.tally.distinct + self.ahead)

    def _fill(self, out: bytearray) -> None:
        allowed = self._allowed()
        while len(out) < CHUNK and (self.waiting or self.next < allowed):
            if self.waiting:
                number = self.waiting.popleft()
            else:
                number, self.next = self.next, self.next + 1
            self.unanswered.append(number)
            out += encode(
                self.kind, self.tally.queue, self._unique(number), self.tally.payload(number)
            )

    def _unique(self, number: int) -> bytes:
        return self.tally.unique(number)

    def _submit(self, sock: socket.socket) -> None:
        decoder, out = Decoder(), bytearray()
        while self._open and not self.stopping:
            self._fill(out)
            readable, writable, _ = select.select([sock], [sock] if out else [], [], PAUSE)
            if writable:
                del out[: sock.send(out)]
            if readable:
                data = sock.recv(CHUNK)
                if not data:
                    raise ConnectionError
                for packet in decoder.feed(data):
                    self._on_packet(packet)

    def _on_packet(self, packet: Packet) -> None:
        assert packet.kind is Kind.JOB_CREATED, packet
        self.unanswered.popleft()
        self.accepted += 1


class Caller(Feed):
    """Submits foreground jobs and wants each one's own answer, at most `ahead` at once.

    A job that fails, or whose answer was lost with the connection, is submitted again. None has a
    unique: gearmand would tie a second one to the client of the first, who has gone.
    """

    kind = Kind.SUBMIT_JOB

    def __init__(self, server: Server, tally: Tally, *, ahead: int = 20) -> None:
        self.created: dict[bytes, int] = {}
        self.wrong = 0  # answers that belong to another job
        super().__init__(server, tally, ahead=ahead)

    @property
    def _open(self) -> bool:
        return bool(self.created) or super()._open

    def _give_up(self) -> None:
        self.unanswered.extend(self.created.values())
        self.created.clear()
        super()._give_up()

    def _allowed(self) -> int:
        room = self.ahead - len(self.created) - len(self.unanswered) - len(self.waiting)
        return min(self.tally.count, self.next + max(0, room))

    def _unique(self, number: int) -> bytes:  # noqa: ARG002 - none has one
        return b""

    def _on_packet(self, packet: Packet) -> None:
        handle = packet.args[0].rstrip(b"\0")
        if packet.kind is Kind.JOB_CREATED:
            self.created[handle] = self.unanswered.popleft()
        elif packet.kind is Kind.WORK_COMPLETE:
            self.wrong += packet.args[1] != b"%d" % self.created.pop(handle)
            self.accepted += 1
        else:
            assert packet.kind is Kind.WORK_FAIL, packet
            self.resent += 1
            self.waiting.append(self.created.pop(handle))


class Sink(Consumer):
    """Takes the jobs of a tally off their queue, and comes back whenever it is cut off.

    A foreground job is answered with its number.
    """

    def __init__(self, server: Server, tally: Tally, queue: bytes) -> None:
        self.tally = tally
        self.losses = 0  # connections lost: each may have cost the word on a window of jobs
        super().__init__(server.port, queue, reconnect=True, connect=server.connect)

    @property
    def may_repeat(self) -> int:
        """Jobs that the server may have had to hand out again, because we were cut off."""
        return self.losses * self.window

    def _handle(self, job: Assigned) -> bytes:
        number = self.tally.arrive(job.workload)
        return encode(Kind.WORK_COMPLETE, job.handle, b"%d" % number)

    def _connect_again(self) -> bool:
        self.losses += not self.stopping.is_set()
        return super()._connect_again()

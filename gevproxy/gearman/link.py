"""Keeps a connection to one server while it is wanted: attempts, back-off, the next one.

Standard library alone, as connection.py below it. A link decides nothing about jobs; its owner
hears of its life through LinkEvents.
"""

import threading
import time
from collections.abc import Callable
from random import Random
from typing import Final, Generic, NamedTuple

from gevproxy.backoff import Backoff
from gevproxy.errors import GearmanError, LinkError
from gevproxy.gearman.connection import Clock, Connection, P, connect
from gevproxy.gearman.job import Server
from gevproxy.gearman.tls import Tls

Spawn = Callable[..., object]

LONGEST_WAIT: Final = 5.0
"""Seconds from a failed attempt to the next, besides the floor of `waits`.

It is what the jobs of a long outage wait for first: with 10 s, a third of the time that 60,000 of
them needed.
"""

FAULT_LINGER: Final = 5.0
"""Seconds at most that a connection waits for its end after its peer broke the protocol.

Such a peer may come to it again with every attempt: those who linger must not use up descriptors.
"""


def waits(rng: Random) -> Backoff:
    """Return delays: at a port that accepts and closes, at most ten attempts in ten seconds."""
    return Backoff(floor=0.1, step=0.1, ceiling=LONGEST_WAIT, rng=rng)


def spawn_thread(function: Callable[..., None], *args: object) -> None:
    """Run `function` on a thread of its own (a greenlet where the process is patched)."""
    threading.Thread(target=function, args=args, daemon=True).start()


class LinkEvents(NamedTuple, Generic[P]):
    """What a link tells its owner. None of the calls may block.

    `on_up`: the server has answered the first ping of a new connection.
    `on_events`: what the peer object made of one received batch (it may be empty).
    `on_over`: a connection that had been up is over, by the peer or the network.
    `on_failed`: an attempt failed before its first ping was answered.
    """

    on_up: Callable[[P], None]
    on_events: Callable[[list[object]], None]
    on_over: Callable[[GearmanError], None]
    on_failed: Callable[[GearmanError], None]


class Link(Generic[P]):
    """Keeps a connection to one server while it is wanted, with TLS where it is given.

    `reason` says in words why there is none, "" while there is one. An ended connection goes its
    way out beside the next: a source that fell silent still needs our FIN when the path is back.
    TCP_USER_TIMEOUT is not set for the same reason: it would kill that socket first. `discard`
    says that what was not sent on a connection that is over will be sent on the next, so that
    sending it on the way out would only repeat it. `most_unread` bounds, in bytes, what a peer may
    leave lying that reads nothing of what we send, and yet sends.
    """

    def __init__(
        self,
        server: Server,
        make_peer: Callable[[], P],
        events: LinkEvents[P],
        *,
        tls: Tls | None,
        linger: float,
        discard: bool = False,
        most_unread: int | None = None,
        spawn: Spawn = spawn_thread,
        clock: Clock = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self.server = server
        self.reason = "connecting"
        self._make_peer = make_peer
        self._events = events
        self._tls = tls
        self._linger = linger
        self._discard = discard
        self._most_unread = most_unread
        self._spawn = spawn
        self._clock = clock
        self._backoff = waits(rng or Random())  # noqa: S311 - jitter
        self._wanted = False
        self._attempt = 0  # counts attempts; an attempt that is not the latest has been called off
        self._connection: Connection[P] | None = None
        self._lingering: set[Connection[P]] = set()

    @property
    def up(self) -> bool:
        """Whether there is a connection whose server has answered."""
        return self._connection is not None and self._connection.peer.answered

    @property
    def gone(self) -> bool:
        """Whether no socket is left, a lingering one included."""
        return self._connection is None and not self._lingering

    @property
    def backlog(self) -> int:
        """Bytes that wait in our outbox for the peer to take them."""
        return self._connection.peer.outbox.size if self._connection else 0

    @property
    def copied(self) -> int:
        """Of the backlog, the bytes that are nowhere else in memory."""
        return self._connection.peer.outbox.copied if self._connection else 0

    def want(self, wanted: bool) -> None:
        """Say whether a connection is wanted. One that is there is ended by `end` alone."""
        if wanted and not self._wanted:
            self._wanted = True
            if self._connection is None:
                self._start(0.0 if self._attempt == 0 else self._backoff.next())
        elif not wanted and self._wanted:
            self._wanted = False
            if self._connection is None:
                self._attempt += 1  # calls off a running attempt
            elif not self.up:
                self._detach("not wanted", discard=True)

    def end(self, reason: str, *, discard: bool = False) -> None:
        """End the connection; a new one follows while one is wanted. Does not call `on_over`."""
        if self._connection is not None:
            self._detach(reason, discard=discard)

    def abort(self) -> None:
        """Close every socket now, and want none."""
        self._wanted = False
        self._attempt += 1
        for connection in [*self._lingering, *filter(None, [self._connection])]:
            connection.abort()
        self._connection = None  # its reader may wake once more, and is not listened to

    def flush(self) -> None:
        """Send what the peer object has to say."""
        if self._connection is not None:
            self._connection.flush()

    def read(self, allowed: bool) -> None:
        """Stop or go on reading."""
        if self._connection is not None:
            self._connection.read(allowed)

    def tick(self, now: float) -> None:
        """Once a second: ping, and end a connection that is silent or takes nothing."""
        connection = self._connection
        if connection is None:
            return
        if not connection.tick(now):
            self._over(connection, LinkError("silent"))
        elif connection.is_deaf(now) or self._leaves_unread():
            connection.break_off("it does not read what we send")

    def _leaves_unread(self) -> bool:
        """Tell whether more waits for the peer than may."""
        return self._most_unread is not None and self.backlog > self._most_unread

    def _start(self, delay: float) -> None:
        self._attempt += 1
        self._spawn(self._live, self._attempt, delay)

    def _live(self, attempt: int, delay: float) -> None:
        """Connect, after a delay and as often as it takes; then read until the end."""
        while True:
            time.sleep(delay)
            if attempt != self._attempt:
                return
            try:
                sock = connect(self.server, self._tls)
            except LinkError as error:
                if attempt == self._attempt:
                    self.reason = str(error)
                    self._events.on_failed(error)
            else:
                break
            delay = self._backoff.next()
        if attempt != self._attempt:
            sock.close()
            return
        connection = Connection(sock, self._make_peer(), self._clock)
        self._connection = connection
        self._spawn(connection.write)
        connection.peer.ping()
        connection.flush()
        ended = connection.run(self._received)
        self._over(connection, LinkError(ended))

    def _received(self, connection: Connection[P], data: bytes) -> None:
        if connection is not self._connection:
            return
        peer = connection.peer
        was_up = peer.answered
        events = peer.receive(data)
        if peer.answered and not was_up:
            self._backoff.reset()
            self.reason = ""
            self._events.on_up(peer)
        if peer.answered:
            self._events.on_events(events)
        if peer.fault is not None:
            self._over(connection, peer.fault)

    def _over(self, connection: Connection[P], error: GearmanError) -> None:
        """Tell the owner that a connection is over, unless we ended it ourselves."""
        if connection is not self._connection:
            return
        was_up = connection.peer.answered
        self._detach(str(error), discard=self._discard)
        if was_up:
            self._events.on_over(error)
        else:
            self._events.on_failed(error)

    def _detach(self, reason: str, *, discard: bool) -> None:
        """Send the connection on its way out, and start the next attempt."""
        connection = self._connection
        if connection is None:
            return
        self._connection = None
        self.reason = reason
        self._lingering.add(connection)
        self._spawn(self._way_out, connection)
        connection.end(discard=discard)
        if self._wanted:
            self._start(self._backoff.next())

    def _way_out(self, connection: Connection[P]) -> None:
        broken = connection.peer.fault is not None
        connection.linger(min(self._linger, FAULT_LINGER) if broken else self._linger)
        self._lingering.discard(connection)

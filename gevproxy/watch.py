"""Asks job servers how many jobs and workers their queues have, now and then.

One question to each server, whatever the number of forwards, on a connection of its own that ends
with the answer. Nothing depends on it: a server that takes connections and does not answer the
text protocol is asked less often, and its figures are left out. One that is away is tried at every
poll: it comes back with all that has waited for it, and limits must hold at once. Knows no forward.
"""

import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

import gevent

from gevproxy.config import Config
from gevproxy.errors import LinkError
from gevproxy.events import Event
from gevproxy.gearman import Server
from gevproxy.gearman.admin import STATUS, Depth, StatusReader
from gevproxy.gearman.connection import Transport, connect, reason_of
from gevproxy.gearman.tls import Tls
from gevproxy.log import EventLog

DEADLINE: Final = 5.0
"""Seconds for a whole answer, once there is a connection."""

GIVE_UP_AFTER: Final = 3
"""Polls without an answer after which the last figures are left out."""

SELDOM: Final = 300.0
"""Seconds between two questions to a server that is there and never answers, unless `poll` is more.
"""

_RECEIVE: Final = 64 * 1024
"""Bytes read at once: a thousand queues take less than a millisecond."""

Wanted = tuple[Tls | None, frozenset[bytes]]
"""How a server is spoken to, and what it is asked for."""

Told = Mapping[bytes, Depth]
Tell = Callable[[Server, Told | None], None]
"""Called with each answer; None: the server has not given one for some time, or is not asked."""


def queues_of(config: Config) -> dict[Server, frozenset[bytes]]:
    """Return the queues to ask for at each server."""
    queues: dict[Server, set[bytes]] = {}
    for forward in config.forwards:
        for end in (forward.source, forward.target):
            queues.setdefault(end.server, set()).add(end.queue.encode())
    return {server: frozenset(names) for server, names in queues.items()}


def ask(sock: Transport, queues: frozenset[bytes]) -> Told:
    """Ask once. GearmanError where there is no answer in time, come in what pieces it may."""
    reader = StatusReader(queues)
    try:
        with gevent.Timeout(DEADLINE, TimeoutError()):
            sock.sendall(STATUS)
            while not reader.done:
                data = sock.recv(_RECEIVE)
                if not data:
                    raise LinkError("closed by peer")
                reader.feed(data)
                time.sleep(0)  # a long answer may not hold everything up
    except OSError as error:
        raise LinkError(reason_of(error)) from error
    return reader.depths


class Watch:
    """Asks the servers of a configuration until it is stopped."""

    def __init__(self, tell: Tell, log: EventLog, rng: Random) -> None:
        self._tell = tell
        self._log = log
        self._rng = rng
        self._poll = 0.0
        self._wanted: dict[Server, Wanted] = {}
        self._asking: dict[Server, gevent.Greenlet] = {}
        self._told: dict[Server, Told] = {}

    def follow(self, config: Config, tls: Mapping[Server, Tls]) -> None:
        """Ask what this configuration wants to know. Does not wait; what is the same goes on."""
        queues = queues_of(config) if config.poll else {}
        wanted = {server: (tls.get(server), names) for server, names in queues.items()}
        for server, before in tuple(self._wanted.items()):
            if config.poll != self._poll or wanted.get(server) != before:
                self._asking.pop(server).kill(block=False)
                del self._wanted[server]
                if server not in wanted:
                    self._forget(server)
        self._poll = config.poll
        for server in wanted.keys() - self._wanted.keys():
            self._wanted[server] = wanted[server]
            self._asking[server] = gevent.spawn(self._ask_forever, server, *wanted[server])

    def stop(self) -> None:
        """Ask no more."""
        for asking in self._asking.values():
            asking.kill(block=False)
        self._asking.clear()
        self._wanted.clear()

    def told(self, server: Server) -> Told | None:
        """Return what a server said last; None if that is too long ago."""
        return self._told.get(server)

    def _ask_forever(self, server: Server, tls: Tls | None, queues: frozenset[bytes]) -> None:
        failures = mute = 0
        gevent.sleep(self._rng.uniform(0.0, min(1.0, self._poll)))  # not all at once
        while True:
            reached = False
            try:
                with connect(server, tls) as sock:
                    reached = True
                    told = ask(sock, queues)
            except Exception as error:  # noqa: BLE001 - GearmanError, or no thread for a name, say
                failures += 1
                mute = mute + 1 if reached else 0
                if failures == GIVE_UP_AFTER:
                    self._log.emit(Event.WATCH_FAILED, f"no depths: {error}", server=str(server))
                    self._forget(server)
            else:
                failures = mute = 0
                self._told[server] = told
                self._tell(server, told)
            gevent.sleep(self._delay(mute) * self._rng.uniform(0.9, 1.0))

    def _delay(self, mute: int) -> float:
        """Return the seconds until the next question: more and more after so many in vain."""
        beyond = max(0, mute - GIVE_UP_AFTER)
        return min(self._poll * 2.0 ** min(beyond, 16), max(SELDOM, self._poll))

    def _forget(self, server: Server) -> None:
        self._told.pop(server, None)
        self._tell(server, None)

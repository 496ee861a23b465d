"""All forwards: start, restart after a crash, drain, stop.

Keeps the counters, which outlive a forward's restart. Knows no signal, no file and no systemd;
what it is told to do it does without asking why.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import gevent

from gevproxy.backoff import Backoff
from gevproxy.config import Config, ForwardConfig
from gevproxy.forward import Forward
from gevproxy.log import Event, EventLog
from gevproxy.status import Counters

LAST_BYTES: Final = 5.0
"""Seconds that a stop waits for the last completions to arrive, after the drain."""

_POLL: Final = 0.05
"""Seconds between looks at what a stop waits for."""


@dataclass(slots=True)
class Changes:
    """What a new configuration changed: keys of forwards."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Supervisor:
    """Runs the forwards of a configuration."""

    def __init__(
        self,
        config: Config,
        log: EventLog,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self._config = config
        self._log = log
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._forwards: dict[str, Forward] = {}
        self._counters: defaultdict[str, Counters] = defaultdict(Counters)
        self._restarts: dict[str, Backoff] = {}
        self._stopping = False

    def start(self) -> None:
        """Start every forward. Does not wait for any peer."""
        for forward in self._config.forwards:
            self._start(forward)

    def apply(self, config: Config) -> Changes:
        """Go over to a new configuration by difference. Does not wait.

        Forwards that did not change keep sockets, window and counters. A changed one drains and
        starts anew with its counters; so does every one where `max_packet` changed.
        """
        changes = Changes()
        same_limits = config.max_packet == self._config.max_packet
        wanted = {forward.key: forward for forward in config.forwards}
        self._config = config
        for key, forward in self._forwards.items():
            new = wanted.get(key)
            if new is not None and same_limits and forward.adopt(new):
                continue
            (changes.changed if new else changes.removed).append(key)
            if not forward.stopping:
                forward.stop(config.drain)
                gevent.spawn(self._succeed, forward)
        for key in wanted.keys() - self._forwards.keys():
            changes.added.append(key)
            self._start(wanted[key])
        return changes

    def _succeed(self, forward: Forward) -> None:
        """When a forward has drained, start what the configuration wants in its place by then."""
        if not forward.stopped.wait(forward.drain_seconds + LAST_BYTES):
            forward.abort()
        key = forward.config.key
        if self._forwards.get(key) is forward:
            del self._forwards[key]
            self._start_wanted(key)

    def _start_wanted(self, key: str) -> None:
        """Start the forward of that name, if there is to be one."""
        for config in self._config.forwards:
            if config.key == key and not self._stopping:
                self._start(config)

    def stop(self) -> None:
        """Drain every forward, wait for the last bytes, close. Blocks; `abort` cuts it short."""
        self._stopping = True
        deadline = self._clock() + self._config.drain + LAST_BYTES
        forwards = list(self._forwards.values())
        for forward in forwards:
            forward.stop(self._config.drain)
        # A source that has closed too has handled every completion: the way out is a barrier.
        while self._clock() < deadline and not all(forward.gone for forward in forwards):
            gevent.sleep(_POLL)
        self.abort()

    def abort(self) -> None:
        """Cut every connection now."""
        self._stopping = True
        for forward in self._forwards.values():
            forward.abort()

    def log_status(self) -> None:
        """Write facts and counters of every forward, then that this was all."""
        for forward in list(self._forwards.values()):
            forward.log_status()
        self._log.emit(Event.DAEMON_STATUS, f"{len(self._forwards)} forwards")

    def _start(self, config: ForwardConfig) -> None:
        forward = Forward(
            config,
            self._counters[config.key],
            self._log,
            max_packet=self._config.max_packet,
            on_crash=self._on_crash,
            clock=self._clock,
            rng=self._rng,
        )
        self._forwards[config.key] = forward
        forward.start()

    def _on_crash(self, forward: Forward, error: Exception) -> None:
        """Start a forward anew after a delay. Called once per greenlet that dies."""
        key = forward.config.key
        if self._forwards.get(key) is not forward or forward.stopped.is_set():
            return
        counters = self._counters[key]
        counters.crashes += 1
        self._log.emit(Event.FORWARD_CRASHED, repr(error), forward=key, exc_info=error)
        forward.abort()
        if not self._stopping:
            gevent.spawn_later(self._restart_delay(key), self._succeed, forward)

    def _restart_delay(self, key: str) -> float:
        if key not in self._restarts:
            self._restarts[key] = Backoff(floor=0.5, step=1.0, ceiling=60.0, rng=self._rng)
        return self._restarts[key].next()

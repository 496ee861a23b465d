"""All forwards: start, restart after a crash, drain, stop.

Keeps the counters, which outlive a forward's restart. Knows no signal, no file and no systemd;
what it is told to do it does without asking why.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Final

import gevent

from gevproxy import __version__, stages
from gevproxy.backoff import Backoff
from gevproxy.config import Config, ForwardConfig
from gevproxy.errors import ConfigError, Problem
from gevproxy.events import Event
from gevproxy.expiry import days_until, to_renew
from gevproxy.forward import Forward, Means
from gevproxy.gearman import Server
from gevproxy.gearman.tls import Tls
from gevproxy.letterbox import Letterbox
from gevproxy.log import EventLog
from gevproxy.stages import CheckReader, Pipeline
from gevproxy.status import Counters, Histogram, ServerStatus, Status
from gevproxy.tls_files import read_tls
from gevproxy.watch import Told, Watch

LAST_BYTES: Final = 5.0
"""Seconds that a stop waits for the last completions to arrive, after the drain."""

STANDS_STILL: Final = 10.0
"""Seconds without a tick from which on a forward's loop counts as standing still."""

HOPELESS: Final = 3
"""Restarts in a row that have not helped, after which the watchdog may have the process."""

_STUCK: Final = "a job does not come out of its data_callback; mend that, then resume"

_POLL: Final = 0.05
"""Seconds between looks at what a stop waits for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration with everything that it names read: keys, callbacks and certificates."""

    config: Config
    pipelines: Mapping[str, Pipeline | None]
    readers: Mapping[str, CheckReader | None]
    tls: Mapping[Server, Tls]

    @property
    def versions(self) -> dict[str, str]:
        """Of each forward with stages, what changes with them."""
        return {key: stages.version for key, stages in self.pipelines.items() if stages}

    def means(self, forward: ForwardConfig) -> Means:
        """Return what one forward needs of this."""
        tls = self.tls.get(forward.source.server), self.tls.get(forward.target.server)
        return Means(self.pipelines[forward.key], self.readers[forward.key], tls)


def make_plan(
    config: Config,
    environ: Mapping[str, str],
    on_slow: Callable[[str, float], None] | None = None,
    place: memoryview | None = None,
    before: Plan | None = None,
) -> Plan:
    """Read all that a configuration names. ConfigError with all problems.

    Stages note in `place` that they run. What has not changed of the TLS of the plan before is
    taken over, and with it the forwards.
    """
    pipelines: dict[str, Pipeline | None] = {}
    readers: dict[str, CheckReader | None] = {}
    problems: list[Problem] = []
    for forward in config.forwards:
        try:
            pipelines[forward.key] = stages.build(
                forward, environ=environ, on_slow=on_slow, place=place
            )
            readers[forward.key] = stages.check_reader(forward, environ=environ)
        except ConfigError as error:
            problems += [replace(p, file=forward.file, line=forward.line) for p in error.problems]
    tls: Mapping[Server, Tls] = {}
    try:
        tls = read_tls(config.servers, before.tls if before else None)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(tuple(problems))
    return Plan(config, pipelines, readers, tls)


def _server_status(server: Server, tls: Tls, limit: float, now: float) -> ServerStatus:
    """Tell how long certificates hold. An authority with a successor beside it may expire."""
    own, peer = days_until(tls.expires, now), days_until(tls.peer_expires, now)
    return ServerStatus(
        address=str(server),
        certificate_days=own,
        ca_days=days_until(tls.ca_expires, now),
        peer_days=peer,
        renew=to_renew(limit, certificate=own, ca=days_until(tls.ca_lasts, now), peer=peer),
    )


@dataclass(slots=True)
class Changes:
    """What a new configuration changed: keys of forwards."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Supervisor:
    """Runs the forwards of a plan."""

    def __init__(
        self,
        plan: Plan,
        log: EventLog,
        letterbox: Letterbox,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self._plan = plan
        self._log = log
        self._letterbox = letterbox
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._forwards: dict[str, Forward] = {}
        self._counters: defaultdict[str, Counters] = defaultdict(Counters)
        self._restarts: dict[str, Backoff] = {}
        self._standing: dict[str, int] = {}  # how often in a row a forward's loop stood still
        self._paused: set[str] = set()
        self._barred: dict[str, str] = {}  # forwards that would only hurt us, with the reason
        self._stopping = False
        self._watch = Watch(self._observe, log, self._rng)
        self._started_at = self._ticked_at = clock()

    def start(self) -> None:
        """Start every forward. Does not wait for any peer."""
        for forward in self._plan.config.forwards:
            self._start(forward)
        self._watch.follow(self._plan.config, self._plan.tls)

    def apply(self, plan: Plan) -> Changes:
        """Go over to a new plan by difference. Does not wait.

        Forwards that did not change keep sockets, window and counters. A changed one drains and
        starts anew with its counters; so does every one where `max_packet` changed, and each whose
        source or target has other certificates: what is under way ends on the old connections.
        """
        changes = Changes()
        config = plan.config
        same_limits = config.max_packet == self._plan.config.max_packet
        wanted = {forward.key: forward for forward in config.forwards}
        self._plan = plan
        self._barred.clear()
        for key, forward in self._forwards.items():
            forward.bar("")
            new = wanted.get(key)
            if new is not None and same_limits and forward.adopt(new, plan.means(new)):
                continue
            (changes.changed if new else changes.removed).append(key)
            if not forward.stopping:
                forward.stop(config.drain)
                gevent.spawn(self._succeed, forward)
        for key in wanted.keys() - self._forwards.keys():
            changes.added.append(key)
            self._start(wanted[key])
        self._watch.follow(config, plan.tls)
        return changes

    def _observe(self, server: Server, told: Told | None) -> None:
        """Tell the forwards what their queues hold; an error in one is its own."""
        for forward in tuple(self._forwards.values()):
            if server in (forward.config.source.server, forward.config.target.server):
                try:
                    forward.observe(server, told)
                except Exception as error:  # noqa: BLE001 - reported, and the forward begins anew
                    self._on_crash(forward, error)

    def _succeed(self, forward: Forward) -> None:
        """When a forward has drained, start what the configuration wants in its place by then."""
        if not forward.stopped.wait(forward.drain_seconds + LAST_BYTES):
            forward.abort()
        key = forward.config.key
        # While we stop it has no successor: its counters are told with all others at the end.
        if self._forwards.get(key) is forward and not self._stopping:
            del self._forwards[key]
            self._start_wanted(key, forward.running_until)

    def _start_wanted(self, key: str, running_until: float) -> None:
        """Start the forward of that name, if there is to be one, in the place of another."""
        for config in self._plan.config.forwards:
            if config.key == key:
                self._start(config, running_until)

    def pause(self, key: str, paused: bool) -> None:
        """Let a forward leave its source, or come back; kept over a reload. KeyError: no such."""
        forward = self._forwards[key]
        (self._paused.add if paused else self._paused.discard)(key)
        forward.pause(paused)
        if not paused:
            self._unbar(key)

    def bar(self, key: str, why: str) -> None:
        """Let a forward take no job until somebody resumes it, or reads the configuration anew."""
        self._barred[key] = why
        if key in self._forwards:
            self._forwards[key].bar(why)

    def _unbar(self, key: str) -> None:
        self._barred.pop(key, None)
        self._forwards[key].bar("")

    def stop(self) -> None:
        """Drain every forward, wait for the last bytes, close. Blocks; `abort` cuts it short."""
        self._stopping = True
        deadline = self._clock() + self._plan.config.drain + LAST_BYTES
        forwards = list(self._forwards.values())
        for forward in forwards:
            forward.stop(self._plan.config.drain)
        # A source that has closed too has handled every completion: the way out is a barrier.
        while self._clock() < deadline and not all(forward.gone for forward in forwards):
            gevent.sleep(_POLL)
        self.abort()

    def abort(self) -> None:
        """Cut every connection now."""
        self._stopping = True
        self._watch.stop()
        for forward in self._forwards.values():
            forward.abort()

    def tick(self, now: float) -> bool:
        """Start anew, alone, each forward whose loop stands still; tell whether that has helped.

        False means that one has stood still again and again: the process is of no use any more.
        Called once a second. A call that comes late says that the whole process stood still, in a
        callback or frozen with its host: no forward could tick then, and none is to blame.
        """
        late = now - self._ticked_at > STANDS_STILL / 2
        self._ticked_at = now
        if late:
            return self._is_of_use
        for key, forward in tuple(self._forwards.items()):
            if forward.stopped.is_set():
                continue
            if now - forward.ticked_at < STANDS_STILL:
                if now - forward.started_at > STANDS_STILL:
                    self._standing.pop(key, None)
            else:
                self._standing[key] = self._standing.get(key, 0) + 1
                if forward.in_stages and self._standing[key] >= HOPELESS:
                    # Its job would come again to a new process as well.
                    self.bar(key, _STUCK)
                    del self._standing[key]
                self._on_crash(forward, RuntimeError(f"{forward.stands_in} stands still"))
        return self._is_of_use

    @property
    def _is_of_use(self) -> bool:
        return all(times < HOPELESS for times in self._standing.values())

    def status(self) -> Status:
        """Describe this moment."""
        limit, now = self._plan.config.status_certificate_days, time.time()
        return Status(
            version=__version__,
            uptime=self._clock() - self._started_at,
            forwards=tuple(forward.status() for forward in self._forwards.values()),
            servers=tuple(
                _server_status(server, tls, limit, now) for server, tls in self._plan.tls.items()
            ),
        )

    def times(self) -> dict[str, Histogram]:
        """Return how long the jobs of each forward took, as copies."""
        return {key: self._counters[key].times.copy() for key in self._forwards}

    def log_status(self) -> None:
        """Write facts and counters of every forward, then that this was all."""
        status = self.status()
        for forward in status.forwards:
            fields = asdict(forward)
            self._log.emit(Event.FORWARD_STATUS, "status", forward=fields.pop("key"), **fields)
        self._log.emit(Event.DAEMON_STATUS, f"{len(status.forwards)} forwards")

    def _start(self, config: ForwardConfig, running_until: float | None = None) -> None:
        forward = Forward(
            config,
            self._plan.means(config),
            self._counters[config.key],
            self._log,
            self._letterbox,
            max_packet=self._plan.config.max_packet,
            on_crash=self._on_crash,
            running_until=running_until,
            clock=self._clock,
            rng=self._rng,
        )
        self._forwards[config.key] = forward
        if config.key in self._paused:
            forward.pause(True)
        if config.key in self._barred:
            forward.bar(self._barred[config.key])
        for server in {config.source.server, config.target.server}:
            forward.observe(server, self._watch.told(server))
        forward.start()

    def _on_crash(self, forward: Forward, error: BaseException) -> None:
        """Start a forward anew after a delay. Called once per greenlet that dies."""
        key = forward.config.key
        if self._forwards.get(key) is not forward or forward.stopped.is_set():
            return
        counters = self._counters[key]
        counters.crashes += 1
        self._log.emit(Event.FORWARD_CRASHED, repr(error), forward=key, exc_info=error)
        forward.abort(f"crashed: {type(error).__name__}")
        if not self._stopping:
            gevent.spawn_later(self._restart_delay(key), self._succeed, forward)

    def _restart_delay(self, key: str) -> float:
        if key not in self._restarts:
            self._restarts[key] = Backoff(floor=0.5, step=1.0, ceiling=60.0, rng=self._rng)
        return self._restarts[key].next()

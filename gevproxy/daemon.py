"""The process: signals, the main loop, reloads, exit codes.

A signal handler only enqueues; the main loop acts. Knows nothing of jobs.
"""

import contextlib
import faulthandler
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import gevent
from gevent.event import AsyncResult
from gevent.queue import Empty, Queue
from sdnotify import SystemdNotifier

from gevproxy import __version__
from gevproxy.config import Config
from gevproxy.control import Answer, Commands, ControlServer
from gevproxy.control_client import ControlError, runtime_folder
from gevproxy.dead_letters import DeadLetters
from gevproxy.errors import ConfigError, Problem
from gevproxy.events import Event
from gevproxy.heart import Heart
from gevproxy.letterbox import Letterbox
from gevproxy.log import EventLog, open_log
from gevproxy.metrics_server import MetricsServer, Sources, process
from gevproxy.render import answer, document, systemd_line, unready
from gevproxy.responder import Responder, search_in_time
from gevproxy.stuck import Stuck
from gevproxy.supervisor import Plan, Supervisor, make_plan

if TYPE_CHECKING:
    from gevproxy.metrics import Reading

EXIT_STOPPED: Final = 0
EXIT_CRASHED: Final = 1
EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: systemd is told not to restart on it."""

TICK: Final = 1.0
"""Seconds between two signs of life for systemd."""

STOP_STEP: Final = 10.0
"""Seconds that each tick of a stop asks systemd to wait beyond it."""

LAST_LETTERS: Final = 5.0
"""Seconds that an end waits for the disk to take the last dead letters."""

RELOAD_DEADLINE: Final = 60.0
"""Seconds that whoever asked for a reload waits for its outcome."""

Order = Literal["stop", "reload", "status", "stopped"]

_SIGNALS: Final[dict[signal.Signals, Order]] = {
    signal.SIGTERM: "stop",
    signal.SIGINT: "stop",
    signal.SIGHUP: "reload",
    signal.SIGUSR1: "status",
}


def run(load: Callable[[], Config]) -> int:
    """Run until stopped; return the exit code. `load` reads the configuration, or ConfigError."""
    # systemd's watchdog ends us with SIGABRT: the stacks then tell in what we stood still.
    faulthandler.enable()
    hub = gevent.get_hub()
    # A dying greenlet would print its traceback to stderr, between the JSON lines.
    hub.exception_stream = None
    log = EventLog(open_log())
    hub.print_exception = partial(report_greenlet, log)
    try:
        return Daemon(load, log).run()
    except ConfigError as error:
        log_problems(log, error)
        return EXIT_CONFIG
    except Exception as error:  # noqa: BLE001 - the last place where it can be reported
        log.emit(Event.DAEMON_CRASHED, repr(error), exc_info=error)
        return EXIT_CRASHED


def report_greenlet(
    log: EventLog, context: object, _type: object, error: BaseException, _traceback: object
) -> None:
    """Write what killed a greenlet that nobody else looks after (gevent's Hub.print_exception)."""
    log.emit(Event.GREENLET_CRASHED, f"{context!r}: {error!r}", exc_info=error)


def set_up_log(config: Config) -> None:
    """Write the log where the configuration says; ConfigError where that cannot be opened."""
    try:
        open_log(config.log_file, debug=config.debug)
    except OSError as error:
        text = f"cannot be opened: {error.strerror}; name a file that this user may write"
        raise ConfigError((Problem(config.log_file, 0, "/log_file", text),)) from error


def dead_letters(config: Config) -> DeadLetters:
    """Return where dead letters go; ConfigError where neither config nor environment says so."""
    if config.dead_letters is None:
        text = "name a folder for dead letters: neither $STATE_DIRECTORY nor $HOME is set"
        raise ConfigError((Problem("configuration", 0, "/dead_letters", text),))
    return DeadLetters(config.dead_letters)


def log_problems(log: EventLog, error: ConfigError) -> None:
    """Write every problem as a record: a service's log is what its operator reads."""
    for problem in error.problems:
        log.emit(
            Event.CONFIG_PROBLEM,
            problem.message,
            file=problem.file,
            line=problem.line,
            pointer=problem.pointer,
        )


class Daemon:
    """One run of the program. ConfigError where the configuration cannot be used."""

    def __init__(self, load: Callable[[], Config], log: EventLog) -> None:
        self._load = load
        self._log = log
        self._heart = Heart(log)
        plan, letters = self._read(None)
        self._set_up_log(plan.config)
        self._plan = plan
        self._letterbox = Letterbox(letters)
        self._supervisor = Supervisor(plan, log, self._letterbox)
        self._stuck = self._watch_for(letters)
        for key, why in self._stuck.read(plan.versions).items():
            self._supervisor.bar(key, why)
        self._responder: Responder | None = None
        commands = Commands(
            status=self._describe,
            reload=self._reload_for_control,
            pause=partial(self._pause, True),
            resume=partial(self._pause, False),
        )
        self._control = ControlServer(runtime_folder(os.environ), commands, log)
        sources = Sources(reading=self._figures, unhealthy=self._unhealthy, unready=self._unready)
        self._metrics = MetricsServer(sources, log)
        self._started_at = time.time()
        self._took = (True, self._started_at)  # whether the last reload went well; since when
        self._alive = True
        self._orders: Queue[Order | AsyncResult] = Queue()
        self._stopping = False
        self._systemd = SystemdNotifier()
        self._tick_at = 0.0

    def _read(self, before: Plan | None) -> tuple[Plan, DeadLetters]:
        """Read the configuration and all that it names, changing nothing."""
        config = self._load()
        plan = make_plan(
            config, os.environ, self._on_slow_callback, self._heart.place, before=before
        )
        return plan, dead_letters(config)

    def _set_up_log(self, config: Config) -> None:
        set_up_log(config)
        self._heart.log_to(config.log_file)

    def _watch_for(self, letters: DeadLetters) -> Stuck:
        """Let what we stand still in be written down beside the dead letters."""
        stuck = Stuck(letters.folder)
        self._heart.mark_in(stuck.path)
        return stuck

    def _forget_stuck(self) -> None:
        """Let every forward try again: somebody was here."""
        self._stuck.forget({forward.key for forward in self._plan.config.forwards})

    def _on_slow_callback(self, name: str, seconds: float) -> None:
        self._log.sparse(Event.CALLBACK_SLOW, f"{name} held everything up", seconds=seconds)

    def run(self) -> int:
        """Start everything, then take orders until the stop is done."""
        for number, order in _SIGNALS.items():
            gevent.signal_handler(number, self._orders.put_nowait, order)
        self._metrics.use(self._plan.config.metrics)
        # Before the first job can come: a loop that stands still in its first second is named too.
        self._heart.beat(time.monotonic())
        self._supervisor.start()
        self._serve_status_queue()
        self._control.start()
        self._log.emit(Event.DAEMON_STARTED, "started", version=__version__)
        # Ready when every forward has been started, not when targets are up: a relay must boot
        # while the other site is down.
        self._tell_systemd("READY=1")
        while not self._obey(self._next_order()):
            pass
        self._control.stop()
        self._metrics.stop()
        if self._responder is not None:
            self._responder.abort()
        self._supervisor.abort()
        self._letterbox.close(LAST_LETTERS)
        self._heart.stop()
        self._forget_stuck()
        self._supervisor.log_status()
        self._log.emit(Event.DAEMON_STOPPED, "stopped")
        return EXIT_STOPPED

    def _next_order(self) -> Order | AsyncResult:
        """Wait for an order; tick meanwhile."""
        while True:
            now = time.monotonic()
            if now >= self._tick_at:
                self._tick_at = now + TICK
                self._tick(now)
            with contextlib.suppress(Empty):
                return self._orders.get(timeout=max(0.0, self._tick_at - now))

    def _tick(self, now: float) -> None:
        """Say that we are alive, where the forwards are, and how they do."""
        self._heart.beat(now)
        self._log.tick(now)
        self._alive = self._supervisor.tick(now)
        if self._alive:
            self._tell_systemd("WATCHDOG=1")
        self._tell_systemd(f"STATUS={systemd_line(self._supervisor.status())}")
        if self._stopping:
            self._tell_systemd(f"EXTEND_TIMEOUT_USEC={int(STOP_STEP * 1_000_000)}")

    def _tell_systemd(self, *lines: str) -> None:
        """Send a message of sd_notify(3); without systemd nobody listens."""
        self._systemd.notify("\n".join(lines))

    def _obey(self, order: Order | AsyncResult) -> bool:
        """Carry out an order; return whether the end has come."""
        if isinstance(order, AsyncResult):  # a reload whose outcome somebody waits for
            order.set({"problems": ["gevproxy is stopping"]} if self._stopping else self._reload())
        elif order == "status":
            self._supervisor.log_status()
        elif order == "reload":
            if not self._stopping:
                self._reload()
        elif order == "stop" and not self._stopping:
            self._stopping = True
            self._log.emit(Event.DAEMON_STOPPING, "stopping")
            self._tell_systemd("STOPPING=1")
            gevent.spawn(self._stop)
        else:  # stopped, or asked to stop a second time
            return True
        return False

    def _reload(self) -> Answer:
        """Go over to the configuration as it is now, or say why not and change nothing.

        Returns the keys of what changed, or all problems, as the control socket tells them.
        """
        self._tell_systemd("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            return self._try_reload()
        finally:
            self._tell_systemd("READY=1")

    def _try_reload(self) -> Answer:
        self._heart.note("reload")
        try:
            plan, letters = self._read(self._plan)
            self._metrics.use(plan.config.metrics)
            try:
                self._set_up_log(plan.config)
            except ConfigError:
                self._metrics.use(self._plan.config.metrics)
                raise
        except ConfigError as error:
            self._took = (False, self._took[1])
            log_problems(self._log, error)
            self._log.emit(Event.RELOAD_REFUSED, "the configuration is as it was before")
            return {"problems": [str(problem) for problem in error.problems]}
        self._forget_stuck()
        self._plan = plan
        self._took = (True, time.time())
        self._letterbox.use(letters)
        self._stuck = self._watch_for(letters)
        changes = asdict(self._supervisor.apply(plan))
        self._serve_status_queue()
        self._log.emit(Event.RELOADED, "reloaded", **changes)
        return changes

    # What the control socket and the status queue ask for.

    def _describe(self) -> Answer:
        return document(self._supervisor.status(), self._plan.config.status_critical_after)

    def _reload_for_control(self) -> Answer:
        """Let the main loop reload, and wait for the outcome."""
        outcome = AsyncResult()
        self._orders.put_nowait(outcome)
        if not outcome.wait(RELOAD_DEADLINE):
            raise ControlError(f"no outcome within {RELOAD_DEADLINE:g} s; the log will have it")
        told: Answer = outcome.get()
        return told

    def _pause(self, paused: bool, key: str) -> Answer:
        try:
            self._supervisor.pause(key, paused)
        except KeyError as error:
            text = f"there is no forward {key}; `gevproxy status` shows all"
            raise ControlError(text) from error
        if not paused:
            self._stuck.forget((key,))
        return {}

    def _figures(self, requests: Mapping[int, int]) -> "Reading":
        """Copy all that metrics tell, of one moment."""
        from gevproxy.metrics import Reading  # noqa: PLC0415 - its package is there with the option

        return Reading(
            status=self._supervisor.status(),
            times=self._supervisor.times(),
            process=process(self._started_at),
            reload=self._took,
            requests=dict(requests),
        )

    def _unhealthy(self) -> str:
        return "" if self._alive else "a forward stands still and starting it anew has not helped"

    def _unready(self) -> str:
        return "stopping" if self._stopping else unready(self._supervisor.status())

    def _answer_check(self, request: bytes) -> bytes:
        after = self._plan.config.status_critical_after
        return answer(self._supervisor.status(), request, after, search_in_time)

    def _serve_status_queue(self) -> None:
        """Answer on the queue that the configuration names, and on no other."""
        wanted, serving = self._plan.config.status_queue, self._responder
        tls = self._plan.tls.get(wanted.server) if wanted is not None else None
        if serving is not None and (serving.address, serving.tls) == (wanted, tls):
            return
        if serving is not None:
            serving.stop()
            self._responder = None
        if wanted is not None:
            self._responder = Responder(wanted, tls, self._answer_check, self._log)
            self._responder.start()

    def _stop(self) -> None:
        try:
            self._supervisor.stop()
            if self._responder is not None:
                self._responder.stop()
        finally:
            self._orders.put_nowait("stopped")

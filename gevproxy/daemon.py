"""The process: signals, the main loop, reloads, exit codes.

A signal handler only enqueues; the main loop acts. Knows nothing of jobs.
"""

import signal
from collections.abc import Callable
from dataclasses import asdict
from typing import Final, Literal

import gevent
from gevent.queue import Queue

from gevproxy import __version__
from gevproxy.config import Config
from gevproxy.errors import ConfigError, Problem
from gevproxy.log import Event, EventLog, open_log
from gevproxy.supervisor import Supervisor

EXIT_STOPPED: Final = 0
EXIT_CRASHED: Final = 1
EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: systemd is told not to restart on it."""

Order = Literal["stop", "reload", "status", "stopped"]

_SIGNALS: Final[dict[signal.Signals, Order]] = {
    signal.SIGTERM: "stop",
    signal.SIGINT: "stop",
    signal.SIGHUP: "reload",
    signal.SIGUSR1: "status",
}


def run(load: Callable[[], Config]) -> int:
    """Run until stopped; return the exit code. `load` reads the configuration, or ConfigError."""
    # A dying greenlet would print its traceback to stderr, between the JSON lines.
    gevent.get_hub().exception_stream = None
    log = EventLog(open_log())
    try:
        config = load()
        set_up_log(config)
    except ConfigError as error:
        log_problems(log, error)
        return EXIT_CONFIG
    try:
        return Daemon(config, load, log).run()
    except Exception as error:  # noqa: BLE001 - the last place where it can be reported
        log.emit(Event.DAEMON_CRASHED, repr(error), exc_info=error)
        return EXIT_CRASHED


def set_up_log(config: Config) -> None:
    """Write the log where the configuration says; ConfigError where that cannot be opened."""
    try:
        open_log(config.log_file, debug=config.debug)
    except OSError as error:
        text = f"cannot be opened: {error.strerror}; name a file that this user may write"
        raise ConfigError((Problem(config.log_file, 0, "/log_file", text),)) from error


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
    """One run of the program."""

    def __init__(self, config: Config, load: Callable[[], Config], log: EventLog) -> None:
        self._load = load
        self._log = log
        self._supervisor = Supervisor(config, log)
        self._orders: Queue[Order] = Queue()
        self._stopping = False

    def run(self) -> int:
        """Start everything, then take orders until the stop is done."""
        for number, order in _SIGNALS.items():
            gevent.signal_handler(number, self._orders.put_nowait, order)
        self._supervisor.start()
        self._log.emit(Event.DAEMON_STARTED, "started", version=__version__)
        while not self._obey(self._orders.get()):
            pass
        self._supervisor.abort()
        self._supervisor.log_status()
        self._log.emit(Event.DAEMON_STOPPED, "stopped")
        return EXIT_STOPPED

    def _obey(self, order: Order) -> bool:
        """Carry out an order; return whether the end has come."""
        if order == "status":
            self._supervisor.log_status()
        elif order == "reload":
            if not self._stopping:
                self._reload()
        elif order == "stop" and not self._stopping:
            self._stopping = True
            self._log.emit(Event.DAEMON_STOPPING, "stopping")
            gevent.spawn(self._stop)
        else:  # stopped, or asked to stop a second time
            return True
        return False

    def _reload(self) -> None:
        """Go over to the configuration as it is now, or say why not and change nothing."""
        try:
            config = self._load()
            set_up_log(config)
        except ConfigError as error:
            log_problems(self._log, error)
            self._log.emit(Event.RELOAD_REFUSED, "the configuration is as it was before")
            return
        changes = self._supervisor.apply(config)
        self._log.emit(Event.RELOADED, "reloaded", **asdict(changes))

    def _stop(self) -> None:
        try:
            self._supervisor.stop()
        finally:
            self._orders.put_nowait("stopped")

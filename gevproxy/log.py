"""The log: one JSON object a line, a stable event id in each.

Every event that the program knows is declared here, with its level, what it means and what an
operator does about it. Keys and payloads never come here. Nothing here knows gevent or a forward.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from logging.handlers import WatchedFileHandler
from typing import Any, Final, TextIO

from pythonjsonlogger.json import JsonFormatter

_STREAMS: Final[dict[str, Callable[[], TextIO]]] = {
    "stderr": lambda: sys.stderr,
    "stdout": lambda: sys.stdout,
}

SUM_UP_AFTER: Final = 60.0
"""Seconds in which repeats of one record are counted instead of written."""


FLAPS: Final = 20
"""Times a minute that coming and going is written; a peer that flaps faster is summed up."""

MOST_KINDS: Final = 100
"""Different records that are told apart while they repeat: texts of peers and stages vary."""

_OTHERS: Final = "more of the same event, with too many texts to tell apart"


class Event(Enum):
    """Every event: id, level, what it means, what to do."""

    DAEMON_STARTED = "daemon_started", logging.INFO, "All forwards have been started.", "Nothing."
    DAEMON_STOPPING = (
        "daemon_stopping",
        logging.INFO,
        "A stop was asked for; jobs under way are being confirmed.",
        "Nothing; a second signal stops at once.",
    )
    DAEMON_STOPPED = "daemon_stopped", logging.INFO, "The daemon ends.", "Nothing."
    DAEMON_STATUS = (
        "daemon_status",
        logging.INFO,
        "The answer to SIGUSR1, after one forward_status for each forward.",
        "Nothing.",
    )
    DAEMON_CRASHED = (
        "daemon_crashed",
        logging.CRITICAL,
        "The main loop met an error that nobody expected; the daemon ends with exit code 1.",
        "Report the traceback. Nothing is lost: jobs that were held are at the source again.",
    )
    CONFIG_PROBLEM = (
        "config_problem",
        logging.ERROR,
        "The configuration cannot be used. One record for each problem.",
        "Mend the place that is named; `gevproxy check` shows all problems for a person.",
    )
    RELOADED = (
        "reloaded",
        logging.INFO,
        "A new configuration is in force; the fields name the forwards that changed.",
        "Nothing.",
    )
    RELOAD_REFUSED = (
        "reload_refused",
        logging.ERROR,
        "The new configuration cannot be used; everything runs on as before.",
        "Mend what the config_problem records before this one name, and reload again.",
    )
    FORWARD_STATE = (
        "forward_state",
        logging.WARNING,
        "A forward runs, or the reasons why it does not have changed.",
        "Read the reasons.",
    )
    FORWARD_STATUS = (
        "forward_status",
        logging.INFO,
        "Facts and counters of one forward, on SIGUSR1 and when it has stopped.",
        "Nothing.",
    )
    FORWARD_BLOCKED = (
        "forward_blocked",
        logging.ERROR,
        "A job could not pass, and the forward leaves its source so that no other is harmed.",
        "Read the reason; mend the key, the setting or the target. It tries some jobs every 5 s.",
    )
    FORWARD_UNBLOCKED = (
        "forward_unblocked",
        logging.INFO,
        "A job has passed again, or dead letters can be written, and the forward goes on.",
        "Nothing.",
    )
    FORWARD_CRASHED = (
        "forward_crashed",
        logging.ERROR,
        "A forward met an error that nobody expected, and is started anew.",
        "Report the traceback. What it held is at the source again.",
    )
    GREENLET_CRASHED = (
        "greenlet_crashed",
        logging.ERROR,
        "A part of the daemon that belongs to no forward met an error that nobody expected.",
        "Report the traceback.",
    )
    ACCOUNTING = (
        "accounting",
        logging.ERROR,
        "A forward's counters do not add up: received is not what became of it.",
        "Report it with the forward_status record of this forward.",
    )
    LOOP_STALLED = (
        "loop_stalled",
        logging.ERROR,
        "The loop stands still for 5 s, and every forward with it; at level info: it goes on.",
        "Mend the callback or pattern that is named. systemd ends the process after WatchdogSec.",
    )
    WATCHER_ABSENT = (
        "watcher_absent",
        logging.WARNING,
        "The process that notices a loop standing still has ended, or cannot be started.",
        "If it repeats: read the reason. It is tried again every 10 s; forwards do not need it.",
    )
    SOURCE_UP = "source_up", logging.INFO, "The source has answered its first ping.", "Nothing."
    SOURCE_AWAY = (
        "source_away",
        logging.WARNING,
        "No connection to the source could be made, or it did not answer.",
        "See whether gearmand runs there and the firewall lets us through.",
    )
    SOURCE_LOST = (
        "source_lost",
        logging.WARNING,
        "The connection to the source is over; what was held is at its queue again.",
        "If it repeats: look at gearmand there, and at the network between.",
    )
    SOURCE_LEFT = (
        "source_left",
        logging.INFO,
        "The forward may not take jobs and has closed its connection to the source.",
        "See the forward_state record for the reason.",
    )
    SOURCE_ERROR = (
        "source_error",
        logging.WARNING,
        "The source answered with an ERROR packet.",
        "JOB_NOT_FOUND after a restart of gearmand is harmless; look at others.",
    )
    TARGET_UP = "target_up", logging.INFO, "The target has answered its first ping.", "Nothing."
    TARGET_AWAY = (
        "target_away",
        logging.WARNING,
        "No connection to the target could be made, or it did not answer.",
        "See whether gearmand runs there and the firewall lets us through.",
    )
    TARGET_LOST = (
        "target_lost",
        logging.WARNING,
        "The connection to the target is over; what it had not confirmed is sent again.",
        "If it repeats: look at gearmand there, and at the network between.",
    )
    TARGET_FULL = (
        "target_full",
        logging.WARNING,
        "The target's queue has reached its limit (maxqueue); jobs wait at the source.",
        "See whether workers take jobs from the target's queue.",
    )
    JOB_PASSED = (
        "job_passed",
        logging.DEBUG,
        "A job was confirmed by the target, or on a sync forward answered. Only with `debug`.",
        "Nothing.",
    )
    DEAD_LETTER = (
        "dead_letter",
        logging.WARNING,
        "A stage or the target refused a job; it is in the dead letters and ended at the source.",
        "Read the reason and mend it, then `gevproxy dead-letters replay`.",
    )
    LATE_CHECK = (
        "late_check",
        logging.WARNING,
        "A check was older than `max_age` and was not sent; the message says what became of it.",
        "After an outage: nothing. Else see what keeps checks from being sent, and the clocks.",
    )
    AGE_UNKNOWN = (
        "age_unknown",
        logging.WARNING,
        "A forward with `max_age` cannot read a job, and passes it on whatever its age.",
        "Give the forward `decrypt`, or take `max_age` away.",
    )
    WATCH_FAILED = (
        "watch_failed",
        logging.INFO,
        "A server does not tell the depths of its queues, which are left out of the status.",
        "Nothing, if it is away or cannot (no text protocol); forwards do not need it.",
    )
    CALLBACK_SLOW = (
        "callback_slow",
        logging.WARNING,
        "A data_callback took over 100 ms, in which no forward could do anything.",
        "Make it faster: a callback may not wait for anything.",
    )
    JOB_REFUSED = (
        "job_refused",
        logging.WARNING,
        "A job of a sync forward was refused by the target; its client got WORK_FAIL.",
        "Read the reason.",
    )
    JOB_TIMEOUT = (
        "job_timeout",
        logging.WARNING,
        "A sync job had no answer within `timeout`; its client got WORK_FAIL.",
        "See whether workers take jobs from the target's queue.",
    )
    WAKEUP_LOST = (
        "wakeup_lost",
        logging.INFO,
        "A job waited at the source although we slept and were not woken; the slow grab found it.",
        "If it repeats: raise --worker-wakeup of the source's gearmand.",
    )

    STATUS_QUEUE_UP = (
        "status_queue_up",
        logging.INFO,
        "The gearmand of the status queue has answered its first ping; checks are answered.",
        "Nothing.",
    )
    STATUS_QUEUE_AWAY = (
        "status_queue_away",
        logging.WARNING,
        "No connection to the gearmand of the status queue could be made, or it did not answer.",
        "See whether gearmand runs there. Forwards do not need it; `gevproxy status` answers.",
    )
    STATUS_QUEUE_LOST = (
        "status_queue_lost",
        logging.WARNING,
        "The connection to the gearmand of the status queue is over.",
        "If it repeats: look at gearmand there, and at the network between.",
    )
    STATUS_QUEUE_ERROR = (
        "status_queue_error",
        logging.WARNING,
        "The gearmand of the status queue answered with an ERROR packet.",
        "JOB_NOT_FOUND is a check that was over before its answer; look at others.",
    )
    STATUS_QUEUE_FAILED = (
        "status_queue_failed",
        logging.ERROR,
        "A check met an error that nobody expected; it was answered with UNKNOWN.",
        "Report the traceback. No forward is touched.",
    )
    STATUS_QUEUE_CRASHED = (
        "status_queue_crashed",
        logging.ERROR,
        "Answering checks met an error that nobody expected, and is started anew.",
        "Report the traceback. No forward is touched.",
    )
    CONTROL_ABSENT = (
        "control_absent",
        logging.WARNING,
        "There is no control socket, so `gevproxy status`, `reload`, `pause` and `resume` fail.",
        "Read the reason. Forwards, signals and the status queue do not need it.",
    )
    CONTROL_COMMAND = (
        "control_command",
        logging.INFO,
        "A command came through the control socket, from the process and user in the fields.",
        "Nothing.",
    )
    CONTROL_FAILED = (
        "control_failed",
        logging.ERROR,
        "A command through the control socket met an error that nobody expected.",
        "Report the traceback. No forward is touched.",
    )

    METRICS_UP = (
        "metrics_up",
        logging.INFO,
        "Metrics are served at the address in the message.",
        "Nothing.",
    )
    METRICS_ABSENT = (
        "metrics_absent",
        logging.WARNING,
        "Connections for metrics cannot be accepted; it is tried again every second.",
        "Read the reason. Forwards do not need it.",
    )
    METRICS_REFUSED = (
        "metrics_refused",
        logging.WARNING,
        "A request for metrics was none of HTTP, too large or too slow, or took no answer.",
        "If it repeats: see who asks at that address; only Prometheus and probes should.",
    )
    METRICS_FAILED = (
        "metrics_failed",
        logging.ERROR,
        "A request for metrics met an error that nobody expected; it was answered with 500.",
        "Report the traceback. No forward is touched.",
    )

    def __init__(self, id_: str, level: int, meaning: str, remedy: str) -> None:
        self.id = id_
        self.level = level
        self.meaning = meaning
        self.remedy = remedy


def readable(value: object) -> object:
    """Turn bytes into text that can be read and searched for; leave anything else as it is."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


class _Formatter(JsonFormatter):
    """RFC 3339 in UTC with milliseconds; our own fields; a traceback under "traceback"."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        if "exc_info" in log_data:
            log_data["traceback"] = log_data.pop("exc_info")
        return log_data

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        when = datetime.fromtimestamp(record.created, UTC)
        log_data["time"] = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        log_data["level"] = record.levelname.lower()
        log_data["event"] = getattr(record, "event", "foreign")
        log_data["message"] = record.getMessage()
        log_data.update(getattr(record, "fields", {}))
        if record.exc_info:
            message_dict.setdefault("exc_info", self.formatException(record.exc_info))
        log_data.update(message_dict)


class _FileHandler(WatchedFileHandler):
    """Writes to a file; what it does not take goes to stderr, as a record and nothing else.

    A file that was moved away cannot be opened anew where descriptors or rights are missing.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's
        with contextlib.suppress(Exception):
            sys.stderr.write(self.format(record) + "\n")


def open_log(destination: str = "stderr", *, debug: bool = False) -> logging.Logger:
    """Return the program's logger, writing to "stderr", "stdout" or a file of that path.

    A file is opened anew when it has been moved away (logrotate's create) and appended to, so that
    a truncated one goes on at its new end (copytruncate). What the logger wrote to before is left.
    OSError where the file cannot be opened, with everything as it was.
    """
    handler: logging.Handler
    if destination in _STREAMS:
        handler = logging.StreamHandler(_STREAMS[destination]())
    else:
        handler = _FileHandler(destination, encoding="utf-8")
    handler.setFormatter(_Formatter())
    logger = logging.getLogger("gevproxy")
    old = logger.handlers[:]
    logger.addHandler(handler)
    for each in old:
        logger.removeHandler(each)
        each.close()
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    logger.propagate = False
    return logger


class EventLog:
    """Writes events with a context (forward, source, target) in each.

    `emit` writes. `sparse` writes the first (or first few) of equal records at once and sums up
    those that follow within a minute in one record with a field `repeats`; `tick` writes what is
    due.
    """

    def __init__(
        self,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
        **context: object,
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._context = context
        self._repeats: dict[tuple[Event, str], _Repeats] = {}

    @property
    def debugging(self) -> bool:
        """Whether debug records are written: asked before one is made on the hot path."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def bind(self, **context: object) -> "EventLog":
        """Return a log with more context."""
        return EventLog(self._logger, self._clock, **{**self._context, **context})

    def emit(
        self,
        event: Event,
        message: str,
        *,
        level: int | None = None,
        exc_info: BaseException | None = None,
        **fields: object,
    ) -> None:
        """Write one record; `level` overrides the event's own."""
        self._write(event, message, fields, event.level if level is None else level, exc_info)

    def _write(
        self,
        event: Event,
        message: str,
        fields: dict[str, object],
        level: int,
        exc_info: BaseException | None = None,
    ) -> None:
        merged = {
            key: readable(value)
            for key, value in {**self._context, **fields}.items()
            if value is not None
        }
        extra = {"event": event.id, "fields": merged}
        self._logger.log(level, "%s", message, exc_info=exc_info, extra=extra)

    def sparse(self, event: Event, message: str, *, first: int = 1, **fields: object) -> None:
        """Write a record that may come often: the `first` few, then a sum a minute."""
        repeats = self._repeats.get((event, message))
        if repeats is None and len(self._repeats) >= MOST_KINDS:
            message = _OTHERS
            repeats = self._repeats.get((event, message))
        if repeats is None:
            repeats = _Repeats(self._clock() + SUM_UP_AFTER)
            self._repeats[event, message] = repeats
        if repeats.written < first:
            repeats.written += 1
            self._write(event, message, fields, event.level)
        else:
            repeats.count += 1
            repeats.fields = fields

    def tick(self, now: float) -> None:
        """Write the sums that are due; forget what has not come again."""
        for key, repeats in [item for item in self._repeats.items() if now >= item[1].due]:
            if repeats.count:
                event, message = key
                fields = {**repeats.fields, "repeats": repeats.count}
                self._write(event, message, fields, event.level)
                repeats.count = 0
                repeats.due = now + SUM_UP_AFTER
            else:
                del self._repeats[key]


class _Repeats:
    """How often a record has come since it was last written."""

    __slots__ = ("count", "due", "fields", "written")

    def __init__(self, due: float) -> None:
        self.due = due
        self.written = 0
        self.count = 0
        self.fields: dict[str, object] = {}

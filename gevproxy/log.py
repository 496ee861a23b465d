"""The log: one JSON object a line, a stable event id in each.

What may be written are the events of `events.py`. Keys and payloads never come here. Nothing here
knows gevent or a forward.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from typing import Any, Final, TextIO

from pythonjsonlogger.json import JsonFormatter

from gevproxy.events import Event

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

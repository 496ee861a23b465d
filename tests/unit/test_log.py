"""Records: their form, and how those that repeat are summed up."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gevproxy.events import Event
from gevproxy.log import MOST_KINDS, SUM_UP_AFTER, EventLog, open_log


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Give where the log goes, and close it in the end."""
    yield tmp_path / "log"
    open_log()


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_form_of_a_record(file: Path) -> None:
    """RFC 3339 in UTC with milliseconds; bytes as text that can be read; nothing of None."""
    log = EventLog(open_log(str(file)), forward="f").bind(source="s")
    log.emit(Event.DEAD_LETTER, "a message", handle=b"H:a:1", unique=b"\xff", target=None)
    (record,) = records(file)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record == {
        "level": "warning",
        "event": "dead_letter",
        "message": "a message",
        "forward": "f",
        "source": "s",
        "handle": "H:a:1",
        "unique": "\\xff",
    }


def test_an_error_is_one_record_with_its_traceback(file: Path) -> None:
    log = EventLog(open_log(str(file)))
    error = ValueError("x")
    log.emit(Event.DAEMON_CRASHED, "crashed", exc_info=error)
    (record,) = records(file)
    assert record["traceback"].endswith("ValueError: x")


def test_repeats_are_summed_up_once_a_minute(file: Path) -> None:
    clock = Clock()
    log = EventLog(open_log(str(file)), clock)
    for _ in range(5):
        log.sparse(Event.TARGET_AWAY, "refused", handle="first")
    log.sparse(Event.TARGET_AWAY, "silent")
    clock.now = SUM_UP_AFTER - 1
    log.tick(clock.now)
    assert [record["message"] for record in records(file)] == ["refused", "silent"]
    clock.now = SUM_UP_AFTER
    log.tick(clock.now)
    assert [record.get("repeats") for record in records(file)] == [None, None, 4]
    clock.now = 2 * SUM_UP_AFTER
    log.tick(clock.now)
    log.sparse(Event.TARGET_AWAY, "refused")
    assert len(records(file)) == 4


def test_the_first_few_may_be_written(file: Path) -> None:
    log = EventLog(open_log(str(file)), Clock())
    for _ in range(10):
        log.sparse(Event.SOURCE_UP, "answered", first=3)
    assert len(records(file)) == 3


def test_texts_without_end_do_not_fill_memory_or_log(file: Path) -> None:
    """A peer may word each of its errors differently."""
    clock = Clock()
    log = EventLog(open_log(str(file)), clock)
    for n in range(10_000):
        log.sparse(Event.SOURCE_ERROR, f"text {n}")
    assert len(records(file)) == MOST_KINDS + 1
    clock.now = SUM_UP_AFTER
    log.tick(clock.now)
    assert records(file)[-1]["repeats"] == 10_000 - MOST_KINDS - 1


def test_debug_is_asked_for_before_a_record_is_made(file: Path) -> None:
    assert not EventLog(open_log(str(file))).debugging
    log = EventLog(open_log(str(file), debug=True))
    assert log.debugging
    log.emit(Event.JOB_PASSED, "passed")
    assert records(file)[0]["level"] == "debug"

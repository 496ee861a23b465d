"""A moment of the relay in words: the monitoring line, a table for a person, JSON, one sentence.

The monitoring line is the Perl proxy's, which dashboards and graphs parse: its words, names, order
and units are an interface, and what is new comes after them. The metrics are described in the
README, section "Monitoring with check_gearman".
Pure: a Status in, text out. Nothing here knows a clock, a socket or who asks.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from enum import IntEnum
from typing import Final

from gevproxy import expiry
from gevproxy.depths import HELD_BACK
from gevproxy.perfdata_filter import FilterError, Search, filtered, search
from gevproxy.status import ForwardStatus, ServerStatus, Status

JSON_REQUEST: Final = "format=json"
"""What a request to the status queue holds to be answered with `document` instead of the line."""

PAUSED: Final = "paused"
"""The reason of a forward that an operator has paused."""

_AWAY: Final = ("source away", "target away")
"""How a reason begins that means: this server has failed."""

_ERRORS: Final = ("refused", "timeouts", "source_losses", "target_losses", "crashes")
"""The counters that make up total_errors."""

_NAMED: Final = 5
"""Forwards that one line names; NOTIFY_SOCKET takes one datagram, and people one line."""

# A control character would end the line for check_gearman (NUL), Naemon (a line feed) or the
# message (the bar, behind which the metrics begin).
_PLAIN: Final = {**dict.fromkeys([*range(32), 127], " "), ord("|"): "/"}


class Level(IntEnum):
    """How well the relay is; the numbers are the exit codes of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


def level(status: Status, critical_after: float) -> Level:
    """Return WARNING where a forward does not run, CRITICAL where it is worse than that.

    A certificate that is to be renewed is a WARNING too: nothing is wrong yet. Worse is a forward
    that has not run for `critical_after` seconds, or a job unaccounted for. A forward that is
    paused, or held back by its target's depth alone, is never more than a WARNING: somebody wanted
    it so.
    """
    late = (
        forward.not_running >= critical_after
        for forward in _stopped(status)
        if not _is_wanted_so(forward)
    )
    if any(late) or any(forward.unaccounted for forward in status.forwards):
        return Level.CRITICAL
    renew = any(server.renew for server in status.servers)
    return Level.WARNING if renew or _stopped(status) else Level.OK


# The monitoring line.


def perl_line(
    status: Status, request: bytes, critical_after: float, search: Search = search
) -> bytes:
    """Return the answer to a check: "0:OK - proxy version v1.0 running.| 'backlog'=0;;; ...".

    `request` may hold "perfdatafilter=REGEX", a regular expression that is searched in each name;
    one that cannot be used makes the answer UNKNOWN, with every reason in it all the same.
    """
    values = metrics(status)
    state = level(status, critical_after)
    sentences = _sentences(status)
    try:
        names = filtered(values, request, search)
    except FilterError as error:
        state, names = Level.UNKNOWN, []
        sentences.insert(0, f"perfdatafilter {error}.")
    text = "".join(f" {_plain(sentence)}" for sentence in sentences)
    perfdata = "".join(f" {_label(name)}={values[name]};;;" for name in names)
    line = f"{state:d}:{state.name} - proxy version v{status.version} running.{text}|{perfdata}"
    return line.encode(errors="backslashreplace")


def metrics(status: Status) -> dict[str, str]:
    """Return every metric by name, in the line's order; a counter's value ends in "c".

    The Perl proxy's come first, then `unaccounted`, then those of each forward, then those of each
    server with TLS. All are plain decimals; what has no value yet is not there.
    """
    unaccounted = sum(abs(forward.unaccounted) for forward in status.forwards)
    own = sorted(item for forward in status.forwards for item in _of_forward(forward))
    own += sorted(item for server in status.servers for item in _of_server(server))
    return {**_of_perl_proxy(status.forwards), "unaccounted": str(unaccounted), **dict(own)}


def _of_perl_proxy(forwards: Sequence[ForwardStatus]) -> dict[str, str]:
    """Return the metrics of old. A queue's name alone may be that of many forwards: their sum."""
    counters = Counter(bytes_in=0, bytes_out=0, total_errors=0, total_jobs=0)
    for forward in forwards:
        counts, queue = forward.counters, _queue(forward.source)
        counters["bytes_in"] += counts["bytes_in"]
        counters["bytes_out"] += counts["bytes_out"]
        counters["total_errors"] += sum(counts[name] for name in _ERRORS)
        counters["total_jobs"] += counts["received"]
        counters[f"{queue}::bytes_out"] += counts["bytes_out"]
        counters[f"{queue}::jobs"] += counts["received"]
    gauges = {
        "backlog": _backlog(forwards),
        "queues": len(forwards),
        "server": len({_server(forward.source) for forward in forwards}),
    }
    values = {name: f"{count}c" for name, count in counters.items()}
    values.update((name, str(value)) for name, value in gauges.items())
    return dict(sorted(values.items(), key=lambda item: ("::" in item[0], item[0])))


def _of_forward(forward: ForwardStatus) -> list[tuple[str, str]]:
    """Return one forward's metrics: counters, jobs, seconds and milliseconds."""
    counts = forward.counters
    counters = {
        "coalesced": counts["coalesced"],
        "dead_letters": counts["dead_lettered"],
        "dropped": counts["dropped"],
        "jobs": counts["received"],
        "late": counts["late"],
        "retries": counts["retries"],
    }
    gauges = {
        "since_confirm": forward.since_confirm,
        "latency_p50": _milliseconds(forward.p50),
        "latency_p99": _milliseconds(forward.p99),
    }
    depths = {
        "source_waiting": forward.source_waiting,
        "target_waiting": forward.target_waiting,
        "target_workers": forward.target_workers,
    }
    values = {name: f"{count}c" for name, count in counters.items()}
    values["in_flight"] = str(forward.in_flight)
    values.update((name, str(depth)) for name, depth in depths.items() if depth is not None)
    values.update((name, f"{value:.1f}") for name, value in gauges.items() if value is not None)
    return [(f"{forward.key}::{name}", value) for name, value in values.items()]


def _of_server(server: ServerStatus) -> list[tuple[str, str]]:
    """Return the days until our side's first certificate expires, and the server's."""
    own = [days for days in (server.certificate_days, server.ca_days) if days is not None]
    values = {"tls_days": min(own, default=None), "tls_peer_days": server.peer_days}
    return [
        (f"{server.address}::{name}", f"{days:.2f}")
        for name, days in values.items()
        if days is not None
    ]


def _backlog(forwards: Iterable[ForwardStatus]) -> int:
    """Return how many jobs are held by forwards that do not run.

    What a running forward holds is on its way: the Perl proxy never counted that, and dashboards
    take a backlog for trouble.
    """
    return sum(forward.held for forward in forwards if forward.reasons)


def _sentences(status: Status) -> list[str]:
    """Say all that is wrong: in the Perl proxy's words what it knew, then for each forward."""
    sentences = []
    failed = sorted(_failed_servers(status.forwards))
    if failed:
        plural = "" if len(failed) == 1 else "s"
        sentences.append(f"{len(failed)} server{plural} failed: {', '.join(failed)}.")
    if backlog := _backlog(status.forwards):
        sentences.append(f"backlog contains {backlog} jobs.")
    sentences += [
        f"{forward.key}: {_why(forward)}." for forward in status.forwards if _why(forward)
    ]
    return sentences + [f"{text}." for text in _to_renew(status)]


def _to_renew(status: Status) -> list[str]:
    return [text for server in status.servers if (text := expiry.sentence(server))]


def _failed_servers(forwards: Iterable[ForwardStatus]) -> set[str]:
    return {
        _server(forward.source if reason.startswith("source") else forward.target)
        for forward in forwards
        for reason in forward.reasons
        if reason.startswith(_AWAY)
    }


def _why(forward: ForwardStatus) -> str:
    """Return everything that is wrong with a forward; "" where all is well."""
    lost = [f"{forward.unaccounted} jobs are unaccounted for"] if forward.unaccounted else []
    return "; ".join([*forward.reasons, *lost])


def _label(name: str) -> str:
    """Quote a name as the plugin guidelines want it."""
    return "'" + _plain(name).replace("'", "''") + "'"


# For a person, a script and systemd.


def document(status: Status, critical_after: float) -> dict[str, object]:
    """Return what `gevproxy status` is told: its exit code, the table, and all of it as JSON."""
    state = level(status, critical_after)
    text = f"{state.name} - {table(status)}"
    return {"code": int(state), "text": text, "status": as_json(status, state)}


def answer(status: Status, request: bytes, critical_after: float, search: Search = search) -> bytes:
    """Answer a request to the status queue: with the line, or the document as JSON."""
    if JSON_REQUEST.encode() in request.split(b"\0")[0].split():
        return json.dumps(document(status, critical_after)).encode()
    return perl_line(status, request, critical_after, search)


def as_json(status: Status, state: Level) -> dict[str, object]:
    """Return the state, and every field of a Status and its forwards. Times are seconds."""
    return {"state": state.name, **asdict(status)}


def summary(status: Status) -> str:
    """Return "7 of 8 forwards running, 1,204 jobs/s"."""
    running = len(status.forwards) - len(_stopped(status))
    rate = sum(forward.rate for forward in status.forwards)
    return f"{running} of {len(status.forwards)} forwards running, {rate:,.0f} jobs/s"


def systemd_line(status: Status) -> str:
    """Return the summary and what is wrong, on one line: STATUS= of sd_notify(3)."""
    stopped = _stopped(status)
    parts = [summary(status)]
    if stopped:
        parts.append(f"{len(stopped)} not running: {_some(stopped)}")
    if renew := _to_renew(status):
        parts.append(_plain(f"{renew[0]}{' and others' if renew[1:] else ''}"))
    return ", ".join(parts)


def unready(status: Status) -> str:
    """Say which forwards do not run and why, on one line; "" where all run that are to run."""
    return _some([forward for forward in _stopped(status) if not _is_wanted_so(forward)])


def _some(forwards: Sequence[ForwardStatus]) -> str:
    """Name forwards, each with its reasons, and how many more there are."""
    named = [f"{forward.key} ({_why(forward)})" for forward in forwards[:_NAMED]]
    more = f" and {len(forwards) - _NAMED} more" if len(forwards) > _NAMED else ""
    return _plain(", ".join(named) + more)


def table(status: Status) -> str:
    """Return the summary, a line for each forward and one for each server with TLS.

    Without a line feed at the end.
    """
    head = f"gevproxy {status.version}, up {_duration(status.uptime)}: {summary(status)}"
    rows = [_HEADINGS, *(_cells(forward) for forward in status.forwards)]
    rows = _without_unknown(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        )
        for row in rows
    )
    servers = [f"TLS {server.address}: {expiry.in_words(server)}" for server in status.servers]
    gap = [""] if servers else []
    return "\n".join([head, "", *(line.rstrip() for line in lines), *gap, *servers])


_DEPTHS: Final = ("WAITING", "AT TARGET", "WORKERS")
"""Columns that are left out where no forward has a figure: nobody asks, or no server answers."""

_NUMBERS: Final = ("JOBS/S", "IN FLIGHT", "HELD", "P50 MS", "P99 MS", *_DEPTHS)
_HEADINGS: Final = ("FORWARD", "TARGET", *_NUMBERS, "STATE")


def _cells(forward: ForwardStatus) -> tuple[str, ...]:
    why = _plain(_why(forward))
    if forward.reasons and not _held_back(forward):
        why = f"not running for {_duration(forward.not_running)}: {why}"
    p50, p99 = _milliseconds(forward.p50), _milliseconds(forward.p99)
    depths = forward.source_waiting, forward.target_waiting, forward.target_workers
    return (
        forward.key,
        forward.target,
        f"{forward.rate:,.0f}",
        f"{forward.in_flight:,}",
        f"{forward.held:,}",
        "-" if p50 is None else f"{p50:,.1f}",
        "-" if p99 is None else f"{p99:,.1f}",
        *("-" if depth is None else f"{depth:,}" for depth in depths),
        why or "running",
    )


def _without_unknown(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the rows without the columns of depths that nobody knows."""
    columns = [
        column
        for column in zip(*rows, strict=True)
        if column[0] not in _DEPTHS or set(column[1:]) - {"-"}
    ]
    return list(zip(*columns, strict=True))


_UNITS: Final[Mapping[str, int]] = {"d": 86400, "h": 3600, "min": 60}


def _duration(seconds: float) -> str:
    """Return a time in the largest unit that it fills: "42 s", "3 h"."""
    for unit, length in _UNITS.items():
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


# Small matters of all of them.


def _stopped(status: Status) -> list[ForwardStatus]:
    return [forward for forward in status.forwards if forward.reasons]


def _is_wanted_so(forward: ForwardStatus) -> bool:
    """Whether an operator has paused it, or set the limit that holds it back."""
    return PAUSED in forward.reasons or _held_back(forward)


def _held_back(forward: ForwardStatus) -> bool:
    """Whether nothing is wrong but that the target has enough."""
    reasons = forward.reasons
    return bool(reasons) and all(reason.startswith(HELD_BACK) for reason in reasons)


def _server(address: str) -> str:
    """Return the "host:port" of "host:port/queue"; a queue's name may hold a slash itself."""
    return address.partition("/")[0]


def _queue(address: str) -> str:
    return address.partition("/")[2]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _plain(text: str) -> str:
    """Return text that cannot end the line, or the message in it."""
    return text.translate(_PLAIN)

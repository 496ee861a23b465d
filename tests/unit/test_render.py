"""The monitoring line as old dashboards read it, the table, JSON, and systemd's line.

The regular expressions are those that one writes for the Perl proxy's own lines.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from gevproxy.perfdata_filter import MAX_FILTER
from gevproxy.render import (
    Level,
    answer,
    document,
    level,
    metrics,
    perl_line,
    systemd_line,
    table,
)
from gevproxy.responder import search_in_time
from gevproxy.status import Counters, ForwardStatus, ServerStatus, Status
from tests.kit.status_line import BACKLOG, FAILED, LINE, METRIC, SAMPLES

OLD_NAMES = [
    *("backlog", "bytes_in", "bytes_out", "queues", "server", "total_errors", "total_jobs"),
    *("check_results::bytes_out", "check_results::jobs"),
    *("hostgroup_b::bytes_out", "hostgroup_b::jobs"),
]


def forward(
    source: str = "a:4730/hostgroup_b",
    target: str = "b:4730/hostgroup_b",
    reasons: tuple[str, ...] = (),
    **fields: Any,  # noqa: ANN401 - any field
) -> ForwardStatus:
    """Return a forward that runs, or does not for these reasons; counters are given by name."""
    names = Counters().as_dict()
    counters = {**names, **{name: fields.pop(name) for name in names if name in fields}}
    values: dict[str, Any] = {
        "not_running": 1.0 if reasons else 0.0,
        **dict.fromkeys(("held", "in_flight", "unaccounted", "rate"), 0),
        **dict.fromkeys(("since_confirm", "p50", "p99")),
        **fields,
    }
    return ForwardStatus(
        key=source,
        source=source,
        target=target,
        asynchronous=True,
        reasons=reasons,
        counters=counters,
        **values,
    )


def status(*forwards: ForwardStatus) -> Status:
    return Status(version="1.2", uptime=7300.0, forwards=forwards)


BUSY = status(
    forward(received=796, bytes_in=235420, bytes_out=235420, rate=3, held=2, in_flight=2),
    forward("b:4730/check_results", "a:4730/check_results", received=700, bytes_out=200_000),
    forward("c:4730/check_results", "a:4730/check_results", received=96, bytes_out=86_664),
)


def line(state: Status, request: bytes = b"check", critical_after: float = 300) -> dict[str, str]:
    """Return the parts of a line."""
    text = perl_line(state, request, critical_after).decode()
    found = LINE.fullmatch(text)
    assert found, text
    return found.groupdict()


def values(state: Status, request: bytes = b"check") -> dict[str, str]:
    return {name: value + c for name, value, c in METRIC.findall(line(state, request)["perfdata"])}


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_expressions_read_the_perl_proxy(sample: str) -> None:
    assert LINE.fullmatch(sample)


# The line


def test_all_is_well() -> None:
    parts = line(BUSY)
    assert (parts["code"], parts["word"], parts["version"]) == ("0", "OK", "1.2")
    assert parts["text"] == ""
    assert perl_line(BUSY, b"check", 300).startswith(
        b"0:OK - proxy version v1.2 running.| 'backlog'=0;;; 'bytes_in'=235420c;;; "
    )


def test_the_old_names_come_first_and_in_the_old_order() -> None:
    names = list(values(BUSY))
    assert names[: len(OLD_NAMES)] == OLD_NAMES
    assert names[len(OLD_NAMES)] == "unaccounted"
    new = names[len(OLD_NAMES) + 1 :]
    assert new == sorted(new)
    assert all("/" in name for name in new)


def test_counters_carry_c_and_gauges_do_not() -> None:
    shown = values(BUSY)
    gauges = {"backlog", "queues", "server", "unaccounted", "in_flight"}
    for name, value in shown.items():
        assert value.endswith("c") == (name.rpartition("::")[2] not in gauges), name


def test_where_forwards_share_a_queue_the_old_counter_is_their_sum() -> None:
    shown = values(BUSY)
    assert shown["check_results::jobs"] == "796c"
    assert shown["check_results::bytes_out"] == "286664c"
    assert shown["b:4730/check_results::jobs"] == "700c"
    assert shown["c:4730/check_results::jobs"] == "96c"
    assert shown["total_jobs"] == "1592c"


def test_server_counts_sources_and_queues_counts_forwards() -> None:
    shown = values(status(forward("a:1/x"), forward("a:1/y/z"), forward("[::1]:1/x")))
    assert (shown["server"], shown["queues"]) == ("2", "3")
    assert "y/z::jobs" in shown


def test_errors_of_every_kind_are_summed() -> None:
    one = forward(refused=1, timeouts=2, source_losses=4, target_losses=8, crashes=16)
    assert values(status(one, one))["total_errors"] == "62c"


def test_the_new_names() -> None:
    one = forward(
        received=11,
        retries=1,
        coalesced=2,
        dead_lettered=3,
        dropped=4,
        in_flight=5,
        since_confirm=12.345,
        p50=0.00125,
        p99=2.5,
        late=6,
    )
    assert {name: value for name, value in values(status(one)).items() if "/" in name} == {
        "a:4730/hostgroup_b::coalesced": "2c",
        "a:4730/hostgroup_b::dead_letters": "3c",
        "a:4730/hostgroup_b::dropped": "4c",
        "a:4730/hostgroup_b::in_flight": "5",
        "a:4730/hostgroup_b::jobs": "11c",
        "a:4730/hostgroup_b::latency_p50": "1.2",
        "a:4730/hostgroup_b::latency_p99": "2500.0",
        "a:4730/hostgroup_b::late": "6c",
        "a:4730/hostgroup_b::retries": "1c",
        "a:4730/hostgroup_b::since_confirm": "12.3",
    }


def test_what_has_no_value_yet_is_left_out() -> None:
    assert not [name for name in metrics(BUSY) if "latency" in name or "since" in name]


@pytest.mark.parametrize("number", [1e-9, 1e22, 12345678901234567890.0])
def test_numbers_are_plain_decimals(number: float) -> None:
    """LINE knows no exponent."""
    one = forward(since_confirm=number, p50=number, p99=number, bytes_in=10**25)
    assert line(status(one))["perfdata"]


# What is wrong


def test_one_server_has_failed() -> None:
    parts = line(status(forward(), forward("a:4730/x", "b:27730/x", ("target away: refused",))))
    assert (parts["code"], parts["word"]) == ("1", "WARNING")
    found = FAILED.search(parts["text"])
    assert found
    assert found.groups() == ("1", "b:27730")
    assert parts["text"].endswith(" a:4730/x: target away: refused.")


def test_three_servers_have_failed_at_either_side() -> None:
    """Each server once, however many forwards lack it."""
    parts = line(
        status(
            forward("a:1/x", "c:3/x", ("target away: silent", "source away: refused")),
            forward("a:1/y", "b:2/y", ("target away: refused",)),
            forward("a:1/z", "b:2/z", ("target away: refused",)),
        )
    )
    found = FAILED.search(parts["text"])
    assert found
    assert found.groups() == ("3", "a:1, b:2, c:3")


def test_the_backlog_is_what_waits_and_not_what_is_on_its_way() -> None:
    """So a backlog is trouble, as it was with the Perl proxy."""
    parts = line(status(forward(held=7), forward("a:1/x", reasons=("target full",), held=80)))
    assert parts["code"] == "1"
    found = BACKLOG.search(parts["text"])
    assert found
    assert found[1] == "80"
    assert "'backlog'=80;;;" in parts["perfdata"]


def test_no_reason_hides_another() -> None:
    text = line(
        status(
            forward("a:1/x", "b:2/x", ("target away: refused", "paused"), held=258),
            forward("a:1/y", "b:2/y", ("blocked: stage decrypt: wrong key?",), unaccounted=3),
        )
    )["text"]
    assert text == (
        " 1 server failed: b:2. backlog contains 258 jobs."
        " a:1/x: target away: refused; paused."
        " a:1/y: blocked: stage decrypt: wrong key?; 3 jobs are unaccounted for."
    )


def test_a_reason_cannot_end_the_message() -> None:
    """Not by what a server's error text brings along."""
    one = forward(reasons=("blocked: target refused: E: a|b\0c\nd\x1b[m",))
    assert line(status(one))["text"].endswith("a/b c d [m.")


def test_a_quote_in_a_name_is_doubled() -> None:
    assert b" 'it''s::jobs'=0c;;;" in perl_line(status(forward("a:1/it's")), b"check", 300)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (forward(), Level.OK),
        (forward(reasons=("source away: refused",), not_running=0.0), Level.WARNING),
        (forward(reasons=("source away: refused",), not_running=299.9), Level.WARNING),
        (forward(reasons=("source away: refused",), not_running=300.0), Level.CRITICAL),
        (forward(reasons=("paused",), not_running=10_000.0), Level.WARNING),
        (forward(unaccounted=1), Level.CRITICAL),
        (forward(unaccounted=-1), Level.CRITICAL),
        (forward(reasons=("paused",), unaccounted=1), Level.CRITICAL),
    ],
)
def test_the_level_is_that_of_the_worst_forward(one: ForwardStatus, expected: Level) -> None:
    state = status(forward("a:1/x"), one, forward("a:1/y"))
    assert level(state, 300) is expected
    parts = line(state)
    assert (parts["code"], parts["word"]) == (str(int(expected)), expected.name)


def test_unaccounted_jobs_do_not_cancel_out() -> None:
    state = status(forward("a:1/x", unaccounted=2), forward("a:1/y", unaccounted=-2))
    assert values(state)["unaccounted"] == "4"


# The filter


def test_the_filter_of_the_perl_proxys_manual() -> None:
    shown = values(BUSY, b"check perfdatafilter=^(server|queues|total_|bytes_)")
    assert list(shown) == [
        *("bytes_in", "bytes_out", "queues", "server", "total_errors", "total_jobs")
    ]


@pytest.mark.parametrize(
    "request_",
    [b"perfdatafilter=^server$", b"x perfdatafilter=^server$ y", b"perfdatafilter=^server$\0"],
)
def test_the_filter_stands_anywhere_in_the_request(request_: bytes) -> None:
    assert list(values(BUSY, request_)) == ["server"]


def test_the_filter_is_searched_for() -> None:
    assert set(values(BUSY, b"perfdatafilter=results::j")) == {
        *("check_results::jobs", "b:4730/check_results::jobs", "c:4730/check_results::jobs")
    }


def test_a_filter_that_matches_nothing_leaves_an_empty_list() -> None:
    assert perl_line(BUSY, b"perfdatafilter=^nothing$", 300) == (
        b"0:OK - proxy version v1.2 running.|"
    )


@pytest.mark.parametrize("request_", [b"", b"check", b"check perfdatafilter=", b"\xff\0\xfe"])
def test_without_a_filter_everything_is_there(request_: bytes) -> None:
    assert values(BUSY, request_) == values(BUSY)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", "[", "*", "(?P<", "a{2}{3}", "\\", "(?u)(?a)x", "a" * (MAX_FILTER + 1)),
        *("(" * MAX_FILTER, "a{99999999999999999999}", "(?<=a*)x"),
    ],
)
def test_an_invalid_filter_is_answered(pattern: str) -> None:
    """And what else is wrong is said all the same."""
    state = status(forward("a:1/x", "b:2/x", ("target away: refused",)))
    parts = line(state, b"check perfdatafilter=" + pattern.encode())
    assert (parts["code"], parts["word"], parts["perfdata"]) == ("3", "UNKNOWN", "")
    assert parts["text"].startswith(" perfdatafilter is ")
    assert FAILED.search(parts["text"])


def test_a_filter_that_python_warns_about_says_nothing_on_stderr() -> None:
    """Warnings are errors in these tests."""
    assert list(values(BUSY, b"perfdatafilter=[[q]ueues$")) == ["queues"]


@pytest.mark.parametrize("pattern", [b"(.+)+$x", b"(.*)*(.*)*=$", b".?" * 40 + b"="])
def test_a_runaway_filter_is_stopped(pattern: bytes) -> None:
    request = b"check perfdatafilter=" + pattern
    text = perl_line(BUSY, request, 300, search_in_time).decode()
    assert text == (
        "3:UNKNOWN - proxy version v1.2 running. perfdatafilter takes too long: "
        "write a simpler one.|"
    )


# For people, scripts and systemd


def test_the_table_has_a_line_for_each_forward() -> None:
    away = forward(
        "a:1/x", "b:2/x", ("target away: refused",), not_running=75, held=1234, p50=0.01, p99=1.5
    )
    head, blank, headings, *rows = table(status(forward(rate=1203.7), away)).splitlines()
    assert head == "gevproxy 1.2, up 2 h: 1 of 2 forwards running, 1,204 jobs/s"
    assert not blank
    assert [row.index("running") for row in rows[:1]] == [headings.index("STATE")]
    assert rows[0].split() == [
        *("a:4730/hostgroup_b", "b:4730/hostgroup_b", "1,204", "0", "0", "-", "-", "running")
    ]
    assert rows[1].split()[:7] == ["a:1/x", "b:2/x", "0", "0", "1,234", "10.0", "1,500.0"]
    assert rows[1].endswith("not running for 1 min: target away: refused")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (1e6, "11 d")]
)
def test_a_time_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert f", up {text}: " in table(replace(BUSY, uptime=seconds))


def test_the_document_is_json_with_everything_in_it() -> None:
    state = status(forward(reasons=("paused",), p50=0.5, received=9))
    told = json.loads(json.dumps(document(state, 300)))
    assert told["code"] == 1
    assert told["text"].startswith("WARNING - gevproxy 1.2, up 2 h: ")
    assert told["status"]["state"] == "WARNING"
    assert told["status"]["uptime"] == 7300.0
    (one,) = told["status"]["forwards"]
    assert (one["reasons"], one["p50"], one["p99"]) == (["paused"], 0.5, None)
    assert one["counters"]["received"] == 9


def test_the_status_queue_gives_the_document_to_whoever_asks_for_it() -> None:
    told = json.loads(answer(BUSY, b"check format=json\0", 300))
    assert told == json.loads(json.dumps(document(BUSY, 300)))
    assert answer(BUSY, b"check format=jsonx", 300) == perl_line(BUSY, b"check", 300)


def test_systemds_line() -> None:
    assert systemd_line(BUSY) == "3 of 3 forwards running, 3 jobs/s"
    away = [forward(f"a:1/q{n}", reasons=("paused",)) for n in range(7)]
    assert systemd_line(status(forward(), *away[:2])) == (
        "1 of 3 forwards running, 0 jobs/s, 2 not running: a:1/q0 (paused), a:1/q1 (paused)"
    )
    assert systemd_line(status(*away)).endswith("a:1/q4 (paused) and 2 more")
    assert "\n" not in systemd_line(status(forward(reasons=("a\nb",))))


def test_a_forward_that_is_held_back_is_a_warning_and_never_more() -> None:
    """Unless something else is wrong with it, for long."""
    reason = "target queue holds more than 5 jobs (max_target_waiting)"
    held = forward(reasons=(reason,), not_running=0.5, target_waiting=7)
    assert level(status(held), 0.0) is Level.WARNING
    assert table(status(held)).endswith(f"  {reason}")
    worse = replace(held, reasons=("target away: refused", reason), not_running=400.0)
    assert level(status(worse), 300.0) is Level.CRITICAL


def test_depths_are_shown_where_somebody_knows_them() -> None:
    known = forward(source_waiting=1, target_waiting=2345, target_workers=0)
    heading, row, other = table(status(known, forward("c:4730/x"))).splitlines()[2:]
    assert heading.split()[-5:] == ["WAITING", "AT", "TARGET", "WORKERS", "STATE"]
    assert row.split()[-4:] == ["1", "2,345", "0", "running"]
    assert other.split()[-4:] == ["-", "-", "-", "running"]
    assert "WORKERS" not in table(BUSY)
    shown = values(status(known))
    names = ("source_waiting", "target_waiting", "target_workers")
    assert [shown[f"a:4730/hostgroup_b::{name}"] for name in names] == ["1", "2345", "0"]
    assert not [name for name in values(BUSY) if "waiting" in name]


def test_a_certificate_to_renew_is_a_warning_and_is_named_everywhere() -> None:
    tls = ServerStatus(
        address="b:4731", certificate_days=8.9, ca_days=100, peer_days=90, renew=("certificate",)
    )
    warned = replace(status(forward()), servers=(tls,))
    assert level(warned, 0.0) is Level.WARNING
    text = "TLS b:4731: renew our certificate (8 days)"
    assert f" running. {text}.|" in perl_line(warned, b"", 0.0).decode()
    assert systemd_line(warned) == f"1 of 1 forwards running, 0 jobs/s, {text}"
    two = replace(warned, servers=(tls, tls))
    assert systemd_line(two).endswith(f"{text} and others")
    assert level(replace(warned, servers=(replace(tls, renew=()),)), 0.0) is Level.OK

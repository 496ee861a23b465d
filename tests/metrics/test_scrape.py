"""What a scrape tells: what the status tells, in words that promtool likes, and never less."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from gevproxy.metrics import AT_A_TIME, JOBS, SIDES, STATES, Reading, render
from gevproxy.metrics_server import process
from gevproxy.status import (
    HISTOGRAM_BOUNDS,
    Counters,
    ForwardStatus,
    Histogram,
    ServerStatus,
    Status,
)
from tests.kit.eventually import eventually
from tests.kit.peers import Job, SyncClient, numbered, submit
from tests.kit.ports import free_port
from tests.kit.relay import Relay, config
from tests.kit.servers import Gearmand
from tests.metrics.kit import counters, get, promtool, scrape, series, value
from tests.operate.test_reload import reload

README = (Path(__file__).parents[2] / "README.md").read_text()
SECRET = "sesame-opens-the-mountain"  # noqa: S105 - the test's own


RUNNING = ForwardStatus(
    key="",
    source="a:4730/q",
    target="b:4731/q",
    asynchronous=True,
    reasons=(),
    not_running=0.0,
    held=0,
    in_flight=0,
    unaccounted=0,
    rate=0.0,
    since_confirm=None,
    p50=None,
    p99=None,
    counters=Counters().as_dict(),
)


def reading(forwards: int = 1, *reasons: str) -> Reading:
    """Return figures of so many forwards."""
    told = tuple(
        dataclasses.replace(RUNNING, key=f"a:4730/{number}", reasons=reasons)
        for number in range(forwards)
    )
    days = ServerStatus(address="b:4731", certificate_days=2.5, ca_days=None, peer_days=-1.0)
    return Reading(
        status=Status(version="1.2.3", uptime=1.0, forwards=told, servers=(days,)),
        times={forward.key: Histogram() for forward in told},
        process={},
        reload=(False, 1.0),
        requests={200: 1},
    )


def test_every_counter_has_a_metric() -> None:
    sides = {field for _, fields in SIDES.values() for field in fields}
    assert set(JOBS) | sides == set(Counters().as_dict())


def test_the_readme_names_every_metric_and_no_other() -> None:
    section = README.split("\n## Metrics\n")[1].split("\n## ")[0]
    rows = "".join(line for line in section.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`((?:gevproxy|process)_\w+)`", rows))
    text = render(dataclasses.replace(reading(), process=process(0.0)), lambda: None).decode()
    assert named == set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


def test_every_state_is_told_and_an_unknown_reason_is_another() -> None:
    for reasons, expected in (
        ((), {"running"}),
        (("target away: refused", "paused"), {"target_away", "paused"}),
        (("blocked: stage decrypt: wrong key?",), {"blocked"}),
        (("target queue holds more than 5 jobs (max_target_waiting)",), {"held_back"}),
        (("something new",), {"other"}),
    ):
        found = dict(series(render(reading(1, *reasons), lambda: None).decode()))
        states = {
            state: value(found, "gevproxy_forward_state", forward="a:4730/0", state=state)
            for state in ("running", *STATES.values(), "other")
        }
        assert {state for state, number in states.items() if number == 1} == expected
        assert None not in states.values()


def test_depths_are_told_where_they_are_known() -> None:
    names = {
        "source_waiting": "gevproxy_source_jobs_waiting",
        "target_waiting": "gevproxy_target_jobs_waiting",
        "target_workers": "gevproxy_target_workers",
    }
    unknown = reading()
    (forward,) = unknown.status.forwards
    for number, (field, name) in enumerate(names.items()):
        known = dataclasses.replace(forward, **{field: number})  # type: ignore[arg-type]
        told = dataclasses.replace(unknown.status, forwards=(known,))
        figures = dataclasses.replace(unknown, status=told)
        found = dict(series(render(figures, lambda: None).decode()))
        assert {
            each for each in names.values() if value(found, each, forward=forward.key) is not None
        } == {name}
        assert value(found, name, forward=forward.key) == number


def test_certificates_are_told_as_seconds() -> None:
    found = dict(series(render(reading(), lambda: None).decode()))
    name = "gevproxy_certificate_remaining_seconds"
    assert value(found, name, server="b:4731", certificate="own") == 2.5 * 86400
    assert value(found, name, server="b:4731", certificate="server") == -86400
    assert value(found, name, server="b:4731", certificate="ca") is None


def test_a_histogram_counts_each_job_once_and_up_to_its_bound() -> None:
    times = Histogram()
    for seconds in (0.001, 0.0011, 299.0, 301.0):
        times.record(seconds, 10)
    figures = dataclasses.replace(reading(), times={"a:4730/0": times})
    found = dict(series(render(figures, lambda: None).decode()))
    name = "gevproxy_job_duration_seconds"

    def bucket(le: str) -> float | None:
        return value(found, f"{name}_bucket", forward="a:4730/0", le=le)

    assert [bucket(le) for le in ("0.001", "0.0025", "60.0", "300.0", "+Inf")] == [
        *(10, 20, 20, 30, 40)
    ]
    assert value(found, f"{name}_count", forward="a:4730/0") == 40
    assert value(found, f"{name}_sum", forward="a:4730/0") == pytest.approx(6000.021)
    assert len(times.counts) == len(HISTOGRAM_BOUNDS) + 1


def test_others_get_their_turn_while_many_forwards_are_written() -> None:
    """Never more than so many samples in one go: what a scrape costs the jobs is their time."""
    turns: list[int] = []
    text = render(reading(500), lambda: turns.append(1)).decode()
    samples = sum(not line.startswith("#") for line in text.splitlines())
    assert samples > 500 * 50
    assert len(turns) >= samples // AT_A_TIME


def test_a_scrape_tells_what_the_status_tells(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """Of live forwards; and never a key. promtool finds nothing to say."""
    a, b, port = gearmand_a, gearmand_b, free_port()
    plain, keyed, sync = (f"{a.address}/{queue}" for queue in ("plain", "keyed", "sync"))
    queues = {
        plain: f"{b.address}/plain",
        keyed: {"remote_queue": f"{b.address}/keyed", "encrypt": SECRET},
        sync: {"remote_queue": f"{b.address}/sync", "async": False, "timeout": 0.2},
    }
    with Relay(config(queues, metrics={"listen": f"127.0.0.1:{port}"})) as relay:
        eventually(lambda: len(relay.events("source_up")) == 3, what="three forwards")
        submit(a.port, numbered(b"plain", 1000))
        submit(a.port, [Job(b"keyed", b"u%d" % n, b"aGVsbG8=") for n in range(10)])
        with SyncClient(a.port) as client:
            client.call(b"sync", b"w")
        eventually(
            lambda: value(scrape(port), "gevproxy_jobs_confirmed_total", forward=plain) == 1000,
            what="all jobs in a scrape",
        )
        stats, answer = relay.stats(), get(port)
        found = dict(series(answer.body.decode()))
        assert set(stats) == {plain, keyed, sync}
        for key, status in stats.items():
            for field, (name, _) in JOBS.items():
                told = value(found, f"gevproxy_{name}_total", forward=key)
                assert told == status["counters"][field], name
            for name, (_, fields) in SIDES.items():
                for field, side in fields.items():
                    told = value(found, f"gevproxy_{name}_total", forward=key, side=side)
                    assert told == status["counters"][field], (name, side)
            assert value(found, "gevproxy_forward_state", forward=key, state="running") == 1
        passed = "gevproxy_job_duration_seconds"
        assert value(found, f"{passed}_count", forward=plain) == 1000
        assert (value(found, f"{passed}_sum", forward=plain) or 0) > 0
        assert value(found, "gevproxy_jobs_timed_out_total", forward=sync) == 1
        info = {"forward": plain, "target": f"{b.address}/plain", "mode": "async"}
        assert value(found, "gevproxy_forward_info", **info) == 1
        assert (value(found, "process_resident_memory_bytes") or 0) > 2**20
        assert SECRET.encode() not in answer.body
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert promtool("check", "metrics", text=answer.body) == ""


def test_counters_never_fall_whatever_is_reloaded(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Changed forwards count on; a removed one is gone, and counts on when it comes back."""
    a, b, port = gearmand_a, gearmand_b, free_port()
    steady, moving = f"{a.address}/steady", f"{a.address}/moving"

    def settings(window: int | None) -> dict[str, object]:
        queues: dict[str, object] = {steady: f"{b.address}/steady"}
        if window is not None:
            queues[moving] = {"remote_queue": f"{b.address}/moving", "window": window}
        return config(queues, metrics={"listen": f"127.0.0.1:{port}"})

    def confirmed(count: int) -> bool:
        return value(scrape(port), "gevproxy_jobs_confirmed_total", forward=moving) == count

    with Relay(settings(100)) as relay:
        eventually(lambda: len(relay.events("source_up")) == 2, what="both forwards")
        before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for n, window in enumerate(itertools.chain(range(101, 106), [None, 106])):
            submit(a.port, [Job(b"moving", b"%d-%d" % (n, m), b"w") for m in range(50)])
            relay.configure(settings(window))
            assert reload(relay)["event"] == "reloaded"
            if window is None:
                gone = ("gevproxy_jobs_received_total", frozenset({("forward", moving)}))
                eventually(lambda: gone not in scrape(port), what="no removed forward")  # noqa: B023
            else:
                found = counters(scrape(port))
                fallen = {key: (was, found[key]) for key, was in before.items() if found[key] < was}
                assert fallen == {}
                before = found
        eventually(lambda: confirmed(350), 30.0, what="350 jobs, counted over nine forwards")
        count = value(scrape(port), "gevproxy_job_duration_seconds_count", forward=moving)
        assert count == 350

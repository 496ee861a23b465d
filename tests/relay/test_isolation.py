"""One forward cannot hurt another: its peers may talk nonsense, hang, or be full."""

from collections.abc import Callable

import pytest

from tests.kit.eventually import eventually
from tests.kit.peers import Consumer, Job, numbered, submit
from tests.kit.relay import Record, config
from tests.kit.scripted import (
    ConfirmsTwice,
    Full,
    Garbage,
    Peer,
    Refuses,
    ScriptedServer,
    Silent,
)
from tests.kit.servers import Gearmand
from tests.relay.doubles import Withholds
from tests.relay.forwarding import (
    HERE,
    THERE,
    CheckedRelay,
    arrived_at,
    forward,
    left_at,
    wait_queue,
)
from tests.relay.ledger import Ledger

BAD_TARGETS: dict[str, Callable[[], ScriptedServer]] = {
    "no gearman": Garbage,
    "half a packet": lambda: Garbage(b"\0RES\0\0\0\x14\xff\xff\xff\xff"),
    "unknown type": lambda: Garbage(b"\0RES\0\0\0\x63\0\0\0\0"),
    "too few arguments": lambda: Garbage(b"\0RES\0\0\0\x14\0\0\0\x01x"),
    "silent": Silent,
    "full": Full,
    "refuses": lambda: Refuses(lambda _: True, b"BAD_JOB"),
    "confirms twice": ConfirmsTwice,
}


class Miscounts(ConfirmsTwice):
    """Confirms one of its jobs twice."""

    def on_submit(self, peer: Peer, job: Job) -> None:
        """Confirm; the eleventh job twice."""
        if len(self.submitted) == 10:
            super().on_submit(peer, job)
        else:
            self.confirm(peer, job)


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_a_bad_target_harms_its_own_forward_alone(
    gearmand_a: Gearmand, gearmand_b: Gearmand, name: str
) -> None:
    """The forward beside it moves its jobs, and the state says which is ill."""
    ledger = Ledger()
    with BAD_TARGETS[name]() as bad:
        sick = f"{gearmand_a.address}/sick"
        queues: Record = {**forward(gearmand_a, gearmand_b), sick: f"{bad.address}/sick"}
        with CheckedRelay(config(queues)) as proxy, Consumer(gearmand_b.port, THERE) as consumer:
            submit(gearmand_a.port, numbered(b"sick", 100))
            eventually(lambda: bad.received)
            submit(gearmand_a.port, ledger.book(numbered(HERE, 2000)))
            consumer.wait_for(2000)
            wait_queue(gearmand_a, total=0)
            ledger.assert_exact(consumer.seen)
            stats = proxy.stats()
            well = stats.pop(f"{gearmand_a.address}/here")
            assert well["reasons"] == []
            counters = well["counters"]
            assert counters["source_losses"] == counters["target_losses"] == 0
            assert list(stats) == [sick]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "wrong magic"),
        (b"\0RES\0\0\0\x63\0\0\0\0", "unknown packet type 99"),
        (b"\0RES\0\0\0\x14\0\0\0\x01x", "STATUS_RES takes 5 arguments"),
        (b"\0RES\0\0\0\x14\xff\xff\xff\xff", "over max_packet"),
    ],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_nonsense_is_named_in_state_and_log(side: str, data: bytes, reason: str) -> None:
    """Whoever mistyped a port reads that there is no gearmand behind it."""
    with Garbage(data) as garbage, ScriptedServer() as good:
        source, target = (garbage, good) if side == "source" else (good, garbage)
        with CheckedRelay(config(forward(source, target))) as proxy:
            record = proxy.wait_event(f"{side}_away")
            assert reason in record["message"]
            proxy.wait_reason(f"{side} away")
            eventually(lambda: any(reason in r for r in proxy.only_stats()["reasons"]))


def test_a_confirm_too_many_ends_the_connection_and_loses_nothing(gearmand_a: Gearmand) -> None:
    """Pairing can no longer be trusted, so the target starts anew."""
    ledger = Ledger()
    with Miscounts() as target, CheckedRelay(config(forward(gearmand_a, target))) as proxy:
        submit(gearmand_a.port, ledger.book(numbered(HERE, 100)))
        wait_queue(gearmand_a, total=0)
        difference = ledger.compare(arrived_at(target))
        assert not difference.lost, difference
        proxy.wait_event("target_lost")


class Crashes(CheckedRelay):
    """A relay with a bug: the first job with a certain workload kills the greenlet it is in."""

    crashes = True
    program = (
        "-c",
        """
import sys
from gevproxy.__main__ import main
from gevproxy.forward import Forward

send, left = Forward._send, [1]

def crash(self, client, jobs):
    if left and any(held.workload == b"crash" for held in jobs):
        left.clear()
        raise RuntimeError("a bug")
    send(self, client, jobs)

Forward._send = crash
sys.exit(main())
""",
    )


def test_a_crash_costs_one_forward_a_restart_and_no_job(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """One record with the traceback, nothing else on stderr, and counters that go on."""
    ledger, other = Ledger(), Ledger()
    sick, sick_there = f"{gearmand_a.address}/sick", f"{gearmand_b.address}/sick"
    queues: Record = {**forward(gearmand_a, gearmand_b), sick: sick_there}
    with Crashes(config(queues)) as proxy:
        wait_queue(gearmand_a, workers=1)
        jobs = list(numbered(b"sick", 500))
        submit(gearmand_a.port, ledger.book(jobs[:250]))
        submit(gearmand_a.port, ledger.book([Job(b"sick", b"crash", b"crash"), *jobs[250:]]))
        submit(gearmand_a.port, other.book(numbered(HERE, 2000)))
        record = proxy.wait_event("forward_crashed", forward=sick)
        assert "a bug" in record["message"]
        assert "Traceback" in record["traceback"]
        eventually(lambda: gearmand_a.admin.queue("sick").total == 0)
        wait_queue(gearmand_a, total=0)
        stats = proxy.stats()
        assert stats[sick]["counters"]["crashes"] == 1
        # Completions that were not yet sent died with the connection: those jobs coalesced.
        assert stats[sick]["counters"]["confirmed"] >= 501
        assert stats[f"{gearmand_a.address}/here"]["counters"]["source_losses"] == 0
        assert len(proxy.events("forward_crashed")) == 1
    ledger.assert_exact(left_at(gearmand_b, b"sick"))
    other.assert_exact(left_at(gearmand_b, THERE))


class CrashesAtItsCap(CheckedRelay):
    """A relay with a bug: the first tick at which it holds all that it may kills its greenlet."""

    crashes = True
    program = (
        "-c",
        """
import sys
from gevproxy.__main__ import main
from gevproxy.forward import Forward

tick, left = Forward.tick, [1]

def crash(self, now):
    if self._window.bytes >= self.config.window_bytes and left:
        left.clear()
        raise RuntimeError("a bug")
    tick(self, now)

Forward.tick = crash
sys.exit(main())
""",
    )


def test_a_crashed_forward_takes_no_more_jobs(gearmand_a: Gearmand) -> None:
    """Its reader, which stood still before, may not read on, nor its link connect once more."""
    ledger = Ledger()
    with (
        Withholds() as target,
        CrashesAtItsCap(config(forward(gearmand_a, target, window_bytes=300_000))) as proxy,
    ):
        jobs = (Job(HERE, b"%d" % number, bytes(100_000)) for number in range(50))
        submit(gearmand_a.port, ledger.book(jobs))
        crashed = proxy.wait_event("forward_crashed")
        assert proxy.only_stats()["reasons"] == ["crashed: RuntimeError"]
        proxy.wait_event("source_up", since=proxy.records.index(crashed))
        eventually(
            lambda: 0 < len(target.pending) == proxy.only_stats()["in_flight"],
            what="what is in flight is at the target",
        )
        wait_queue(gearmand_a, workers=1)
        target.release()
        wait_queue(gearmand_a, total=0)
        difference = ledger.compare(arrived_at(target))
        assert not difference.lost, difference
        status = proxy.only_stats()
        assert status["unaccounted"] == 0, status
        assert status["counters"]["target_losses"] == status["counters"]["source_losses"] == 0

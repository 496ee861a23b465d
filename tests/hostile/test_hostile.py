"""Peers that mean harm: the connection goes or it is ignored, with a reason, in bounded memory.

In every case a forward of the same process goes on beside the one that is attacked.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gevproxy.gearman.connection import MOST_LAST_BYTES
from tests.hostile.peers import (
    MIB,
    PIECE,
    SICK,
    Answers,
    Clings,
    Deaf,
    Gives,
    Gushes,
    Says,
    Stops,
    Teases,
    announced,
    assigned,
    response,
)
from tests.kit.eventually import eventually
from tests.kit.packets import RESPONSE, Kind
from tests.kit.peers import Consumer, numbered, submit
from tests.kit.relay import Record, config
from tests.kit.servers import Gearmand
from tests.relay.forwarding import HERE, THERE, CheckedRelay, forward, wait_queue
from tests.relay.ledger import Ledger

Stream = Callable[[], Iterator[bytes]]
Peer = Says | Deaf

GROWTH = 64 * MIB  # of resident memory that an attack may cost
LONGEST = 2000  # characters of a record, whatever a peer says
MANY = 1_000_000
MAX_PACKET = 8 * MIB
SILENT = 60.0  # seconds until silence must have been noticed; the bound is 15


def once(data: bytes) -> Stream:
    """Return a stream that says this and no more."""
    return lambda: iter([data])


def often(packet: bytes) -> Stream:
    """Return a stream of so many equal packets."""
    piece = packet * 10_000
    return lambda: itertools.repeat(piece, MANY // 10_000)


def followed(head: bytes, size: int) -> Stream:
    """Return a stream of a head and so many bytes behind it."""
    return lambda: itertools.chain([head], itertools.repeat(bytes(PIECE), size // PIECE))


def noise() -> Iterator[bytes]:
    """Yield 64 MiB of nothing in particular."""
    rng = random.Random(1)
    return (rng.randbytes(PIECE) for _ in range(16))


def unread_jobs() -> Iterator[bytes]:
    """Yield jobs, as many as a worker has asked for by then if it likes what it gets."""
    numbers = itertools.count()
    for count in itertools.chain([1, 2, 4, 8, 16, 32, 64, 128, 256, 512], itertools.repeat(900)):
        handles = (b"H:%01000d" % number for number in itertools.islice(numbers, count))
        yield b"".join(map(assigned, handles))


def long_texts(count: int, size: int) -> Iterator[bytes]:
    """Yield ERROR packets with long texts, all different."""
    for number in range(count):
        yield response(Kind.ERROR, b"CODE%d" % number, b"%d " % number + b"x" * size)


class Case(NamedTuple):
    """An attack: who makes it, and what a record must say of it; "" where it is ignored."""

    peer: Callable[[], Peer]
    reason: str


def says(stream: Stream, reason: str) -> Case:
    """Return an attack that comes out of the blue."""
    return Case(lambda: Says(stream), reason)


def gives(stream: Stream, reason: str) -> Case:
    """Return an attack in the place of a job that was asked for."""
    return Case(lambda: Gives(stream), reason)


def answers(answer: Callable[[int], bytes], reason: str) -> Case:
    """Return an attack in the place of the confirm of job number N."""
    return Case(lambda: Answers(answer), reason)


PONG = response(Kind.STATUS_RES, b"gevproxy:ping", b"0", b"0", b"0", b"0")
TOO_LARGE = response(Kind.JOB_ASSIGN_UNIQ, b"H:large", SICK, b"u", bytes(MAX_PACKET))

AT_EITHER_END: dict[str, Case] = {
    "noise": says(noise, "wrong magic"),
    "a request": says(once(b"\0REQ" + bytes(8)), "wrong magic"),
    "half a header": Case(lambda: Stops(once(RESPONSE + b"\0\0")), "silent"),
    "4 GiB": says(followed(announced(Kind.STATUS_RES, 0xFFFFFFFF), 64 * MIB), "over max_packet"),
    "no type": says(once(RESPONSE + b"\0\0\1\0" + bytes(4)), "unknown packet type 256"),
    "JOB_ASSIGN": says(once(response(Kind.JOB_ASSIGN, b"h", SICK, b"w")), "unexpected JOB_ASSIGN"),
    "pongs": says(often(PONG), ""),
}
AT_THE_SOURCE: dict[str, Case] = {
    **AT_EITHER_END,
    "a job": says(once(assigned(b"h")), "JOB_ASSIGN_UNIQ that no grab asked for"),
    "a job of 4 GiB": gives(
        followed(announced(Kind.JOB_ASSIGN_UNIQ, 0xFFFFFFFF) + b"H:huge\0", 256 * MIB),
        "JOB_ASSIGN_UNIQ of job H:huge has 4294967295 bytes, over max_packet",
    ),
    "a large job": gives(once(TOO_LARGE), "JOB_ASSIGN_UNIQ of job H:large has"),
    "another queue": gives(once(assigned(b"h", b"other")), "a queue that was never asked for"),
    "a long handle": gives(once(assigned(b"h" * MIB)), "a handle of 1048576 bytes"),
    "a long unique": gives(once(assigned(b"h", SICK, b"u" * MIB)), "a unique of 1048576 bytes"),
    "NO_JOBs": says(often(response(Kind.NO_JOB)), "NO_JOB that no grab asked for"),
    "NOOPs": says(often(response(Kind.NOOP)), ""),
    "teasing": Case(lambda: Teases(once(b"")), ""),
    "a confirm": says(once(response(Kind.JOB_CREATED, b"h")), "unexpected JOB_CREATED"),
    "long texts": says(lambda: long_texts(64, 2 * MIB), "CODE"),
    "deaf": Case(lambda: Deaf(unread_jobs), "does not read"),
}
AT_THE_TARGET: dict[str, Case] = {
    **AT_EITHER_END,
    "a confirm": says(once(response(Kind.JOB_CREATED, b"h")), "JOB_CREATED that answers no"),
    "a refusal": says(once(response(Kind.ERROR, b"c", b"t")), "ERROR that answers no submission"),
    "an option": says(once(response(Kind.OPTION_RES, b"o")), "OPTION_RES "),
    "NO_JOBs": says(often(response(Kind.NO_JOB)), "unexpected NO_JOB"),
    "updates": says(often(response(Kind.WORK_STATUS, b"h", b"1", b"2")), ""),
    "two confirms": answers(
        lambda n: response(Kind.JOB_CREATED, b"%d" % n) * 2, "JOB_CREATED that answers no"
    ),
    "a long handle": answers(
        lambda n: response(Kind.JOB_CREATED, b"%d" % n + b"h" * MIB), "a handle of 1048577 bytes"
    ),
    "long texts": answers(
        lambda n: response(Kind.ERROR, b"CODE%d" % n, b"%d " % n + b"x" * 4 * MIB), "CODE"
    ),
    "data": answers(lambda n: response(Kind.WORK_DATA, b"%d" % n, bytes(MIB)) * 16, ""),
    "deaf": Case(lambda: Deaf(lambda: itertools.repeat(PONG)), "does not read"),
}


@pytest.mark.parametrize("name", AT_THE_SOURCE)
def test_a_hostile_source(gearmand_a: Gearmand, gearmand_b: Gearmand, name: str) -> None:
    with AT_THE_SOURCE[name].peer() as peer:
        queues = {f"{peer.address}/sick": f"{gearmand_b.address}/sick"}
        resist(gearmand_a, gearmand_b, queues, peer, AT_THE_SOURCE[name].reason)


@pytest.mark.parametrize("name", AT_THE_TARGET)
def test_a_hostile_target(gearmand_a: Gearmand, gearmand_b: Gearmand, name: str) -> None:
    """It has jobs to confirm: 100 of 1 MiB, of which the forward holds a few."""
    with AT_THE_TARGET[name].peer() as peer:
        submit(gearmand_a.port, numbered(SICK, 100, bytes(MIB)))
        queues = {
            f"{gearmand_a.address}/sick": {
                "remote_queue": f"{peer.address}/sick",
                "window_bytes": 4 * MIB,
            }
        }
        resist(gearmand_a, gearmand_b, queues, peer, AT_THE_TARGET[name].reason)


def test_a_source_that_clings_uses_up_no_descriptors(gearmand_b: Gearmand) -> None:
    """It breaks the protocol with every attempt and never closes what we have ended."""
    with Clings(once(response(Kind.NO_JOB))) as source:
        queues = {f"{source.address}/sick": f"{gearmand_b.address}/sick"}
        with CheckedRelay(config(queues)) as proxy:
            proxy.wait_event("source_up")
            source.attack()
            eventually(lambda: len(source.connected_at) > 80, 60.0, what="80 connections")
            assert len(list(Path(f"/proc/{proxy.pid}/fd").iterdir())) < 70


def test_a_source_that_gushes_when_we_have_left_is_cut_off(gearmand_b: Gearmand) -> None:
    """We wait long for its end, and read what it may still owe us, but not for ever."""
    with Gushes() as source, CheckedRelay(config(forward(source, gearmand_b))) as proxy:
        eventually(lambda: source.peers, what="a worker")
        proxy.wait_event("source_up")
        proxy.configure(config(forward(source, gearmand_b, window=7)))
        proxy.hup()
        proxy.wait_event("source_left")
        assert source.cut.wait(60.0), f"{source.sent} bytes were read, and no end"
        assert source.sent < MOST_LAST_BYTES + 64 * MIB
        eventually(lambda: len(proxy.events("source_up")) == 2, what="the next worker")


def resist(source: Gearmand, target: Gearmand, sick: Record, peer: Peer, reason: str) -> None:
    """Run a relay against a peer that attacks one of its forwards."""
    ledger = Ledger()
    queues = {**sick, **forward(source, target)}
    with (
        CheckedRelay(config(queues, max_packet=MAX_PACKET)) as proxy,
        Consumer(target.port, THERE) as consumer,
    ):
        submit(source.port, ledger.book(numbered(HERE, 1000)))
        consumer.wait_for(1000)
        wait_queue(source, total=0)  # or what comes below would be taken for these
        (key,) = sick
        eventually(lambda: proxy.events("source_up", forward=key), what="an answer at both ends")
        before = proxy.rss()
        peer.attack()
        if reason:
            eventually(
                lambda: [r for r in proxy.records if reason in r["message"]],
                SILENT,
                what=f"{reason}; the log ends with {proxy.records[-3:]}",
            )
        submit(source.port, ledger.book(numbered(HERE, 20_000)))
        consumer.wait_for(21_000)
        wait_queue(source, total=0)
        ledger.assert_exact(consumer.seen)
        status = proxy.stats()[f"{source.address}/here"]
        assert status["counters"]["source_losses"] == status["counters"]["target_losses"] == 0
        assert proxy.peak_rss() - before < GROWTH
        assert not [r for r in proxy.records if len(str(r)) > LONGEST]

"""Limits: many forwards, a long queue, no descriptors left."""

import json
import os
import resource
import socket
import time
from pathlib import Path

from tests.hostile.peers import MIB
from tests.kit.eventually import eventually
from tests.kit.packets import Connection, Kind
from tests.kit.peers import Consumer, drain, numbered, submit
from tests.kit.relay import Relay, config
from tests.kit.servers import Gearmand
from tests.relay.forwarding import HERE, THERE, CheckedRelay, forward, relay, wait_queue

FORWARDS = 200
WAITING = int(os.environ.get("WAITING_JOBS", "200000"))
"""Jobs that wait in the long queue; 1,000,000 takes a minute and a half."""


def test_200_forwards(gearmand_a: Gearmand, gearmand_b: Gearmand) -> None:
    """They start with little work, take little room, and cost next to nothing while idle."""
    pairs = [f"/q{number}" for number in range(FORWARDS)]
    queues = {gearmand_a.address + queue: gearmand_b.address + queue for queue in pairs}
    with Relay(config(queues, poll=2)) as proxy:  # more often than by default
        eventually(
            lambda: len(proxy.events("source_up")) == FORWARDS, 60.0, what=f"{FORWARDS} forwards"
        )
        assert proxy.cpu_seconds() < 5
        until(time.monotonic() + 2)  # the first pings and records are over
        used, started = proxy.cpu_seconds(), time.monotonic()
        until(started + 8)
        share = (proxy.cpu_seconds() - used) / (time.monotonic() - started)
        assert share < 0.02, f"{share:.2%} of a core while idle"
        assert proxy.peak_rss() < 100 * MIB
        for queue in (b"q0", b"q199"):
            submit(gearmand_a.port, numbered(queue, 100))
            assert len(drain(gearmand_b.port, queue, 100)) == 100


def until(moment: float) -> None:
    """Let a while pass, for something that is measured over it."""
    eventually(lambda: time.monotonic() >= moment, 120.0, 0.1)


def test_a_long_queue_costs_no_more_than_a_short_one(
    gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """What waits at the source is none of the relay's business: neither its time nor its room."""
    part = 20_000
    with relay(gearmand_a, gearmand_b) as proxy, Consumer(gearmand_b.port, THERE) as consumer:
        wait_queue(gearmand_a, workers=1)
        submit(gearmand_a.port, numbered(HERE, part))
        consumer.wait_for(part)
        used = proxy.cpu_seconds()
        submit(gearmand_a.port, numbered(HERE, part))
        consumer.wait_for(2 * part)
        short = proxy.cpu_seconds() - used
        proxy.freeze()
        fill(gearmand_a.port, WAITING)
        proxy.thaw()
        eventually(lambda: len(consumer.seen) > 2 * part, 60.0, what="the first of a long queue")
        room, first = proxy.rss(), confirmed(proxy)
        used = proxy.cpu_seconds()
        # The relay's own count: the consumer may be far behind it.
        eventually(lambda: confirmed(proxy) > first + part, 60.0, what="a part of a long queue")
        spent = proxy.cpu_seconds() - used
        long = spent / (confirmed(proxy) - first) * part
        assert long < 2 * short + 0.5, f"{long:.2f} s against {short:.2f} s for {part} jobs"
        assert proxy.peak_rss() - room < 64 * MIB


def confirmed(proxy: CheckedRelay) -> int:
    """Return how many jobs have passed; gearmand is slow to say with a million waiting."""
    return int(proxy.only_stats()["counters"]["confirmed"])


def fill(port: int, count: int) -> None:
    """Submit jobs in the background without keeping what is answered."""
    step = 10_000
    with Connection(port, timeout=60.0) as client:
        for start in range(0, count, step):
            numbers = range(start, min(start + step, count))
            client.send_many(Kind.SUBMIT_JOB_BG, [(HERE, b"f%d" % n, b"") for n in numbers])
            client.receive_many(len(numbers))


def allow_descriptors(pid: int, count: int) -> None:
    """Let a process open nothing more, or some."""
    _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, most))


def test_descriptors_that_run_out_are_named_and_found_again(
    gearmand_a: Gearmand, gearmand_b: Gearmand, tmp_path: Path
) -> None:
    """By the links, by the control socket, and by the log, whose file has been moved away."""
    log = tmp_path / "log"
    short = "too many open files"
    with CheckedRelay(config(forward(gearmand_a, gearmand_b), log_file=str(log))) as proxy:
        eventually(lambda: log.exists() and "source_up" in log.read_text())
        allow_descriptors(proxy.pid, 3)
        log.rename(tmp_path / "old")
        gearmand_b.restart()
        record = proxy.wait_event("target_away")  # on stderr, for the file cannot be opened
        assert short in record["message"]
        state = proxy.wait_event("forward_state", reasons=[f"target away: {short}"])
        assert state["forward"] == f"{gearmand_a.address}/here"
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(30)
            control.connect(str(proxy.control_socket))
            control.sendall(b'{"command": "status"}\n')
            assert short in proxy.wait_event("control_absent")["message"]
            used, since = proxy.cpu_seconds(), time.monotonic()
            until(since + 3)
            assert proxy.cpu_seconds() - used < (time.monotonic() - since) / 3
            assert len(proxy.events("control_absent")) == 1
            allow_descriptors(proxy.pid, 1000)
            answer = json.loads(control.makefile().readline())
            assert answer["status"]["forwards"]
        submit(gearmand_a.port, numbered(HERE, 100))
        assert len(drain(gearmand_b.port, THERE, 100)) == 100
        eventually(lambda: log.exists() and "target_up" in log.read_text())
        assert not proxy.events("greenlet_crashed")
        proxy.process.terminate()
        assert proxy.wait() == 0

"""Measurements with peers at work: synchronous jobs, idle forwards, and the long run."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import NamedTuple

from tests.bench.measure import WORKLOAD, Ours, Point, Reading, cpu_seconds, memory, servers
from tests.kit.eventually import eventually
from tests.kit.relay import ROOT, Relay, config

PEERS = 50
"""Clients, each with one job at a time; as many workers; `workers` of the forward."""

SETTLE = 3.0
"""Seconds until forwards that have nothing to do are asleep."""

FEED = 20_000
"""Jobs that wait at the source in a long run."""

SAMPLES = 10
"""Samples of a run that is too short for one every INTERVAL."""

INTERVAL = 10.0
"""Seconds between two samples of a long run."""


@contextmanager
def peers(*arguments: str | float) -> Iterator["subprocess.Popen[str]"]:
    """Run a role of peers_process.py."""
    command = [sys.executable, "-m", "tests.bench.peers_process", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def sync(seconds: float, *, relayed: bool) -> Reading:
    """Let clients call workers, through the relay or on one job server."""
    with ExitStack() as stack:
        source, target, ends = stack.enter_context(servers())
        place, pid = source, None
        if relayed:
            place = target
            relay = Ours(**{"async": False, "workers": PEERS})
            pid = stack.enter_context(relay(ends, ["q"]))
        stack.enter_context(peers("workers", place.port, "q", PEERS))
        clients = stack.enter_context(peers("clients", source.port, "q", PEERS, seconds))
        assert clients.stdout is not None
        assert clients.stdout.readline() == "begin\n", "no client came to work"
        start, before = time.monotonic(), cpu_seconds(pid) if pid else 0.0
        word, _, count = clients.stdout.readline().partition(" ")
        assert word == "end", "the clients ended early"
        cpu = cpu_seconds(pid) - before if pid else 0.0
        return Reading(jobs=int(count), seconds=time.monotonic() - start, cpu=cpu)


def idle(forwards: int, seconds: float) -> Reading:
    """Let forwards wait for jobs that do not come; a second counts as a job."""
    names = [f"q{number}" for number in range(forwards)]
    with servers() as (source, _, ends), Ours()(ends, names) as pid:
        eventually(lambda: _asleep(source.admin.status()) == forwards, 60, what="all are there")
        time.sleep(SETTLE)
        start, cpu = time.monotonic(), cpu_seconds(pid)
        time.sleep(seconds)
        cpu, seconds = cpu_seconds(pid) - cpu, time.monotonic() - start
        share = cpu / seconds * 100
        rss = memory(pid, "VmRSS")
    return Reading(
        jobs=max(1, int(seconds)), seconds=seconds, cpu=cpu, rss=rss, more={"core": share}
    )


def _asleep(status: object) -> int:
    assert isinstance(status, dict)
    return sum(queue.workers > 0 for queue in status.values())


class Sample(NamedTuple):
    """A moment of a long run; `jobs` and `cpu` count from the relay's start."""

    time: float
    jobs: int
    cpu: float
    rss: int


def soak(seconds: float) -> Reading:
    """Relay at full rate for a time, with a sample of cost and memory now and then."""
    interval = min(INTERVAL, seconds / SAMPLES)
    with (
        servers() as (source, target, _),
        Relay(config({f"{source.address}/q": f"{target.address}/q"})) as relay,
        peers("take", target.port, "q"),
        peers("feed", source.port, "q", FEED, WORKLOAD),
    ):

        def sample() -> Sample:
            (record,) = relay.stats(60).values()
            del relay.records[:]  # a long run would keep them all
            relay.lived = -1
            jobs = int(record["counters"]["confirmed"])
            return Sample(time.monotonic(), jobs, cpu_seconds(relay.pid), relay.rss())

        eventually(lambda: sample().jobs > FEED, 60, interval=0.1, what="a relay that is warm")
        samples = [sample()]
        while samples[-1].time < samples[0].time + seconds:
            time.sleep(interval)
            samples.append(sample())
        rss = relay.peak_rss()
    first, last = samples[0], samples[-1]
    return Reading(
        jobs=last.jobs - first.jobs,
        seconds=last.time - first.time,
        cpu=last.cpu - first.cpu,
        rss=rss,
        series=[_point(first, *pair) for pair in pairwise(samples)],
    )


def _point(first: Sample, before: Sample, now: Sample) -> Point:
    jobs = max(1, now.jobs - before.jobs)
    return Point(
        at=now.time - first.time,
        rate=jobs / (now.time - before.time),
        cost=(now.cpu - before.cpu) / jobs * 1e6,
        rss=now.rss,
    )

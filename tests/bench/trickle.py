"""A hundred jobs a second: what a relay adds to the time that a job takes to its worker.

Three lanes side by side at the same time: a worker at the source itself, one behind the program,
one behind the bare relay. The bench is submitter and worker of all three in one thread, so that a
disturbance of the machine meets them alike.
"""

import selectors
import socket
import time
from collections.abc import Mapping
from typing import Final

from tests.bench.load import connect, submit
from tests.bench.measure import Ours, Reading, bare, cpu_seconds, servers
from tests.kit.packets import Decoder, Kind, Packet, encode

RATE: Final = 100.0
"""Jobs a second on each lane."""

WARMUP: Final = 1.0
"""Seconds whose jobs are not counted."""

LANES: Final = ("direct", "ours", "bare")


class Lane:
    """A queue's worker, which notes how long each job took to come."""

    def __init__(self, port: int, queue: bytes) -> None:
        self.socket = connect(port)
        self.decoder = Decoder()
        self.seconds: list[float] = []
        self.socket.sendall(encode(Kind.CAN_DO, queue) + encode(Kind.GRAB_JOB_UNIQ))

    def read(self, now: float) -> None:
        """Take what has come; the workload says when it was submitted."""
        out = b""
        for packet in self.decoder.feed(self.socket.recv(1 << 16)):
            out += self._answer(packet, now)
        if out:
            self.socket.sendall(out)

    def _answer(self, packet: Packet, now: float) -> bytes:
        if packet.kind is Kind.JOB_ASSIGN_UNIQ:
            self.seconds.append(now - float(packet.args[3]))
            return encode(Kind.WORK_COMPLETE, packet.args[0], b"") + encode(Kind.GRAB_JOB_UNIQ)
        if packet.kind is Kind.NO_JOB:
            return encode(Kind.PRE_SLEEP)
        return encode(Kind.GRAB_JOB_UNIQ)


def quantile(values: list[float], share: float) -> float:
    """Return the value that a share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def trickle(seconds: float) -> dict[str, Reading]:
    """Return a reading of each lane."""
    with (
        servers() as (source, target, ends),
        Ours()(ends, ["ours"]) as ours,
        bare(window=1)(ends, ["bare"]) as bare_pid,
    ):
        lanes = {
            name: Lane(source.port if name == "direct" else target.port, name.encode())
            for name in LANES
        }
        pids = {"ours": ours, "bare": bare_pid}
        _run(source.port, lanes, WARMUP)
        for lane in lanes.values():
            lane.seconds.clear()
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        _run(source.port, lanes, seconds)
        after = {name: cpu_seconds(pid) for name, pid in pids.items()}
    for lane in lanes.values():
        lane.socket.close()
    return {
        name: Reading(
            jobs=len(lane.seconds),
            seconds=seconds,
            cpu=after.get(name, 0.0) - before.get(name, 0.0),
            more={
                "p50_ms": quantile(lane.seconds, 0.5) * 1000,
                "p99_ms": quantile(lane.seconds, 0.99) * 1000,
            },
        )
        for name, lane in lanes.items()
    }


def _run(port: int, lanes: Mapping[str, Lane], seconds: float) -> None:
    """Submit at RATE on every lane in turn, and wait for all that is on its way."""
    turns = [name.encode() for name in lanes] * int(RATE * seconds)
    goal = {name: len(lane.seconds) + int(RATE * seconds) for name, lane in lanes.items()}
    with connect(port) as client, selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        for lane in lanes.values():
            selector.register(lane.socket, selectors.EVENT_READ, lane)
        start = time.monotonic()
        sent, period = 0, 1 / RATE / len(lanes)
        while any(len(lanes[name].seconds) < count for name, count in goal.items()):
            due = start + sent * period - time.monotonic()
            if sent < len(turns) and due <= 0:
                stamp = b"%.9f" % time.monotonic()
                client.sendall(submit(turns[sent], b"u%d" % sent, stamp))
                sent += 1
                continue
            assert due > -60, "the last jobs do not come"
            _read(client, selector, max(due, 0.0) if sent < len(turns) else 1.0)


def _read(client: socket.socket, selector: selectors.BaseSelector, wait: float) -> None:
    for key, _ in selector.select(wait):
        if isinstance(key.data, Lane):
            key.data.read(time.monotonic())
        else:
            client.recv(1 << 16)

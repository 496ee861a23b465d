"""A whole site: two job servers, a relay between them, traffic through it, and the ledger.

A scenario starts one, does harm to it from outside, and calls `finish`, which waits until all
is quiet and then compares what was submitted, what has arrived, and what the daemon says.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

from tests.chaos import sealed
from tests.chaos.tally import Tally
from tests.chaos.traffic import Caller, Feed, Sink
from tests.kit.eventually import eventually
from tests.kit.relay import EXIT_DEADLINE, ROOT, Record, config
from tests.kit.servers import Server
from tests.relay.forwarding import Addressed, CheckedRelay

WORKERS = 20  # of a synchronous forward
ENDED = ("confirmed", "dead_lettered", "dropped", "answered")
LATE = 60.0  # seconds until a relay that is well has brought everything home


@dataclass(frozen=True)
class Plan:
    """What one forward is to carry, and how. `outward` is from the near server to the far one."""

    name: str
    count: int
    outward: bool = True
    kind: Literal["plain", "sealed", "sync"] = "plain"
    window: int = 200
    ahead: int = 2000
    rate: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> Record:
        """Return the forward's options in the relay's configuration."""
        if self.kind == "sync":
            return {"async": False, "workers": WORKERS, **self.options}
        keys = {"decrypt": sealed.HERE, "encrypt": sealed.THERE} if self.kind == "sealed" else {}
        return {"window": self.window, **keys, **self.options}


class Lane:
    """One forward at work: who submits, who takes, and the tally between them."""

    def __init__(
        self, plan: Plan, servers: tuple[Server, Server], paths: Sequence[Addressed]
    ) -> None:
        here, there = (0, 1) if plan.outward else (1, 0)
        self.plan = plan
        self.source, self.target = servers[here], servers[there]
        self.there = f"{plan.name}-there"
        self.key = f"{paths[here].address}/{plan.name}"
        self.settings = {"remote_queue": f"{paths[there].address}/{self.there}", **plan.settings()}
        make = sealed.SealedTally if plan.kind == "sealed" else Tally
        self.tally = make(plan.name.encode(), plan.count)
        self.feed: Feed | None = None
        self.sinks: list[Sink] = []
        self.faults = 0  # that may each have cost the word on a window of jobs

    def begin(self, stack: ExitStack, taken: bool) -> None:
        """Begin to submit, not too far ahead of what is taken."""
        plan = self.plan
        if plan.kind == "sync":
            feed: Feed = Caller(self.source, self.tally, ahead=2 * WORKERS)
        else:
            ahead = plan.ahead if taken else plan.count
            feed = Feed(self.source, self.tally, ahead=ahead, rate=plan.rate)
        self.feed = stack.enter_context(feed)

    def take(self, stack: ExitStack) -> None:
        """Begin to take what arrives."""
        if not self.sinks:
            sink = Sink(self.target, self.tally, self.there.encode())
            self.sinks.append(stack.enter_context(sink))

    @property
    def may_repeat(self) -> int:
        """Jobs that may have arrived once more than they were submitted."""
        assert self.feed is not None
        window = WORKERS if self.plan.kind == "sync" else self.plan.window
        own = self.feed.resent + sum(sink.may_repeat for sink in self.sinks)
        return window * self.faults + own

    def queues(self) -> int:
        """Return how many jobs are at both ends, running or waiting."""
        here = self.source.admin.queue(self.plan.name).total
        return here + self.target.admin.queue(self.there).total

    def row(self) -> dict[str, object]:
        """Return this lane's line of the ledger."""
        assert self.feed is not None
        verdict = self.tally.verdict()
        return {"forward": self.plan.name, "kind": self.plan.kind, **verdict._asdict()} | {
            "allowed": self.may_repeat
        }


class Site:
    """Two servers, near and far, and a relay that reaches them by two paths.

    Without `taken` nobody takes jobs from the targets until the relay is done with its work, so
    that every repeat meets its first copy there.
    """

    def __init__(
        self,
        servers: tuple[Server, Server],
        paths: tuple[Addressed, Addressed],
        plans: Sequence[Plan],
        *,
        taken: bool = True,
        prefix: Sequence[str] = (),
    ) -> None:
        self.lanes = [Lane(plan, servers, paths) for plan in plans]
        self.servers = servers
        self.taken = taken
        self.relay = CheckedRelay(self.configuration())
        self.relay.prefix = prefix
        self.stack = ExitStack()
        self.earlier: dict[str, Counter[str]] = {}  # what lives that ended in order have counted
        self.kills = 0  # lives that took their counters with them

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.relay)
            for lane in self.lanes:
                lane.begin(stack, self.taken)
                if self.taken:
                    lane.take(stack)
            self.stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.__exit__(kind, error, trace)

    def configuration(self, **windows: int) -> Record:
        """Return the relay's configuration, with other windows for the lanes named."""
        queues = {
            lane.key: lane.settings
            | ({"window": windows[lane.plan.name]} if lane.plan.name in windows else {})
            for lane in self.lanes
        }
        return config(queues, drain=5)

    @property
    def arrived(self) -> int:
        """Jobs that have arrived at least once."""
        return sum(lane.tally.distinct for lane in self.lanes)

    def wait_progress(self, jobs: int = 500, deadline: float = LATE) -> None:
        """Wait until so many more jobs were accepted and, where they are taken, have arrived."""
        wanted = self._progress() + jobs
        self._eventually(lambda: self._progress() >= wanted, deadline)

    def _progress(self) -> int:
        if self.taken:
            return self.arrived
        waiting = (lane.target.admin.queue(lane.there).total for lane in self.lanes)
        return sum(waiting)

    # Faults. Each counts where it may have cost the word on a window of jobs.

    def strike(self, *servers: Server) -> None:
        """Count a fault of these servers, or of the paths to them; of the relay without any."""
        for lane in self.lanes:
            ends = (lane.source, lane.target)
            lane.faults += sum(each in ends for each in servers) if servers else 1

    def kill_relay(self) -> None:
        """SIGKILL, and a new start."""
        self.strike()
        self.kills += 1
        self.relay.kill()
        self.relay.restart()

    def term_relay(self) -> None:
        """SIGTERM, an end with 0 in time, and a new start."""
        self.stop_relay()
        self.relay.restart()

    def stop_relay(self, deadline: float = EXIT_DEADLINE) -> None:
        """SIGTERM and an end with 0 in time; what this life has counted is kept."""
        self.strike()
        mark = len(self.relay.records)
        self.relay.term()
        assert self.relay.wait(deadline) == 0, self.relay.records[-5:]
        for record in self.relay.events("forward_status", mark):
            self.earlier.setdefault(record["forward"], Counter()).update(record["counters"])

    # The end.

    def finish(self, deadline: float = LATE) -> list[Record]:
        """Wait until all is quiet, compare all accounts, and return the daemon's own."""
        self._eventually(lambda: all(lane.feed and lane.feed.done for lane in self.lanes), deadline)
        self._eventually(self._drained, deadline)
        for lane in self.lanes:
            lane.take(self.stack)
        self._eventually(lambda: all(lane.tally.complete for lane in self.lanes), deadline)
        self._eventually(lambda: not any(lane.queues() for lane in self.lanes), deadline)
        for lane in self.lanes:
            self._compare(lane)
        forwards: list[Record] = self._eventually(self._quiet, deadline)
        for lane in self.lanes:
            (status,) = [each for each in forwards if each["key"] == lane.key]
            self._compare_counters(lane, status)
        return forwards

    def status(self) -> Record:
        """Return what `gevproxy status --json` prints."""
        command = [sys.executable, "-m", "gevproxy", "status", "--json"]
        command += ["--socket", str(self.relay.control_socket)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        answer: Record = json.loads(done.stdout)
        return answer

    def _drained(self) -> bool:
        return not any(lane.source.admin.queue(lane.plan.name).total for lane in self.lanes)

    def _quiet(self) -> list[Record]:
        """Return the forwards when none has anything left to do."""
        forwards: list[Record] = self.status()["forwards"]
        busy = any(each["held"] or each["in_flight"] or each["reasons"] for each in forwards)
        return [] if busy else forwards

    def _compare(self, lane: Lane) -> None:
        """Hold what arrived against what was submitted."""
        verdict = lane.tally.verdict()
        assert not verdict.lost, self.table()
        assert not verdict.foreign, self.table()
        assert verdict.repeated <= lane.may_repeat, self.table()
        if not self.taken and lane.plan.kind != "sync":
            assert not verdict.repeated, self.table()
        assert not getattr(lane.feed, "wrong", 0), "answers for another's job"

    def _compare_counters(self, lane: Lane, status: Record) -> None:
        """Hold what the daemon counted against the ledger.

        An end that a source did not hear of comes twice, and so does a job that its user has
        submitted twice. Where such a job meets its first copy at a target that has been away
        meanwhile, the relay cannot know that and does not count it as coalesced.
        """
        assert status["unaccounted"] == 0, status
        assert lane.feed is not None
        counters = Counter(status["counters"]) + self.earlier.get(lane.key, Counter())
        ended = sum(counters[name] for name in ENDED)
        where = f"{lane.plan.name}: {counters}"
        assert counters["received"] == ended + counters["given_back"] + status["held"], where
        if self.kills:
            return
        assert lane.plan.count <= ended, where
        assert ended <= lane.plan.count + lane.may_repeat, where
        if lane.plan.kind != "sync":
            created = lane.tally.total + counters["coalesced"] + lane.may_repeat
            assert counters["confirmed"] <= created, where

    def table(self) -> str:
        """Return the ledger, a line for each forward."""
        rows = [lane.row() for lane in self.lanes]
        lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )
        return "\n".join(padded)

    def _eventually(self, condition: Callable[[], Any], deadline: float) -> Any:  # noqa: ANN401
        try:
            return eventually(condition, deadline, 0.05)
        except AssertionError as error:
            seen = {server.address: server.admin.status() for server in self.servers}
            reasons = [(each["key"], each["reasons"]) for each in self.status()["forwards"]]
            raise AssertionError(f"{error}\n{self.table()}\n{seen}\n{reasons}") from None

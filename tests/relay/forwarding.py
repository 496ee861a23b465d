"""One relay with its forwards, and what every one of these tests asks of it."""

from datetime import datetime
from typing import Any, Protocol

from tests.kit.admin import QueueStatus
from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Job, Seen, drain, seen
from tests.kit.relay import Record, Relay, config
from tests.kit.scripted import ScriptedServer
from tests.kit.servers import Server

HERE = b"here"  # the queue at the source
THERE = b"there"  # the queue at the target
NEVER_WRITTEN = {"accounting", "forward_crashed", "daemon_crashed", "foreign"}
SPOKEN_AT_A_SOURCE = {
    Kind.GET_STATUS,
    Kind.SET_CLIENT_ID,
    Kind.CAN_DO,
    Kind.GRAB_JOB_UNIQ,
    Kind.PRE_SLEEP,
    Kind.WORK_COMPLETE,
}


class Addressed(Protocol):
    """A job server, a scripted one, or a pipe to one."""

    @property
    def address(self) -> str:
        """Return host:port."""


class CheckedRelay(Relay):
    """A relay whose accounts must be balanced whenever they are shown, and nothing may crash."""

    crashes = False  # whether a forward has leave to crash

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        super().__exit__(kind, *rest)
        if kind is None:
            self.assert_accounts()

    def assert_accounts(self) -> None:
        """Fail where a job is unaccounted for, or something went wrong that never may."""
        for record in self.events("forward_status"):
            assert record["unaccounted"] == 0, record
        for event in NEVER_WRITTEN - ({"forward_crashed"} if self.crashes else set()):
            assert not self.events(event), self.events(event)

    def only_stats(self) -> Record:
        """Return the status of the only forward."""
        (status,) = self.stats().values()
        return status

    def wait_counter(self, name: str, value: int, deadline: float = 10.0) -> None:
        """Wait until a counter of the only forward has at least this value."""
        eventually(lambda: self.only_stats()["counters"][name] >= value, deadline, 0.1, what=name)

    def wait_reason(self, reason: str, deadline: float = 10.0) -> None:
        """Wait until the only forward gives a reason that begins like this."""
        eventually(
            lambda: any(each.startswith(reason) for each in self.only_stats()["reasons"]),
            deadline,
            0.1,
            what=f"reason {reason}",
        )


def forward(source: Addressed, target: Addressed, **options: Any) -> Record:  # noqa: ANN401 - JSON
    """Return the `queues` of one forward from `here` to `there`."""
    key = f"{source.address}/{HERE.decode()}"
    return {key: {"remote_queue": f"{target.address}/{THERE.decode()}", **options}}


def relay(source: Addressed, target: Addressed, **options: Any) -> CheckedRelay:  # noqa: ANN401
    """Return a relay with one forward; `drain` and `max_packet` go to the top level."""
    top = {name: options.pop(name) for name in ("drain", "max_packet") if name in options}
    return CheckedRelay(config(forward(source, target, **options), **top))


def seconds_between(earlier: Record, later: Record) -> float:
    """Return the distance of two records by their own times."""
    return time_of(later) - time_of(earlier)


def time_of(record: Record) -> float:
    """Return a record's time as time.time() counts."""
    return datetime.fromisoformat(record["time"]).timestamp()


def wait_queue(server: Server, deadline: float = 30.0, **counts: int) -> None:
    """Wait until a source's queue shows these counts (total, running, workers)."""

    def shown() -> QueueStatus:
        return server.admin.queue(HERE.decode())

    try:
        eventually(lambda: shown()._asdict().items() >= counts.items(), deadline)
    except AssertionError:
        raise AssertionError(f"not {counts} within {deadline} s, but {shown()}") from None


def left_at(server: Server, queue: bytes = HERE) -> list[Seen]:
    """Take what a server still has in a queue."""
    return drain(server.port, queue, server.admin.queue(queue.decode()).total)


def wait_submitted(server: ScriptedServer, count: int, deadline: float = 10.0) -> None:
    """Wait until a scripted target has confirmed so many jobs."""
    eventually(
        lambda: len(server.submitted) >= count,
        deadline,
        what=f"{count} jobs at the target",
    )


def wait_asleep(server: ScriptedServer) -> None:
    """Wait until a worker sleeps at a scripted source."""
    eventually(lambda: any(peer.asleep for peer in server.peers), what="PRE_SLEEP")


def arrived_at(server: ScriptedServer) -> list[Seen]:
    """Return what a scripted target has taken."""
    return [seen(job) for job in server.submitted]


def submits_at(server: ScriptedServer) -> list[Job]:
    """Return what was submitted to a scripted target, confirmed or not, in order."""
    return [Job(*args) for kind, args in list(server.received) if kind is Kind.SUBMIT_JOB_BG]


def grabs_at(server: ScriptedServer) -> int:
    """Return how many grabs a scripted source has seen on all connections."""
    return sum(kind is Kind.GRAB_JOB_UNIQ for kind, _ in list(server.received))

"""What a queue on disk adds at gearmand, and what it does not: libsqlite3 of Debian's build."""

from collections.abc import Iterator

import pytest

from tests.facts.steps import create, grab_many, open_worker, settle, take
from tests.kit.packets import Connection, Kind
from tests.kit.servers import PersistentGearmand

COUNT = 3


@pytest.fixture
def persistent(has_gearmand: None) -> Iterator[PersistentGearmand]:  # noqa: ARG001 - asked for its check
    """Give a running gearmand with a queue on disk."""
    with PersistentGearmand() as server:
        yield server


def fill(server: PersistentGearmand, uniques: list[bytes]) -> None:
    """Submit jobs with these uniques, each with a workload of its own."""
    with Connection(server.port) as client:
        for number, unique in enumerate(uniques):
            create(client, b"q", unique, b"%d" % number)


def survivors(server: PersistentGearmand) -> list[bytes]:
    """Return the workloads that a queue gives."""
    count = server.admin.queue("q").total
    with open_worker(server.port, b"q") as worker:
        return [packet.args[3] for packet in grab_many(worker, count)]


def test_jobs_with_uniques_survive_a_kill_those_under_way_too(
    persistent: PersistentGearmand,
) -> None:
    """A target that has confirmed keeps what it confirmed."""
    fill(persistent, [b"u%d" % number for number in range(COUNT)])
    with open_worker(persistent.port, b"q") as worker:
        take(worker)
        persistent.kill()
    persistent.start()
    assert sorted(survivors(persistent)) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("unique", [b"", b"-"])
def test_of_jobs_without_a_unique_the_last_alone_survives(
    persistent: PersistentGearmand, unique: bytes
) -> None:
    """Queue and unique are a row's key, as they were submitted: `-` is one unique, too."""
    fill(persistent, [unique] * COUNT)
    assert persistent.admin.queue("q").total == COUNT
    persistent.kill()
    persistent.start()
    assert survivors(persistent) == [b"2"]


def test_the_end_of_one_job_without_a_unique_takes_the_rest_off_the_disk(
    persistent: PersistentGearmand,
) -> None:
    """They are still in memory then, and gone with the process."""
    fill(persistent, [b""] * COUNT)
    with open_worker(persistent.port, b"q") as worker:
        worker.send(Kind.WORK_COMPLETE, take(worker), b"")
        settle(worker)
    assert persistent.admin.queue("q").total == COUNT - 1
    persistent.kill()
    persistent.start()
    assert persistent.admin.queue("q").total == 0


def test_a_foreground_job_is_not_kept(persistent: PersistentGearmand) -> None:
    """Whoever waits for it hears that the connection is gone, and may ask again."""
    with Connection(persistent.port) as client:
        create(client, b"q", b"u", b"w", kind=Kind.SUBMIT_JOB)
        assert persistent.admin.queue("q").total == 1
        persistent.kill()
    persistent.start()
    assert persistent.admin.queue("q").total == 0

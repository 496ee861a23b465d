"""A disk for dead letters that is full or does not answer: the forward blocks and loses nothing."""

import contextlib
import fcntl
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dead_letters.letters import written
from tests.kit import disks
from tests.kit.eventually import eventually
from tests.kit.means import lack
from tests.kit.peers import Job, seen, submit
from tests.kit.scripted import ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.forwarding import (
    HERE,
    CheckedRelay,
    arrived_at,
    left_at,
    relay,
    wait_queue,
    wait_submitted,
)
from tests.relay.ledger import Ledger

LETTERS = 10  # refusals in a row that may each end a job
CAP = 256 << 20  # bytes of all letters together
GOOD = b"dHlwZT1nb29k"  # base64 of a text that begins with type=


def bad(count: int) -> list[Job]:
    """Return jobs that no stage likes."""
    return [Job(HERE, b"bad-%d" % number, b"*no base64* %d" % number) for number in range(count)]


def good(count: int, name: bytes = b"good") -> list[Job]:
    """Return jobs that pass."""
    return [Job(HERE, name + b"-%d" % number, GOOD) for number in range(count)]


def staged(source: Gearmand, target: ScriptedServer) -> CheckedRelay:
    """Return a relay whose forward refuses what is no base64."""
    return relay(source, target, rewrite=[{"pattern": "nowhere", "replace": ""}])


def buried(folder: Path) -> list[Job]:
    """Return the jobs in the dead letters."""
    return [Job(HERE, letter.unique, letter.payload) for letter in written(folder)]


Disk = tuple[Path, Callable[[], None]]  # a folder, and what mends its disk


@contextlib.contextmanager
def full_of_letters(proxy: CheckedRelay) -> Iterator[Disk]:
    """Run a relay whose dead letters have reached their limit."""
    old = proxy.state_folder / "dead-letters.20260101T000000.000000Z.jsonl"
    with old.open("wb") as file:
        file.truncate(CAP)
    with proxy:
        yield proxy.state_folder, old.unlink


@contextlib.contextmanager
def full_disk(proxy: CheckedRelay) -> Iterator[Disk]:
    """Run a relay whose disk has no room left."""
    if lacking := disks.lacking():
        shutil.rmtree(proxy.folder)
        lack(lacking)
    disks.use_memory(proxy, 65536)
    with proxy:
        proxy.wait_event("target_up")
        folder = disks.seen_from_outside(proxy)
        yield folder, disks.fill(folder).unlink


def hasten(proxy: CheckedRelay) -> None:
    """Let a blocked forward come back at once, when it has left its source."""
    eventually(lambda: not proxy.only_stats()["held"], 30.0, 0.1, what="a source that is left")
    proxy.hup()


@pytest.mark.parametrize("fault", [full_of_letters, full_disk])
def test_a_full_disk_blocks_until_it_is_mended(
    gearmand_a: Gearmand,
    fault: Callable[[CheckedRelay], contextlib.AbstractContextManager[Disk]],
) -> None:
    """No job is ended meanwhile; then the letters are written, and the forward goes on."""
    ledger = Ledger()
    with ScriptedServer() as target, fault(proxy := staged(gearmand_a, target)) as (folder, mend):
        submit(gearmand_a.port, ledger.book(bad(5)))
        record = proxy.wait_event("forward_blocked")
        assert "dead letters" in record["message"]
        for blocks in (2, 3):  # and no comeback hides the reason
            hasten(proxy)
            proxy.wait_counter("blocks", blocks, 30.0)
            (reason,) = proxy.only_stats()["reasons"]
            assert reason == f"blocked: {record['message']}"
        wait_queue(gearmand_a, total=5, running=0, workers=0)
        counters = proxy.only_stats()["counters"]
        assert (counters["dead_lettered"], counters["received"]) == (0, counters["given_back"])
        mend()
        hasten(proxy)
        proxy.wait_counter("dead_lettered", 5, 30.0)
        proxy.wait_event("forward_unblocked")
        submit(gearmand_a.port, ledger.book(good(20)))
        wait_submitted(target, 20)
        wait_queue(gearmand_a, total=0, workers=1)
        assert proxy.only_stats()["reasons"] == []
        ledger.assert_exact(arrived_at(target), map(seen, buried(folder)))


def test_a_wrong_key_on_a_full_disk_makes_ten_letters_once_there_is_room(
    gearmand_a: Gearmand,
) -> None:
    """Letters that could not be written do not count; each reason shows in its turn."""
    ledger = Ledger()
    submit(gearmand_a.port, ledger.book(bad(25)))
    with (
        ScriptedServer() as target,
        full_of_letters(proxy := staged(gearmand_a, target)) as (folder, mend),
    ):
        proxy.wait_reason("blocked: the dead letters in")
        proxy.wait_counter("blocks", 2, 30.0)
        mend()
        hasten(proxy)
        proxy.wait_reason("blocked: stage", 30.0)
        proxy.wait_counter("dead_lettered", LETTERS)
        wait_queue(gearmand_a, total=25 - LETTERS, running=0, workers=0)
        assert not any("dead letters" in reason for reason in proxy.only_stats()["reasons"])
        ledger.assert_exact(map(seen, buried(folder)), left_at(gearmand_a))


@contextlib.contextmanager
def locked(proxy: CheckedRelay) -> Iterator[Disk]:
    """Run a relay while somebody holds the lock of its dead letters and does not let go."""
    with (proxy.state_folder / "dead-letters.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with proxy:
            yield proxy.state_folder, lambda: fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def frozen(proxy: CheckedRelay) -> Iterator[Disk]:
    """Run a relay whose disk answers nobody who writes."""
    lacking = disks.lacking() or disks.use_image(proxy, proxy.folder / "image")
    if lacking:
        shutil.rmtree(proxy.folder)
        pytest.skip(lacking)
    with contextlib.ExitStack() as freezing, proxy:
        proxy.wait_event("target_up")
        folder = disks.seen_from_outside(proxy)
        freezing.enter_context(disks.frozen(folder))
        yield folder, freezing.close


@pytest.mark.parametrize("fault", [locked, frozen])
def test_a_disk_that_does_not_answer_blocks_until_it_does(
    gearmand_a: Gearmand,
    fault: Callable[[CheckedRelay], contextlib.AbstractContextManager[Disk]],
) -> None:
    """Good jobs pass until that is certain; then no more are taken, and all comes once."""
    ledger = Ledger()
    with ScriptedServer() as target, fault(proxy := staged(gearmand_a, target)) as (folder, mend):
        submit(gearmand_a.port, ledger.book([*bad(3), *good(20)]))
        wait_submitted(target, 20)
        proxy.wait_reason("blocked: dead letters: the disk does not answer", 30.0)
        proxy.wait_event("forward_blocked", message="dead letters: the disk does not answer")
        submit(gearmand_a.port, ledger.book(good(20, b"later")))
        wait_queue(gearmand_a, total=23, running=3)
        status = proxy.only_stats()
        assert (status["held"], status["in_flight"], status["counters"]["blocks"]) == (3, 0, 1)
        assert status["not_running"] > 0
        mend()
        wait_submitted(target, 40)
        proxy.wait_event("forward_unblocked")
        proxy.wait_counter("dead_lettered", 3)
        wait_queue(gearmand_a, total=0, workers=1)
        assert proxy.only_stats()["reasons"] == []
        ledger.assert_exact(arrived_at(target), map(seen, buried(folder)))

"""Bad jobs in front of good ones hold them up, but not for ever: row 13.

A blocked forward comes back every 5 s; a reload hastens that, and so these tests.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.dead_letters.letters import written
from tests.kit.eventually import eventually
from tests.kit.packets import Kind
from tests.kit.peers import Job, Producer, numbered, seen, submit
from tests.kit.scripted import Refuses, ScriptedServer
from tests.kit.servers import Gearmand
from tests.relay.forwarding import HERE, CheckedRelay, arrived_at, left_at, relay, seconds_between
from tests.relay.ledger import Ledger

LETTERS = 10  # refusals in a row that may each end a job
COMEBACK = 5.0  # seconds from a block to the next attempt, which a reload hastens
GOOD = b"dHlwZT1nb29k"  # base64 of a text that begins with type=


def bad(count: int) -> list[Job]:
    """Return jobs that no stage and no target likes."""
    return [Job(HERE, b"bad-%d" % number, b"*no base64* %d" % number) for number in range(count)]


def good(count: int) -> list[Job]:
    """Return jobs that pass."""
    return [Job(HERE, b"good-%d" % number, GOOD) for number in range(count)]


def by_stages(source: Gearmand, target: ScriptedServer) -> CheckedRelay:
    """Return a relay whose forward refuses what is no base64 before it is sent."""
    return relay(source, target, rewrite=[{"pattern": "nowhere", "replace": ""}])


def by_target(source: Gearmand, target: ScriptedServer) -> CheckedRelay:
    """Return a relay whose target has to refuse."""
    return relay(source, target)


def refusing() -> AbstractContextManager[ScriptedServer]:
    """Return a target that takes no bad job."""
    return Refuses(lambda job: job.unique.startswith(b"bad"), b"BAD_JOB")


def uniques(proxy: CheckedRelay) -> set[bytes]:
    """Return the uniques of all dead letters."""
    return {letter.unique for letter in written(proxy.state_folder)}


def submit_high(source: Gearmand, jobs: list[Job]) -> None:
    """Submit jobs that the source hands out before all others, whenever they come back."""
    with Producer(source.port, jobs, kind=Kind.SUBMIT_JOB_HIGH_BG) as producer:
        producer.join()


def hasten(proxy: CheckedRelay, condition: Callable[[], object], rounds: int = 15) -> None:
    """Reload whenever the forward has left its source, until a condition holds.

    Twenty times a minute that is written; then it is summed up.
    """
    for _ in range(rounds):
        known = len(proxy.events("source_left"))
        left = eventually(
            lambda known=known: condition() or len(proxy.events("source_left")) > known,  # type: ignore[misc]
            30,
            what="a forward that leaves its source, or goes on",
        )
        if condition():
            return
        assert left
        proxy.hup()
    raise AssertionError(f"not within {rounds} comebacks: {proxy.records[-5:]}")


@pytest.mark.parametrize("refuses", [by_stages, by_target])
def test_bad_jobs_of_a_high_priority_hold_good_ones_up_but_not_for_ever(
    gearmand_a: Gearmand, refuses: Callable[[Gearmand, ScriptedServer], CheckedRelay]
) -> None:
    """Given back, they are the first to come again; no letter beyond the ten until one passes."""
    ledger = Ledger()
    submit_high(gearmand_a, list(ledger.book(bad(30))))
    with refusing() as target, refuses(gearmand_a, target) as proxy:
        proxy.wait_event("source_left")
        submit(gearmand_a.port, ledger.book(good(50)))
        most = 0  # letters while it was blocked

        def unblocked() -> bool:
            nonlocal most
            count = len(uniques(proxy))
            if proxy.events("forward_unblocked"):
                return True
            most = max(most, count)
            return False

        hasten(proxy, unblocked)
        assert most == LETTERS
        hasten(proxy, lambda: len(target.submitted) == 50)
        hasten(proxy, lambda: len(uniques(proxy)) == 30)
        proxy.wait_counter("dead_lettered", 30)
        buried = [each for each in bad(30) if each.unique in uniques(proxy)]
        ledger.assert_exact(arrived_at(target), map(seen, buried), left_at(gearmand_a))
        status = proxy.only_stats()
        assert status["reasons"] == []
        assert status["held"] == 0


def test_two_hundred_bad_jobs_in_a_row_hold_the_good_ones_up_but_not_for_ever(
    gearmand_a: Gearmand,
) -> None:
    """Of one priority: those that were given back are at the tail, behind the good ones."""
    ledger = Ledger()
    submit(gearmand_a.port, ledger.book([*bad(200), *good(20)]))
    with refusing() as target, by_stages(gearmand_a, target) as proxy:
        proxy.wait_event("source_left")
        hasten(proxy, lambda: len(target.submitted) == 20)
        proxy.wait_event("forward_unblocked")
        proxy.term()
        assert proxy.wait() == 0
        # What is left on the disk and at the source does not change any more.
        buried = [each for each in bad(200) if each.unique in uniques(proxy)]
        assert LETTERS <= len(buried) < 200
        ledger.assert_exact(arrived_at(target), map(seen, buried), left_at(gearmand_a))


def test_a_reload_hastens_the_comeback(gearmand_a: Gearmand) -> None:
    """What blocked may be mended by it. The quickest of some rounds is what counts."""
    submit(gearmand_a.port, bad(LETTERS + 1))
    with refusing() as target, by_stages(gearmand_a, target) as proxy:

        def quickest_return() -> float:
            known = len(proxy.events("source_up"))
            left = proxy.wait_event("source_left", since=proxy.records.index(mark))
            proxy.hup()
            eventually(lambda: len(proxy.events("source_up")) > known, 30)
            return seconds_between(left, proxy.events("source_up")[known])

        mark = proxy.wait_event("forward_blocked")
        best = COMEBACK
        for _ in range(10):
            best = min(best, quickest_return())
            if best < COMEBACK - 1:
                break
            mark = proxy.events("source_up")[-1]
        assert best < COMEBACK - 1


def test_a_job_too_large_to_be_read_in_front_holds_good_ones_up_but_not_for_ever(
    gearmand_a: Gearmand,
) -> None:
    """It has a high priority and can never pass; the good ones pass beside it."""
    ledger = Ledger()
    large = Job(HERE, b"large", bytes(200_000))
    submit_high(gearmand_a, list(ledger.book([large])))
    submit(gearmand_a.port, ledger.book(numbered(HERE, 50)))
    with refusing() as target, relay(gearmand_a, target, max_packet=100_000) as proxy:
        proxy.wait_event("source_left")
        hasten(proxy, lambda: len(target.submitted) == 50)
        proxy.term()
        assert proxy.wait() == 0
        ledger.assert_exact(arrived_at(target), left_at(gearmand_a))


DROPS = """
import gevproxy

def change(data, job):
    if data == b"bad":
        raise ValueError
    return gevproxy.DROP
"""


def test_jobs_that_a_callback_drops_end_a_block_by_the_stages(
    gearmand_a: Gearmand, tmp_path: Path
) -> None:
    """They went through all stages that there are; nothing else of this queue ever passes."""
    callback = tmp_path / "callback.py"
    callback.write_text(DROPS)
    options = {"payload": "raw", "data_callback": f"{callback}:change"}
    with ScriptedServer() as target, relay(gearmand_a, target, **options) as proxy:
        submit(gearmand_a.port, [Job(HERE, b"bad-%d" % n, b"bad") for n in range(LETTERS + 1)])
        proxy.wait_event("forward_blocked")
        submit(gearmand_a.port, [Job(HERE, b"good-%d" % n, b"good") for n in range(500)])
        proxy.wait_event("forward_unblocked", 30.0)
        proxy.wait_counter("dropped", 500)
        proxy.wait_counter("dead_lettered", LETTERS + 1)
        assert proxy.only_stats()["reasons"] == []

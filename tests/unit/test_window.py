"""The jobs that are held: identity, order, and the bytes of tombstones."""

from gevproxy.gearman.job import Handle, Job
from gevproxy.window import Held, Window


def held(size: int = 100) -> Held:
    """Return a job; all of them are equal by value, as after a restart of gearmand."""
    job = Job(Handle(b"H:a:1"), b"q", b"u", bytes(size))
    return Held(job, job.unique, job.workload)


def test_jobs_that_are_equal_are_not_the_same() -> None:
    window = Window()
    first, second = held(), held()
    window.hold(first)
    window.hold(second)
    assert len(window) == 2
    assert window.settle(first)
    assert second in window
    assert first not in window


def test_both_payloads_count() -> None:
    job = Job(Handle(b"H:a:1"), b"q", b"u", bytes(100))
    assert Held(job, b"u", job.workload).size == 100
    assert Held(job, b"u", bytes(30)).size == 130


def test_a_tombstone_counts_in_bytes_until_it_is_settled() -> None:
    window = Window()
    sent, unsent = held(), held(50)
    window.hold(sent)
    window.hold(unsent)
    window.unsent.popleft().sent = True
    assert window.give_back() == 2
    assert (len(window), window.bytes, list(window.unsent)) == (0, 100, [])
    assert not window.settle(sent)
    assert window.bytes == 0


def test_resend_keeps_the_order_and_forgets_tombstones() -> None:
    window = Window()
    tombstone = held()
    window.hold(tombstone)
    window.unsent.popleft().sent = True
    window.give_back()
    jobs = [held(n) for n in range(1, 4)]
    for job in jobs:
        window.hold(job)
    for _ in range(2):
        window.unsent.popleft().sent = True
    assert window.resend() == 2
    assert list(window.unsent) == jobs
    assert window.bytes == 1 + 2 + 3


def test_drop_leaves_a_tombstone_only_of_what_was_sent() -> None:
    window = Window()
    sent, unsent = held(), held(50)
    window.hold(sent)
    window.hold(unsent)
    window.unsent.popleft().sent = True
    window.drop(unsent)
    assert (window.bytes, list(window.unsent)) == (100, [])
    window.drop(sent)
    assert (len(window), window.bytes) == (0, 100)
    assert not window.settle(sent)
    assert window.bytes == 0

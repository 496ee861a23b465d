"""The jobs that are held: identity, order, and the bytes of tombstones."""

from gevproxy.gearman.job import Handle, Job
from gevproxy.window import OVERHEAD, Dated, Held, Window


def held(payload: int = 100) -> Held:
    """Return a job; all of them are equal by value, as after a restart of gearmand."""
    job = Job(Handle(b"H:a:1"), b"q", b"u", bytes(payload))
    return Held(job, job.unique, job.workload)


def size(*payloads: int) -> int:
    """Return what jobs with payloads of these sizes count."""
    return sum(OVERHEAD + payload for payload in payloads)


def test_jobs_that_are_equal_are_not_the_same() -> None:
    window = Window()
    first, second = held(), held()
    window.hold([first])
    window.hold([second])
    assert len(window) == 2
    assert window.settle(first)
    assert second in window
    assert first not in window


def test_both_payloads_count() -> None:
    job = Job(Handle(b"H:a:1"), b"q", b"u", bytes(100))
    assert Held(job, b"u", job.workload).size == size(100)
    assert Held(job, b"u", bytes(30)).size == size(130)


def test_a_tombstone_counts_in_bytes_until_it_is_settled() -> None:
    window = Window()
    sent, unsent = held(), held(50)
    window.hold([sent])
    window.hold([unsent])
    window.send(1)
    assert window.give_back() == 2
    assert (len(window), window.bytes, list(window.unsent)) == (0, size(100), [])
    assert not window.settle(sent)
    assert window.bytes == 0


def test_resend_keeps_the_order_and_forgets_tombstones() -> None:
    window = Window()
    tombstone = held()
    window.hold([tombstone])
    window.send(1)
    window.give_back()
    jobs = [held(n) for n in range(1, 4)]
    for job in jobs:
        window.hold([job])
    for _ in range(2):
        window.send(1)
    assert window.resend() == 2
    assert list(window.unsent) == jobs
    assert window.bytes == size(1, 2, 3)


def test_drop_leaves_a_tombstone_only_of_what_was_sent() -> None:
    window = Window()
    sent, unsent = held(), held(50)
    window.hold([sent])
    window.hold([unsent])
    window.send(1)
    window.drop(unsent)
    assert (window.bytes, list(window.unsent)) == (size(100), [])
    window.drop(sent)
    assert (len(window), window.bytes) == (0, size(100))
    assert not window.settle(sent)
    assert window.bytes == 0


def test_a_parked_job_is_held_and_never_sent_again() -> None:
    window = Window()
    refused, other = held(), held(50)
    window.hold([refused])
    window.hold([other])
    for _ in range(2):
        window.send(1)
    window.park(refused)
    assert window.resend() == 1
    assert list(window.unsent) == [other]
    assert (len(window), window.bytes) == (2, size(100, 50))
    assert window.settle(refused)
    assert window.bytes == size(50)


def test_a_parked_job_leaves_no_tombstone() -> None:
    window = Window()
    window.park(held())
    assert window.bytes == size(100)
    assert window.give_back() == 1
    assert window.bytes == 0


def test_what_is_late_is_parked_and_the_rest_stays_in_order() -> None:
    window = Window()
    names = [Job(Handle(b"h%d" % n), b"q", b"", b"w") for n in range(4)]
    jobs: list[Held] = [Dated(job, b"", b"w", 0.0, 5.0) for job in names]
    jobs[1:3] = [Held(names[1], b"", b"w"), Dated(names[2], b"", b"w", 0.0, 7.0)]
    window.hold(jobs)
    size = window.bytes
    assert window.late(4.9) == []
    assert window.late(5.0) == [jobs[0], jobs[3]]
    assert list(window.unsent) == jobs[1:3]
    assert (window.bytes, len(window)) == (size, 4)
    assert window.late(6.0) == []
    assert all(window.settle(held) for held in jobs[:1])
    assert window.resend() == 0
    assert list(window.unsent) == jobs[1:3]

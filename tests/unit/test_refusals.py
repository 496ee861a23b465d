"""Refusals in a row, and the probes of a full queue."""

from random import Random

from gevproxy.refusals import MAX_FAILURES, FullQueue, Row


def test_ten_in_a_row_may_end_and_the_eleventh_may_not() -> None:
    row = Row()
    assert [row.may_end() for _ in range(MAX_FAILURES + 2)] == [True] * MAX_FAILURES + [False] * 2
    assert row.full
    assert row.length == MAX_FAILURES


def test_a_job_that_is_not_refused_begins_a_new_row() -> None:
    row = Row()
    for _ in range(MAX_FAILURES):
        row.may_end()
    row.broken()
    assert row.may_end()


def test_a_job_that_could_not_be_ended_does_not_count() -> None:
    row = Row()
    for _ in range(MAX_FAILURES):
        row.may_end()
    row.not_ended()
    assert not row.full
    assert (row.may_end(), row.may_end()) == (True, False)
    row.broken()
    row.not_ended()
    assert row.length == 0


def test_a_full_queue_is_probed_once_after_each_answer_and_later_each_time() -> None:
    queue = FullQueue(Random(1))
    assert queue.answered(0.0) is None
    assert queue.refused()
    assert not queue.refused()
    waits = []
    now = 0.0
    for _ in range(8):
        assert not queue.probe(now)  # its answers are still to come
        wait = queue.answered(now)
        assert wait is not None
        assert queue.answered(now) is None
        assert not queue.probe(now + wait * 0.99)
        now += wait
        assert queue.probe(now)
        assert not queue.probe(now)
        assert not queue.refused()
        waits.append(wait)
    assert 0.1 <= waits[0] <= 0.2
    assert max(waits) <= 5.0
    assert waits[4] > waits[0]


def test_a_queue_that_is_full_again_is_news_and_waits_briefly() -> None:
    queue = FullQueue(Random(1))
    for _ in range(6):
        queue.refused()
        queue.answered(0.0)
    queue.full = False
    assert queue.refused()
    wait = queue.answered(0.0)
    assert wait is not None
    assert wait <= 0.2

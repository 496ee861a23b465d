"""Refusals in a row, blocks and comebacks, and the probes of a full queue."""

from random import Random

import pytest

from gevproxy.refusals import COMEBACK_AFTER, MAX_FAILURES, FullQueue, Refusals


@pytest.mark.parametrize("count", ["stage_failed", "target_refused", "answer_refused"])
def test_ten_in_a_row_may_end_and_the_eleventh_may_not(count: str) -> None:
    refusals = Refusals()
    may_end = [getattr(refusals, count)() for _ in range(MAX_FAILURES + 2)]
    assert may_end == [True] * MAX_FAILURES + [False] * 2


def test_a_job_that_passes_ends_the_row_of_its_own_kind_alone() -> None:
    refusals = Refusals()
    for _ in range(MAX_FAILURES):
        refusals.stage_failed()
        refusals.target_refused()
    refusals.stages_passed()
    assert refusals.stage_failed()
    assert not refusals.target_refused()
    assert not refusals.target_took()  # there was no block to end
    assert refusals.target_refused()


def test_a_block_is_ended_by_the_one_job_of_a_comeback() -> None:
    refusals = Refusals()
    refusals.block("why", 100.0)
    assert (refusals.blocked, refusals.closed) == ("why", True)
    assert not refusals.target_took()  # of a job sent before the block
    assert refusals.closed
    refusals.come_back(100.0 + COMEBACK_AFTER - 0.1)
    assert refusals.closed
    refusals.come_back(100.0 + COMEBACK_AFTER)
    assert (refusals.comeback, refusals.closed) == (True, False)
    assert refusals.target_took()
    assert (refusals.blocked, refusals.comeback, refusals.closed) == ("", False, False)


def test_an_answer_ends_a_block_that_answers_made_and_no_other() -> None:
    refusals = Refusals()
    refusals.block("the target refuses", 0.0)
    refusals.come_back(COMEBACK_AFTER)
    assert not refusals.answer_taken()
    assert refusals.comeback
    assert not refusals.answer_refused()
    refusals.block("the source refuses", 10.0)
    assert not refusals.answer_taken()  # of a check answered before the block
    may_end = [refusals.answer_refused() for _ in range(MAX_FAILURES + 1)]
    assert may_end == [True] * MAX_FAILURES + [False]
    refusals.come_back(10.0 + COMEBACK_AFTER)
    assert refusals.answer_taken()
    assert (refusals.blocked, refusals.comeback, refusals.closed) == ("", False, False)


def test_the_first_refusal_of_a_comeback_may_not_end_its_job() -> None:
    refusals = Refusals()
    refusals.block("why", 0.0)
    refusals.hasten(1.0)
    refusals.come_back(1.0)
    assert refusals.comeback
    assert not refusals.stage_failed()
    refusals.block("again", 1.0)
    assert (refusals.blocked, refusals.closed, refusals.comeback) == ("again", True, False)


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

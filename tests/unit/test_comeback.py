"""When a blocked forward comes back, and for how many jobs."""

from gevproxy.comeback import COMEBACK_AFTER, FIRST_BATCH, Comeback


def batches(comeback: Comeback, count: int, now: float) -> tuple[list[int], float]:
    """Let so many comebacks fail; return their sizes and the time."""
    sizes = []
    for _ in range(count):
        now += COMEBACK_AFTER
        assert comeback.begin(now)
        sizes.append(comeback.batch)
        comeback.wait(now, again=True)
    return sizes, now


def test_it_comes_back_after_its_time_and_not_before() -> None:
    comeback = Comeback(1000)
    comeback.wait(100.0, again=False)
    assert not comeback.begin(100.0 + COMEBACK_AFTER - 0.1)
    assert not comeback.on
    assert comeback.begin(100.0 + COMEBACK_AFTER)
    assert (comeback.on, comeback.batch) == (True, FIRST_BATCH)


def test_it_comes_back_at_once_where_the_cause_may_be_mended() -> None:
    comeback = Comeback(1000)
    comeback.wait(100.0, again=False)
    comeback.hasten(101.0)
    assert comeback.begin(101.0)


def test_each_batch_is_twice_the_one_before_up_to_the_window_and_then_anew() -> None:
    comeback = Comeback(10)
    comeback.wait(0.0, again=False)
    assert batches(comeback, 7, 0.0)[0] == [2, 4, 8, 10, 2, 4, 8]


def test_a_window_of_one_job_is_never_exceeded() -> None:
    comeback = Comeback(1)
    comeback.wait(0.0, again=False)
    assert batches(comeback, 3, 0.0)[0] == [1, 1, 1]


def test_a_block_that_returns_at_once_goes_on_with_twice_as_many() -> None:
    comeback = Comeback(1000)
    comeback.wait(0.0, again=False)
    _, now = batches(comeback, 3, 0.0)
    now += COMEBACK_AFTER
    assert comeback.begin(now)
    comeback.end(now)
    assert not comeback.on
    comeback.wait(now + 1.0, again=False)
    assert batches(comeback, 3, now + 1.0)[0] == [32, 64, 128]


def test_a_whole_window_that_lets_some_pass_is_tried_again() -> None:
    comeback = Comeback(4)
    comeback.wait(0.0, again=False)
    _, now = batches(comeback, 1, 0.0)
    for _ in range(3):
        now += COMEBACK_AFTER
        assert comeback.begin(now)
        assert comeback.batch == 4
        comeback.end(now)
        comeback.wait(now, again=False)
    assert batches(comeback, 3, now)[0] == [4, 2, 4]


def test_a_block_long_after_the_last_begins_with_a_small_batch() -> None:
    comeback = Comeback(1000)
    comeback.wait(0.0, again=False)
    _, now = batches(comeback, 3, 0.0)
    now += COMEBACK_AFTER
    assert comeback.begin(now)
    comeback.end(now)
    now += COMEBACK_AFTER + 1.0
    comeback.wait(now, again=False)
    assert batches(comeback, 2, now)[0] == [2, 4]

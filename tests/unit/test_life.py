"""Silence is a fault, slowness is not: when a peer counts as gone."""

from gevproxy.gearman.connection import PING_AFTER, SILENT_AFTER, UNREAD_AFTER, Life


def silent_at(life: Life, *, queued: list[int], acknowledged: list[int]) -> int | None:
    """Tick once a second with these sums, the last of them for ever; return when it is silent."""
    for second in range(1, 120):
        step = min(second, len(queued)) - 1
        life.tick(
            float(second),
            queued=queued[step],
            acknowledged=acknowledged[min(second, len(acknowledged)) - 1],
            reading=True,
        )
        if life.is_silent(float(second)):
            return second
    return None


def test_a_peer_that_says_nothing_is_silent_in_time() -> None:
    assert silent_at(Life(0.0), queued=[0], acknowledged=[0]) == SILENT_AFTER


def test_a_received_byte_is_life() -> None:
    life = Life(0.0)
    life.received(10.0)
    assert not life.is_silent(24.9)
    assert life.is_silent(25.0)


def test_a_ping_is_due_after_five_seconds_without_a_byte() -> None:
    life = Life(0.0)
    assert not life.wants_ping(PING_AFTER - 0.1)
    assert life.wants_ping(PING_AFTER)
    life.received(6.0)
    assert not life.wants_ping(PING_AFTER + 1)


def test_a_backlog_that_shrinks_is_life() -> None:
    """10 MiB at 250,000 bytes a second take 42 s, and the peer has nothing to say until then."""
    acknowledged = list(range(0, 10_485_760, 250_000))
    assert silent_at(Life(0.0), queued=[10_485_760], acknowledged=acknowledged) == (
        len(acknowledged) + SILENT_AFTER
    )


def test_acknowledged_bytes_alone_are_no_life() -> None:
    """A frozen peer's kernel acknowledges a job a second, each of them wholly."""
    sums = list(range(0, 100_000, 500))
    assert silent_at(Life(0.0), queued=sums, acknowledged=sums) == SILENT_AFTER


def test_nor_are_they_where_the_acknowledgement_comes_a_tick_late() -> None:
    """A job a second over a long way: each tick finds the last one still on it."""
    queued = [500 * n for n in range(1, 100)]
    acknowledged = [500 * n for n in range(99)]
    assert silent_at(Life(0.0), queued=queued, acknowledged=acknowledged) == SILENT_AFTER


def test_a_backlog_that_stands_still_is_no_life() -> None:
    """A frozen peer whose receive buffer is full."""
    assert silent_at(Life(0.0), queued=[10_000_000], acknowledged=[2_700_000]) == SILENT_AFTER


def test_the_clock_stands_still_while_we_do_not_read() -> None:
    life = Life(0.0)
    for second in range(1, 60):
        life.tick(float(second), queued=0, acknowledged=0, reading=False)
    assert not life.is_silent(59.0 + SILENT_AFTER - 0.1)
    assert life.is_silent(59.0 + SILENT_AFTER)


def test_time_in_which_we_stood_still_is_not_the_peer_s_silence() -> None:
    """Frozen for a minute after four silent seconds, it has eleven left, and a ping is due."""
    life = Life(0.0)
    for second in (1.0, 2.0, 3.0, 4.0, 64.0):
        life.tick(second, queued=0, acknowledged=0, reading=True)
    assert life.wants_ping(64.0)
    assert not life.is_silent(64.0 + SILENT_AFTER - 4.1)
    assert life.is_silent(64.0 + SILENT_AFTER - 4)


def deaf_at(life: Life, *, queued: list[int], acknowledged: list[int]) -> int | None:
    """Tick once a second with these sums, from a peer that says something all the time."""
    for second, (ever, taken) in enumerate(zip(queued, acknowledged, strict=True), 1):
        life.received(float(second))
        life.tick(float(second), queued=ever, acknowledged=taken, reading=True)
        assert not life.is_silent(float(second))
        if life.is_deaf(float(second)):
            return second
    return None


def test_a_peer_that_talks_and_takes_nothing_is_deaf_in_time() -> None:
    """From the last byte on that it took, whatever else waits for it by then."""
    waiting = [1000 * n for n in range(1, 100)]
    assert deaf_at(Life(0.0), queued=waiting, acknowledged=[0] * 99) == UNREAD_AFTER
    taken = [min(second, 10) for second in range(99)]
    assert deaf_at(Life(0.0), queued=waiting, acknowledged=taken) == UNREAD_AFTER + 11


def test_a_byte_now_and_then_is_taken_and_where_nothing_waits_nobody_is_deaf() -> None:
    slow = [second // 29 for second in range(300)]
    assert deaf_at(Life(0.0), queued=[9999] * 300, acknowledged=slow) is None
    assert deaf_at(Life(0.0), queued=[5] * 300, acknowledged=[5] * 300) is None


def test_while_we_do_not_read_or_stand_still_nobody_is_deaf() -> None:
    """A peer that cannot write may have stopped to read."""
    life = Life(0.0)
    for second in range(1, 100):
        life.tick(float(second), queued=9, acknowledged=0, reading=False)
    assert not life.is_deaf(99.0)
    life.tick(999.0, queued=9, acknowledged=0, reading=True)
    assert not life.is_deaf(999.0)

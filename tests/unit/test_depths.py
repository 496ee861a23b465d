"""What the ends hold: known, not known, and too much."""

import pytest

from gevproxy.config import ForwardConfig, parse_address
from gevproxy.depths import HELD_BACK, Depths
from gevproxy.gearman.admin import Depth
from gevproxy.gearman.job import Server

A, B = Server("a"), Server("b")


def depths(limit: int | None = None) -> Depths:
    source, target = parse_address("a/here"), parse_address("b/there")
    return Depths(ForwardConfig(source=source, target=target, max_target_waiting=limit))


def test_each_server_tells_of_its_own_end() -> None:
    known = depths()
    known.take(A, {b"here": Depth(3, 1), b"there": Depth(9, 9)})
    assert (known.source_waiting, known.target_waiting, known.target_workers) == (3, None, None)
    known.take(B, {b"there": Depth(4, 2)})
    assert (known.source_waiting, known.target_waiting, known.target_workers) == (3, 4, 2)
    known.take(Server("c"), None)
    known.take(A, None)
    assert (known.source_waiting, known.target_waiting, known.target_workers) == (None, 4, 2)


@pytest.mark.parametrize(
    ("limit", "waiting", "over"),
    [(None, 10**6, False), (5, 5, False), (5, 6, True), (0, 0, False), (0, 1, True)],
)
def test_over_is_more_than_the_limit(limit: int | None, waiting: int, over: bool) -> None:
    known = depths(limit)
    known.take(B, {b"there": Depth(waiting, 0)})
    assert known.over is over
    assert known.reason == (f"{HELD_BACK}{limit} jobs (max_target_waiting)" if over else "")
    known.take(B, None)
    assert not known.over

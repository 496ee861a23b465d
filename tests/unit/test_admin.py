"""The answer to `status`, in pieces of any size, of any length, and of any nonsense."""

import pytest

from gevproxy.errors import ProtocolError
from gevproxy.gearman.admin import MAX_ANSWER, Depth, StatusReader

ANSWER = b"other\t5\t1\t1\nq\t12\t2\t4\nidle\t0\t0\t0\n.\n"


@pytest.mark.parametrize("step", [1, 2, 7, len(ANSWER)])
def test_an_answer_in_pieces(step: int) -> None:
    """A queue that the server does not know holds nothing."""
    reader = StatusReader([b"q", b"unknown"])
    for start in range(0, len(ANSWER), step):
        assert not reader.done
        reader.feed(ANSWER[start : start + step])
    assert reader.done
    assert reader.depths == {b"q": Depth(10, 4), b"unknown": Depth(0, 0)}


def test_a_name_may_hold_a_tab() -> None:
    """Anybody may make such a queue, and all others are still to be told of."""
    reader = StatusReader([b"q"])
    reader.feed(b"a\tb\t1\t0\t0\nq\t3\t1\t2\n.\n")
    assert reader.depths == {b"q": Depth(2, 2)}


def test_thousands_of_queues_leave_nothing_behind() -> None:
    reader = StatusReader([b"q9999"])
    for n in range(10_000):
        reader.feed(b"q%d\t%d\t0\t1\n" % (n, n))
    reader.feed(b".\n")
    assert reader.depths == {b"q9999": Depth(9999, 1)}


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"ERR unknown_command\n",
        b"q\tx\t0\t1\n",
        b"q\t1\t2\n",
        b"\0RES" + bytes(5000),
        b"x" * 5000,
        b"a\t1\t1\t1\n" * (MAX_ANSWER // 8 + 1),
    ],
    ids=["http", "error", "letters", "columns", "binary", "line", "endless"],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        StatusReader([b"q"]).feed(data)

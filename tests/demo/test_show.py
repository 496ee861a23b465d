"""What the demo shows, without its processes."""

import io

from gevproxy.demo.show import Screen, table
from gevproxy.demo.traffic import Tally, answer, check, number_of


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def tally(sent: int, *results: int) -> Tally:
    result = Tally()
    result.sent = sent
    for number in results:
        result.add_result(number)
    return result


def test_table_counts_each_check_once() -> None:
    words = " ".join(table(tally(3, 0, 1, 1, 1), seconds=0.5, status="OK - fine.").split())
    assert words == "sent 3 results back 2 lost 1 repeats 2 jobs/s 4 status OK - fine."


def test_table_names_repeats_only_where_there_are_any() -> None:
    assert "repeats" not in table(tally(1, 0), seconds=1, status="")


def test_table_of_nothing() -> None:
    assert "jobs/s 0 status" in " ".join(table(tally(0), seconds=0, status="").split())


def test_a_result_tells_which_check_it_answers() -> None:
    assert [number_of(answer(check(number))) for number in (0, 19_999)] == [0, 19_999]


def test_a_check_has_a_usual_size() -> None:
    assert len(check(0)) == len(check(9_999_999)) == 492


def test_a_terminal_sees_one_line_that_changes() -> None:
    screen = Screen(out := Terminal())
    screen.progress("one", 0.0)
    screen.progress("two", 0.1)
    assert out.getvalue() == "\r\x1b[Kone\r\x1b[Ktwo"


def test_a_pipe_sees_a_line_now_and_then() -> None:
    screen = Screen(out := io.StringIO())
    for second in range(12):
        screen.progress(f"at {second}", second)
    assert out.getvalue() == "at 5\nat 10\n"

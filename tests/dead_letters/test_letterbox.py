"""The box between the loop and the disk. gevent runs here unpatched, beside real threads."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import gevent
import pytest

from gevproxy.dead_letters import DeadLetterError, DeadLetters, Letter
from gevproxy.errors import GevproxyError
from gevproxy.letterbox import Letterbox
from tests.dead_letters.letters import letter, letters, written

DEADLINE = 10.0  # seconds

Outcomes = list[tuple[Letter, GevproxyError | None]]


class Stuck(DeadLetters):
    """A disk that does not answer until it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go_on = threading.Event()
        self.batches: list[int] = []  # letters in each

    def write(self, letters: Sequence[Letter]) -> None:
        """Wait, then write."""
        self.batches.append(len(letters))
        assert self.go_on.wait(DEADLINE)
        super().write(letters)


class Broken(DeadLetters):
    """A bug in the writer, of the kind that quotes what it could not handle."""

    def write(self, letters: Sequence[Letter]) -> None:
        """Fail in a way that nobody expects."""
        raise RuntimeError(letters)


def post(box: Letterbox, each: Letter, outcomes: Outcomes) -> None:
    """Post a letter and remember what comes of it."""
    box.post(each, lambda error: outcomes.append((each, error)))


def turn_until(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition holds."""
    with gevent.Timeout(DEADLINE):
        while not condition():
            gevent.sleep(0.001)


def test_done_is_called_when_the_letters_are_on_disk(tmp_path: Path) -> None:
    box = Letterbox(DeadLetters(tmp_path))
    seen: list[tuple[int, int]] = []  # number of the letter, letters on disk
    for number in range(20):
        box.post(letter(number), lambda _, n=number: seen.append((n, len(written(tmp_path)))))  # type: ignore[misc]
    assert not seen
    assert box.close(DEADLINE)
    assert [number for number, _ in seen] == list(range(20))
    assert all(on_disk > number for number, on_disk in seen)
    assert written(tmp_path) == letters(20)


def test_a_slow_disk_does_not_stop_the_loop_and_makes_a_larger_batch(tmp_path: Path) -> None:
    disk = Stuck(tmp_path)
    box = Letterbox(disk)
    outcomes: Outcomes = []
    post(box, letter(0), outcomes)
    turn_until(lambda: disk.batches)
    for number in range(1, 100):
        post(box, letter(number), outcomes)
        gevent.sleep(0)
    assert (outcomes, disk.batches) == ([], [1])
    assert not box.close(0.01)
    disk.go_on.set()
    assert box.close(DEADLINE)
    assert disk.batches == [1, 99]
    assert outcomes == [(each, None) for each in letters(100)]


def test_the_pool_that_resolves_names_is_free_meanwhile(tmp_path: Path) -> None:
    disk = Stuck(tmp_path)
    box = Letterbox(disk)
    outcomes: Outcomes = []
    post(box, letter(), outcomes)
    turn_until(lambda: disk.batches)
    assert gevent.get_hub().threadpool.size == 0
    disk.go_on.set()
    assert box.close(DEADLINE)
    assert len(outcomes) == 1


def test_a_failure_is_told_to_every_letter_of_the_batch(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.touch()
    box = Letterbox(DeadLetters(folder))
    outcomes: Outcomes = []
    for each in letters(3):
        post(box, each, outcomes)
    assert box.close(DEADLINE)
    assert [each for each, _ in outcomes] == letters(3)
    assert all("Not a directory" in str(error) for _, error in outcomes)


def test_it_goes_on_after_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.touch()
    box = Letterbox(DeadLetters(folder))
    outcomes: Outcomes = []
    post(box, letter(0), outcomes)
    turn_until(lambda: outcomes)
    folder.unlink()
    post(box, letter(1), outcomes)
    assert box.close(DEADLINE)
    assert outcomes[1] == (letter(1), None)
    assert written(folder) == [letter(1)]


def test_a_bug_in_the_writer_is_told_too_and_without_the_payload(tmp_path: Path) -> None:
    box = Letterbox(Broken(tmp_path))
    outcomes: Outcomes = []
    post(box, letter(payload=b"secret"), outcomes)
    assert box.close(DEADLINE)
    (_, error), *others = outcomes
    assert not others
    assert isinstance(error, DeadLetterError)
    assert "RuntimeError" in str(error)
    assert "secret" not in str(error)


def test_a_done_that_raises_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gevent.get_hub(), "exception_stream", None)
    box = Letterbox(DeadLetters(tmp_path))
    outcomes: Outcomes = []

    def fail(_: GevproxyError | None) -> None:
        raise RuntimeError

    box.post(letter(0), fail)
    post(box, letter(1), outcomes)
    assert box.close(DEADLINE)
    assert outcomes == [(letter(1), None)]


def test_a_done_may_post_again(tmp_path: Path) -> None:
    box = Letterbox(DeadLetters(tmp_path))
    outcomes: Outcomes = []
    box.post(letter(0), lambda _: post(box, letter(1), outcomes))
    assert box.close(DEADLINE)
    assert outcomes == [(letter(1), None)]
    assert written(tmp_path) == letters(2)


def test_another_folder_is_used_from_the_next_batch_on(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    disk = Stuck(first)
    box = Letterbox(disk)
    outcomes: Outcomes = []
    post(box, letter(0), outcomes)
    turn_until(lambda: disk.batches)
    box.use(DeadLetters(second))
    post(box, letter(1), outcomes)
    disk.go_on.set()
    assert box.close(DEADLINE)
    assert (written(first), written(second)) == ([letter(0)], [letter(1)])

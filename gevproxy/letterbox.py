"""The way of a dead letter to the disk, without stopping the loop.

All forwards post into one box. Whatever waits goes to disk as one batch, with one fsync, while
the next gathers. The writing happens in a thread of the box's own: a slow disk must not hold up
the resolution of names, which has gevent's pool. This file knows no forward and decides nothing
about a job.
"""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from gevproxy.config import ForwardConfig
from gevproxy.dead_letters import DeadLetterError, DeadLetters, Letter
from gevproxy.errors import GevproxyError
from gevproxy.gearman import Job

Done = Callable[[GevproxyError | None], None]
"""Called with None when the letter is on disk, else with the reason why it is not."""


class Letterbox:
    """Writes letters, all that wait as one batch.

    It is bounded by its users: a forward posts no more than its window holds, and none of these
    jobs ends before its `done`.
    """

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters
        self._waiting: list[tuple[Letter, Done]] = []
        self._thread = ThreadPool(1)
        self._idle = Event()
        self._idle.set()

    def use(self, dead_letters: DeadLetters) -> None:
        """Write elsewhere from the next batch on."""
        self._dead_letters = dead_letters

    def bury(self, job: Job, config: ForwardConfig, why: str, done: Done) -> None:
        """Have a letter made of a job, as the source gave it, and posted."""
        letter = Letter(
            time=datetime.now(UTC),
            forward=config.key,
            source=str(config.source),
            target=str(config.target),
            handle=job.handle,
            unique=job.unique,
            reason=why,
            payload=job.workload,
        )
        self.post(letter, done)

    def post(self, letter: Letter, done: Done) -> None:
        """Have a letter written; `done` is called later, on the loop. Never blocks.

        Exactly one call for each letter, in the order of the posts, whatever happens. `done` must
        not raise: what it raises counts as the death of a greenlet and stops no other letter.
        """
        self._waiting.append((letter, done))
        if self._idle.is_set():
            self._idle.clear()
            gevent.spawn(self._empty)

    def close(self, timeout: float) -> bool:
        """Wait until nothing waits any more; False where `timeout` seconds were not enough.

        Then the disk does not answer, and its thread is left to end with the process.
        """
        if not self._idle.wait(timeout):
            return False
        self._thread.kill()
        return True

    def _empty(self) -> None:
        """Write batch after batch until nothing waits."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error = self._write([letter for letter, _ in batch])
            for _, done in batch:
                try:
                    done(error)
                except Exception:  # noqa: BLE001 - one forward's bug is not another's
                    gevent.get_hub().handle_error(done, *sys.exc_info())
        self._idle.set()

    def _write(self, letters: Sequence[Letter]) -> GevproxyError | None:
        """Write a batch in the thread, and wait; return what went wrong."""
        try:
            error = self._thread.spawn(_outcome, self._dead_letters, letters).get()
        except Exception as failure:  # noqa: BLE001 - no thread is to be had
            error = failure
        if error is None or isinstance(error, GevproxyError):
            return error
        # The text of a foreign exception may quote a payload; its type must do.
        unexpected = DeadLetterError(f"dead letters cannot be written: {type(error).__name__}")
        unexpected.__cause__ = error
        return unexpected


def _outcome(dead_letters: DeadLetters, letters: Sequence[Letter]) -> Exception | None:
    """Write, and return what is raised: gevent prints what a function in a thread raises."""
    try:
        dead_letters.write(letters)
    except Exception as error:  # noqa: BLE001 - whatever it is, the forwards must hear of it
        return error
    return None

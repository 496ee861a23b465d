"""The status queue: a worker that answers checks and nothing else.

It has a connection of its own and knows no forward: what it says comes from `answer`, and whatever
happens to it here stays here. Checks are foreground jobs, and whoever sent one waits nine seconds.
Those who have stopped waiting leave their jobs behind ("zombies"): they are answered like all
others, a handful at a time, until the queue is empty.

Errors are answered in words or by WORK_COMPLETE, never by WORK_EXCEPTION: libgearman, and so
check_gearman, hangs on that.
"""

import re
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Final

import gevent
from gevent.pool import Group

from gevproxy.backoff import Backoff
from gevproxy.config import QueueAddress
from gevproxy.errors import GearmanError
from gevproxy.events import Event
from gevproxy.gearman import Assigned, Link, LinkEvents, ServerError, Worker
from gevproxy.gearman.tls import Tls
from gevproxy.log import FLAPS, EventLog

HANDFUL: Final = 4
"""Jobs at once: checks are few, and each answer takes time that belongs to the forwards."""

TICK: Final = 1.0
"""Seconds between ticks: how late silence may be noticed."""

REGRAB_AFTER: Final = 3.0
"""Seconds asleep after which we grab all the same: a lost wake-up may not cost a check's nine."""

LINGER: Final = 900.0
"""Seconds that an ended connection waits for its end: as long as the kernel repeats a FIN."""

MOST_UNREAD: Final = 4 * 1024 * 1024
"""Bytes of answers that wait to be taken, from which on the connection is given up."""

SEARCH_LIMIT: Final = 0.1
"""Seconds of processor time for one search: what a callback may take before it counts as slow."""

_CLIENT_ID: Final = b"gevproxy-status"

_NO_ANSWER: Final = b"3:UNKNOWN - gevproxy met an error that nobody expected; its log has it.|"


class Responder:
    """Answers the jobs of one queue until it is stopped.

    `answer` gets a job's workload and returns the result; it may not block. An error of its own
    costs that answer, any other error the connection, which is made anew after a delay.
    """

    def __init__(
        self,
        address: QueueAddress,
        tls: Tls | None,
        answer: Callable[[bytes], bytes],
        log: EventLog,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self.address = address
        self.tls = tls
        self._answer = answer
        self._log = log.bind(status_queue=str(address))
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._backoff = Backoff(floor=0.5, step=1.0, ceiling=60.0, rng=self._rng)
        self._greenlets = Group()
        self._link = self._new_link()
        self._worker: Worker | None = None
        self._regrab_at = 0.0
        self._stopping = False

    def start(self) -> None:
        """Begin. Does not wait for the peer."""
        self._spawn(self._tick_forever)
        self._link.want(True)

    def stop(self) -> None:
        """Answer no more, and close the connection in order. Does not wait."""
        self._stopping = True
        self._worker = None
        self._link.want(False)
        self._link.end("stopped")

    def abort(self) -> None:
        """Cut the connection now."""
        self._stopping = True
        self._drop()

    @property
    def gone(self) -> bool:
        """Whether no socket is left."""
        return self._link.gone

    def _new_link(self) -> Link[Worker]:
        return Link(
            self.address.server,
            partial(Worker, self.address.queue.encode()),
            LinkEvents(self._on_up, self._on_events, self._on_over, self._on_failed),
            tls=self.tls,
            linger=LINGER,
            most_unread=MOST_UNREAD,
            spawn=self._spawn,
            clock=self._clock,
            rng=self._rng,
        )

    # The link's events.

    def _on_up(self, worker: Worker) -> None:
        self._worker = worker
        worker.register(_CLIENT_ID)
        self._log.sparse(Event.STATUS_QUEUE_UP, "the status queue's gearmand answered", first=FLAPS)

    def _on_over(self, error: GearmanError) -> None:
        self._worker = None
        self._log.sparse(Event.STATUS_QUEUE_LOST, f"lost: {error}", first=FLAPS)

    def _on_failed(self, error: GearmanError) -> None:
        self._log.sparse(Event.STATUS_QUEUE_AWAY, f"no connection: {error}")

    def _on_events(self, events: list[object]) -> None:
        worker = self._worker
        if worker is None:
            return
        answers: dict[bytes, bytes] = {}  # of this batch: zombies all ask the same
        for event in events:
            if isinstance(event, Assigned):
                for job in event.jobs:
                    if job.workload not in answers:
                        answers[job.workload] = self._answer_to(job.workload)
                    worker.complete(job.handle, answers[job.workload])
            elif isinstance(event, ServerError):
                self._log.sparse(Event.STATUS_QUEUE_ERROR, f"{event.code}: {event.text}")
        self._settle(worker)

    def _answer_to(self, request: bytes) -> bytes:
        try:
            return self._answer(request)
        except Exception as error:  # noqa: BLE001 - it costs this answer, and no more
            self._log.emit(Event.STATUS_QUEUE_FAILED, repr(error), exc_info=error)
            return _NO_ANSWER

    def _settle(self, worker: Worker) -> None:
        """Grab while there may be jobs, else sleep until woken."""
        if worker.empty:
            if not worker.outstanding and not worker.asleep:
                worker.sleep()
                self._regrab_at = self._clock() + REGRAB_AFTER * self._rng.uniform(0.8, 1.0)
        elif worker.wanted > worker.outstanding and worker.outstanding < HANDFUL:
            worker.grab(min(worker.wanted, HANDFUL) - worker.outstanding)
        self._link.flush()

    # Greenlets.

    def _tick_forever(self) -> None:
        while not self._stopping:
            gevent.sleep(TICK)
            now = self._clock()
            self._link.tick(now)
            worker = self._worker
            if worker is not None and worker.asleep and now >= self._regrab_at:
                worker.grab()
                self._link.flush()
            self._log.tick(now)

    def _spawn(self, function: Callable[..., None], *args: object) -> None:
        self._greenlets.spawn(self._guard, self._greenlets, function, args)

    def _guard(self, life: Group, function: Callable[..., None], args: tuple[object, ...]) -> None:
        """Run a greenlet; an error in it ends this life, and the next one begins after a delay."""
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported and mended
            if life is self._greenlets:
                self._log.emit(Event.STATUS_QUEUE_CRASHED, repr(error), exc_info=error)
                self._drop()
                if not self._stopping:
                    gevent.spawn_later(self._backoff.next(), self._begin_again)

    def _drop(self) -> None:
        """End this life: its greenlets and sockets."""
        self._worker = None
        self._link.abort()
        old, self._greenlets = self._greenlets, Group()
        old.kill(block=False)

    def _begin_again(self) -> None:
        if not self._stopping:
            self._link = self._new_link()
            self.start()


class _TooLong(Exception):  # noqa: N818 - it never leaves this file
    """Processor time has run out."""


def search_in_time(pattern: re.Pattern[str], texts: Iterable[str]) -> list[str]:
    """Return the texts in which the pattern is found; TimeoutError after SEARCH_LIMIT.

    A regular expression of somebody else's may take for ever, and holds the interpreter's lock
    meanwhile: a thread would not help. `re` does look for signals as it goes, so a timer of this
    process stops it. Only on the main thread, where signals arrive.
    """

    def stop(*_: object) -> None:
        raise _TooLong

    try:
        before = signal.signal(signal.SIGVTALRM, stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, SEARCH_LIMIT)
        try:
            return [text for text in texts if pattern.search(text)]
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
    except _TooLong as error:
        raise TimeoutError from error

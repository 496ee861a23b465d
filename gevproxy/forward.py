"""One forward: grab, transform, submit, wait for the confirm, complete.

Whoever wants to know what the program promises reads this file. There is no state variable: an
event changes facts, then `settle` acts on the facts, and neither ever blocks or yields, so nothing
needs a lock. Deadlines are comparisons, woken by one tick a second. The numbers at the branches
are the rows of the table in CONTRIBUTING.md, which names the test of each. `facts.py` has the facts
and what follows from them.

This file may not touch a socket, a file or a signal, and knows no other forward.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final, NamedTuple

import gevent
from gevent.event import Event as Happening
from gevent.pool import Group

from gevproxy.config import ForwardConfig, OnDisconnect
from gevproxy.depths import Depths
from gevproxy.errors import GearmanError
from gevproxy.events import Event
from gevproxy.facts import Facts
from gevproxy.gearman import (
    Assigned,
    Client,
    Confirmed,
    Handle,
    Link,
    LinkEvents,
    Oversized,
    Refused,
    Server,
    ServerError,
    Update,
    Worker,
)
from gevproxy.gearman.admin import Depth
from gevproxy.gearman.tls import Tls
from gevproxy.grabs import Grabs
from gevproxy.intake import Intake
from gevproxy.late_checks import LateChecks
from gevproxy.letterbox import Letterbox
from gevproxy.links import SOURCE_BACKLOG, make_links
from gevproxy.log import FLAPS, EventLog
from gevproxy.refusals import FullQueue
from gevproxy.rejects import Rejects
from gevproxy.replies import Replies
from gevproxy.report import Report
from gevproxy.shared import Shared
from gevproxy.stages import CheckReader, Pipeline
from gevproxy.status import Counters, ForwardStatus
from gevproxy.window import Held, Place, Window

TICK: Final = 1.0
"""Seconds between ticks: how late a deadline may be noticed."""

_QUEUE_FULL: Final = "QUEUE_ERROR"
"""gearmand's code for a queue over its maxqueue; every other code is a refusal."""


class Means(NamedTuple):
    """What the configuration of a forward names, as it was read.

    `tls` is how source and target are spoken to, None where it is in plain text.
    """

    pipeline: Pipeline | None
    reader: CheckReader | None
    tls: tuple[Tls | None, Tls | None]


class Forward:
    """Moves jobs from one queue to another until it is stopped.

    `counters` belong to the forward's key, not to this object: they outlive it. `running_until` is
    when the forward ran last whose place this one takes. `on_crash` is called with an unexpected
    error; the object is of no use from then on but for `abort`.
    """

    def __init__(
        self,
        config: ForwardConfig,
        means: Means,
        counters: Counters,
        log: EventLog,
        letterbox: Letterbox,
        *,
        max_packet: int,
        on_crash: Callable[["Forward", BaseException], None],
        running_until: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self.config = config
        self.counters = counters
        self.stopped = Happening()
        self.drain_seconds = 0.0
        self.started_at = self.ticked_at = clock()
        self._tls = means.tls
        self._log = log.bind(
            forward=config.key, source=str(config.source), target=str(config.target)
        )
        self._report = Report(counters, self._log, clock(), running_until)
        self._on_crash = on_crash
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._greenlets = Group()
        self._target_queue = config.target.queue.encode()

        self._source, self._target = self._links(means.tls, max_packet)
        self._window = Window()
        shared = Shared(config, self._window, counters, self._log, clock)
        self._rejects = Rejects(
            shared, letterbox, complete=self._complete, fail=self._fail, settle=self.settle
        )
        self._late = LateChecks(shared, means.reader, bury=self._rejects.bury)
        self._intake = Intake(
            shared, means.pipeline, late=self._late, rejects=self._rejects, holds=self._holds
        )
        self._replies = Replies(shared, self._rejects, self._report)
        self._grabs = Grabs(counters, self._log, self._rng)
        self._facts = self._first_facts()

    def _links(
        self, tls: tuple[Tls | None, Tls | None], max_packet: int
    ) -> tuple[Link[Worker], Link[Client[Held]]]:
        return make_links(
            self.config,
            LinkEvents(
                self._on_source_up,
                self._on_source_events,
                self._on_source_over,
                partial(self._on_failed, Event.SOURCE_AWAY),
            ),
            LinkEvents(
                self._on_target_up,
                self._on_target_events,
                self._on_target_over,
                partial(self._on_failed, Event.TARGET_AWAY),
            ),
            tls=tls,
            max_packet=max_packet,
            spawn=self._spawn,
            clock=self._clock,
            rng=self._rng,
        )

    def _first_facts(self) -> Facts:
        return Facts(
            self.config,
            source=self._source,
            target=self._target,
            window=self._window,
            queue=FullQueue(self._rng),
            depths=Depths(self.config),
            rejects=self._rejects,
            late=self._late,
            replies=self._replies,
            target_gone_at=self.started_at,
        )

    # What the supervisor calls.

    def start(self) -> None:
        """Begin. The target comes first: we never take what we cannot give."""
        self._spawn(self._tick_forever)
        self._target.want(True)

    def stop(self, drain: float) -> None:
        """Take no more jobs; confirm those under way for at most `drain` seconds (row 14)."""
        self._facts.stopping = True
        self.drain_seconds = drain
        self._facts.drain_deadline = self._clock() + drain
        self.settle()

    def adopt(self, config: ForwardConfig, means: Means) -> bool:
        """Go on under a new configuration, where nothing but `window_bytes` differs.

        Its default is a share of what all forwards may hold, and so changes with their number.
        Keys and callbacks have been read anew; a forward that they blocked tries at once.
        """
        same = replace(self.config, window_bytes=config.window_bytes) == config
        if self.stopping or not same or means.tls != self._tls:
            return False
        self.config = self._facts.config = config
        self._intake.pipeline = means.pipeline
        self._late.use(means.reader)
        self._rejects.hasten(self._clock())
        return True

    def pause(self, paused: bool) -> None:
        """Leave the source until further notice, or come back to it (row 14)."""
        self._facts.paused = paused
        self.settle()

    def bar(self, why: str) -> None:
        """Take no job for this reason, as if paused; "" ends it."""
        self._facts.barred = why
        self.settle()

    def observe(self, server: Server, told: Mapping[bytes, Depth] | None) -> None:
        """Take note of what a server's queues hold (row 18); None: it does not say any more."""
        self._facts.depths.take(server, told)
        self.settle()

    def abort(self, why: str = "") -> None:
        """Cut every connection and greenlet now; what is held is at the source again.

        `why` is the state until another forward takes this one's place.
        """
        self._facts.aborted = why
        self._source.abort()
        self._target.abort()
        self._facts.worker = self._facts.client = None
        self._give_back()
        self._greenlets.kill(block=False)
        self.stopped.set()

    @property
    def stopping(self) -> bool:
        """Whether the forward has been told to stop."""
        return self._facts.stopping

    @property
    def gone(self) -> bool:
        """Whether no socket is left; a completion may still be under way until then."""
        return self._source.gone and self._target.gone

    @property
    def stands_in(self) -> str:
        """What stands still when `ticked_at` does."""
        return "a job in its data_callback" if self.in_stages else "its loop"

    @property
    def in_stages(self) -> bool:
        """Whether a job has gone into the stages and not come out yet."""
        return self._intake.staged_since is not None

    @property
    def running_until(self) -> float:
        """When the forward ran last."""
        return self._report.running_until

    def status(self) -> ForwardStatus:
        """Describe this moment."""
        return self._report.status(self.config, self._facts.moment(self._clock()))

    # Acting on the facts.

    def settle(self) -> None:
        """Do what the facts ask for."""
        if self.stopped.is_set():
            return
        facts, now = self._facts, self._clock()
        if facts.client is not None:
            self._submit(facts.client, now)
        if facts.worker is not None:
            if facts.has_failed(facts.worker):
                self._rejects.give_up()
            self._grab(facts.worker, now)
            if facts.leaving and facts.may_leave(facts.worker, now):
                self._leave()
        self._source.want(not facts.leaving)  # S7
        self._source.read(facts.may_read)  # S8
        self._target.read(self._source.backlog < SOURCE_BACKLOG)  # S9
        if facts.stopping and facts.worker is None:  # S10
            self._target.want(False)
            self._target.end("stopped")
            facts.client = None
            self.stopped.set()
        self._source.flush()
        self._target.flush()

    def _submit(self, client: Client[Held], now: float) -> None:
        """Send what is unsent: all of it (S1), or one job as a probe of a full queue (S2)."""
        if self._rejects.closed:
            return  # what comes behind a job that blocks would meet the same fate
        facts = self._facts
        if self._late.possible and facts.worker is not None:
            self._late.sift(facts.worker, now)
        unsent = self._window.unsent
        if facts.queue.full:
            if unsent and facts.queue.probe(now):
                self._send(client, self._window.send(1))
            return
        if unsent:
            self._send(client, self._window.send())

    def _send(self, client: Client[Held], jobs: list[Held]) -> None:
        uniques = [held.unique for held in jobs]
        client.submit_all(jobs, self._target_queue, uniques, [held.workload for held in jobs])

    def _grab(self, worker: Worker, now: float) -> None:
        """Ask for as many jobs as there is room for (S3), or end a sleep (S4)."""
        facts = self._facts
        if facts.leaving or facts.full:
            self._grabs.end_sleep(worker)
        else:
            self._grabs.ask(worker, facts.room, now)

    def _leave(self) -> None:
        """Close the connection to the source, which puts what is held back on its queue."""
        given_back = self._give_back()
        self._facts.worker = None
        self._source.end("left")
        self._log.sparse(Event.SOURCE_LEFT, "left the source", first=FLAPS, given_back=given_back)

    def _give_back(self) -> int:
        given_back = self._window.give_back()
        self._late.forget()
        self._rejects.forget()
        self.counters.given_back += given_back
        return given_back

    # The source's events.

    def _on_source_up(self, worker: Worker) -> None:
        """Row 4."""
        self._facts.worker = worker
        self.counters.source_connections += 1
        self._grabs.begin()
        worker.register(f"gevproxy->{self.config.target}".encode())
        self._log.sparse(Event.SOURCE_UP, "source answered", first=FLAPS)

    def _on_source_over(self, error: GearmanError) -> None:
        """Row 5. The FIFO is not touched: confirms of given-back jobs must meet their own."""
        self._facts.worker = None
        given_back = self._give_back()
        self.counters.source_losses += 1
        self._log.sparse(
            Event.SOURCE_LOST, f"source lost: {error}", first=FLAPS, given_back=given_back
        )
        self.settle()

    def _on_source_events(self, events: list[object]) -> None:
        """Row 6; row 7 happens in the worker."""
        worker = self._facts.worker
        if worker is None:
            return
        now = self._clock()
        for event in events:
            if isinstance(event, Assigned):
                self._intake.take(worker, event.jobs, now)
            elif isinstance(event, Oversized):
                self._intake.pass_over(event, now)
            elif isinstance(event, Confirmed | Refused):
                if self._facts.worker is worker:
                    self._on_answer(worker, event)
            elif isinstance(event, ServerError):
                self.counters.source_errors += 1
                self._log.sparse(Event.SOURCE_ERROR, f"{event.code}: {event.text}")
        self._grabs.answered(worker, events)
        self.settle()

    def _holds(self, worker: Worker) -> bool:
        """Whether what this worker was given is still ours."""
        return self._facts.worker is worker

    def _on_answer(self, worker: Worker, event: Confirmed[Held] | Refused[Held]) -> None:
        """Row 17: the source has answers to late checks, or refuses one (rows 12 and 13)."""
        if isinstance(event, Confirmed):
            self._late.answered(worker, event.tokens)
            self._rejects.passed(self._rejects.answers)
        elif self._late.refused(event.token):
            why = f"source refused the answer to a late check: {event.code}: {event.text}"
            self._rejects.refuse(event.token, why, self._rejects.answers)

    # The target's events.

    def _on_target_up(self, client: Client[Held]) -> None:
        """Row 1."""
        self._facts.client = client
        self.counters.target_connections += 1
        self._facts.queue.full = False
        if not self.config.asynchronous:
            client.option(b"exceptions")
        self._log.sparse(Event.TARGET_UP, "target answered", first=FLAPS)

    def _on_target_over(self, error: GearmanError) -> None:
        """Rows 2 and 3."""
        facts = self._facts
        facts.client = None
        facts.target_gone_at = self._clock()
        self.counters.target_losses += 1
        self._log.sparse(
            Event.TARGET_LOST, f"target lost: {error}", first=FLAPS, unconfirmed=len(self._window)
        )
        self._replies.cut_off(facts.worker, error)
        self.counters.retries += self._window.resend()
        if self.config.on_disconnect is OnDisconnect.FAIL and not self.config.asynchronous:
            self._replies.fail(facts.worker, self._window)
        self.settle()

    def _on_target_events(self, events: list[object]) -> None:
        """Rows 8 to 13."""
        facts, client = self._facts, self._facts.client
        if client is None:
            return
        now = self._clock()
        for event in events:
            if isinstance(event, Confirmed):
                self._on_confirmed(event, now)
            elif isinstance(event, Update):
                self._replies.take(facts.worker, event, now)
            elif isinstance(event, Refused):
                self._on_refused(event.token, event.code, event.text)
        if not client.unconfirmed:
            # A batch, or a probe, is refused: wait longer after each.
            delay = facts.queue.answered(now)
            if delay is not None:
                self._spawn(self._settle_after, delay)
        self.settle()

    def _on_confirmed(self, confirmed: Confirmed[Held], now: float) -> None:
        """Rows 8 and 9."""
        self._facts.queue.full = False
        self._rejects.passed(self._rejects.target)
        if not self.config.asynchronous:
            self._replies.expect(confirmed)
            return
        self.counters.coalesced += confirmed.coalesced
        ended = self._window.settle_all(confirmed.tokens)
        if self._facts.worker is not None:
            self._facts.worker.complete_all([held.job.handle for held in ended])
            self.counters.confirmed += len(ended)
            self._report.passed(ended, now)

    def _on_refused(self, held: Held, code: str, text: str) -> None:
        """Rows 11 to 13."""
        if held not in self._window:
            self._window.settle(held)
        elif code == _QUEUE_FULL:
            held.place = Place.UNSENT
            self._window.unsent.append(held)
            self.counters.retries += 1
            if self._facts.queue.refused():
                self._log.sparse(Event.TARGET_FULL, "the target's queue is full")
        else:
            why = f"target refused: {code}: {text}"
            self._rejects.refuse(held, why, self._rejects.target)

    def _complete(self, handle: Handle) -> None:
        """Complete a job that has come to its end here."""
        if self._facts.worker is not None:
            self._facts.worker.complete(handle)

    def _fail(self, held: Held) -> None:
        """Fail a job of a synchronous forward."""
        self._replies.fail(self._facts.worker, [held])

    def _on_failed(self, event: Event, error: GearmanError) -> None:
        self._log.sparse(event, f"no connection: {error}")

    # The tick.

    def _tick_forever(self) -> None:
        while not self.stopped.wait(TICK):
            self.tick(self._clock())

    def tick(self, now: float) -> None:
        """Row 15."""
        facts = self._facts
        # Nothing here yields; only a callback can, and a tick in between is no life of its job.
        self.ticked_at = now if self._intake.staged_since is None else self._intake.staged_since
        self._source.tick(now)
        self._target.tick(now)
        self._replies.expire(facts.worker, now)
        self._rejects.tick(now)
        if facts.may_come_back and self._rejects.come_back(now) and facts.worker is not None:
            self._intake.try_again(facts.worker)
        if facts.worker is not None:
            self._grabs.again(facts.worker, now)
        self.settle()
        self._report.tick(facts.moment(now))

    def _settle_after(self, delay: float) -> None:
        """Settle earlier than the next tick; one greenlet for a probe of a full target."""
        gevent.sleep(delay)
        self.settle()

    # Greenlets.

    def _spawn(self, function: Callable[..., None], *args: object) -> None:
        self._greenlets.spawn(self._guard, function, args)

    def _guard(self, function: Callable[..., None], args: tuple[object, ...]) -> None:
        """Run a greenlet; an error in it costs this forward a restart, and no other anything."""
        try:
            function(*args)
        except (gevent.GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is reported and mended
            self._on_crash(self, error)

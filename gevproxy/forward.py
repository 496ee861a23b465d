"""One forward: grab, transform, submit, wait for the confirm, complete.

Whoever wants to know what the program promises reads this file. There is no state variable: an
event changes facts, then `settle` acts on the facts, and neither ever blocks or yields, so nothing
needs a lock. Deadlines are comparisons, woken by one tick a second. The numbers at the branches
are the rows of the table in CONTRIBUTING.md, which names the test of each.

This file may not touch a socket, a file or a signal, and knows no other forward.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

import gevent
from gevent.event import Event as Happening
from gevent.pool import Group

from gevproxy.config import ForwardConfig, OnDisconnect
from gevproxy.depths import Depths
from gevproxy.errors import GearmanError, PacketTooLarge
from gevproxy.events import Event
from gevproxy.gearman import (
    Assigned,
    Client,
    Confirmed,
    Handle,
    Job,
    Link,
    LinkEvents,
    Oversized,
    PacketType,
    Refused,
    Server,
    ServerError,
    Update,
    Worker,
)
from gevproxy.gearman.admin import Depth
from gevproxy.gearman.tls import Tls
from gevproxy.intake import Intake
from gevproxy.late_checks import LateChecks
from gevproxy.letterbox import Letterbox
from gevproxy.log import FLAPS, EventLog
from gevproxy.refusals import FullQueue
from gevproxy.rejects import Rejects
from gevproxy.report import Moment, Report
from gevproxy.stages import CheckReader, Pipeline
from gevproxy.status import Counters, ForwardStatus
from gevproxy.window import Held, Place, Window

TICK: Final = 1.0
"""Seconds between ticks: how late a deadline may be noticed."""

SOURCE_LINGER: Final = 900.0
"""Seconds that an ended source connection waits for its end: as long as the kernel repeats a FIN.

After a black hole gearmand keeps our jobs assigned to the dead connection until it hears the FIN.
"""

TARGET_LINGER: Final = 5.0
"""Seconds that an ended target connection waits for its end: nothing at the target hangs on it."""

REGRAB_AFTER: Final = 30.0
"""Seconds asleep after which we grab all the same: workers were seen asleep while jobs wait."""

SOURCE_BACKLOG: Final = 8 * 1024 * 1024
"""Bytes waiting to be sent to the source from which on the target is not read (sync replies)."""

MOST_UNREAD: Final = SOURCE_BACKLOG // 2
"""The same for an asynchronous forward, whose source sends jobs only for grabs that it has read:
one that takes no completions, and so many, takes nothing at all.
"""

_QUEUE_FULL: Final = "QUEUE_ERROR"
"""gearmand's code for a queue over its maxqueue; every other code is a refusal."""

_TERMINAL: Final = frozenset(
    {PacketType.WORK_COMPLETE, PacketType.WORK_FAIL, PacketType.WORK_EXCEPTION}
)


class Forward:
    """Moves jobs from one queue to another until it is stopped.

    `counters` belong to the forward's key, not to this object: they outlive it. `running_until` is
    when the forward ran last whose place this one takes. `tls` is how source
    and target are spoken to, where it is not in plain text. `on_crash` is
    called with an unexpected error; the object is of no use from then on but for `abort`.
    """

    def __init__(
        self,
        config: ForwardConfig,
        counters: Counters,
        log: EventLog,
        *,
        pipeline: Pipeline | None,
        reader: CheckReader | None,
        tls: tuple[Tls | None, Tls | None],
        letterbox: Letterbox,
        max_packet: int,
        on_crash: Callable[["Forward", BaseException], None],
        running_until: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        self.config = config
        self.counters = counters
        self.tls = tls
        self.stopped = Happening()
        self.started_at = self.ticked_at = clock()
        self._log = log.bind(
            forward=config.key, source=str(config.source), target=str(config.target)
        )
        self._report = Report(counters, self._log, clock(), running_until)
        self._on_crash = on_crash
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311 - jitter
        self._greenlets = Group()

        # The facts.
        self._worker: Worker | None = None  # a source that has answered
        self._client: Client[Held] | None = None  # a target that has answered
        self._window = Window()
        self._running: dict[Handle, Held] = {}  # sync: confirmed, not yet answered
        self._queue = FullQueue(self._rng)  # the target's
        self._depths = Depths(config)
        self._rejects = Rejects(
            config,
            self._window,
            counters,
            self._log,
            letterbox,
            complete=self._complete,
            fail=self._fail,
            settle=self.settle,
            clock=clock,
        )
        self._late = LateChecks(
            config, reader, self._window, counters, self._log, bury=self._rejects.bury
        )
        self._intake = Intake(
            config,
            pipeline,
            self._window,
            counters,
            late=self._late,
            rejects=self._rejects,
            holds=self._holds,
            clock=clock,
        )
        self._paused = False
        self._barred = ""  # the reason in words
        self._aborted = ""  # the reason in words
        self.stopping = False
        self.drain_seconds = 0.0
        self._drain_deadline = 0.0
        self._target_gone_at = clock()
        self._regrab_at = 0.0
        self._regrabbed = False

        self._jobs = config.window if config.asynchronous else config.workers
        self._target_queue = config.target.queue.encode()
        self._source = self._source_link(max_packet)
        self._target = self._target_link(max_packet)

    def _source_link(self, max_packet: int) -> Link[Worker]:
        return Link(
            self.config.source.server,
            partial(Worker, self.config.source.queue.encode(), max_packet),
            LinkEvents(
                self._on_source_up,
                self._on_source_events,
                self._on_source_over,
                partial(self._on_failed, Event.SOURCE_AWAY),
            ),
            tls=self.tls[0],
            linger=SOURCE_LINGER,
            most_unread=MOST_UNREAD if self.config.asynchronous else None,
            spawn=self._spawn,
            clock=self._clock,
            rng=self._rng,
        )

    def _target_link(self, max_packet: int) -> Link[Client[Held]]:
        return Link(
            self.config.target.server,
            partial(
                Client[Held],
                background=self.config.asynchronous,
                priority=self.config.priority,
                max_packet=max_packet,
            ),
            LinkEvents(
                self._on_target_up,
                self._on_target_events,
                self._on_target_over,
                partial(self._on_failed, Event.TARGET_AWAY),
            ),
            tls=self.tls[1],
            linger=TARGET_LINGER,
            discard=True,
            spawn=self._spawn,
            clock=self._clock,
            rng=self._rng,
        )

    # What the supervisor calls.

    def start(self) -> None:
        """Begin. The target comes first: we never take what we cannot give."""
        self._spawn(self._tick_forever)
        self._target.want(True)

    def stop(self, drain: float) -> None:
        """Take no more jobs; confirm those under way for at most `drain` seconds (row 14)."""
        self.stopping = True
        self.drain_seconds = drain
        self._drain_deadline = self._clock() + drain
        self.settle()

    def adopt(
        self, config: ForwardConfig, pipeline: Pipeline | None, reader: CheckReader | None
    ) -> bool:
        """Go on under a new configuration, where nothing but `window_bytes` differs.

        Its default is a share of what all forwards may hold, and so changes with their number.
        Keys and callbacks have been read anew; a forward that they blocked tries at once.
        """
        if self.stopping or replace(self.config, window_bytes=config.window_bytes) != config:
            return False
        self.config = config
        self._intake.pipeline = pipeline
        self._late.use(reader)
        self._rejects.hasten(self._clock())
        return True

    def pause(self, paused: bool) -> None:
        """Leave the source until further notice, or come back to it (row 14)."""
        self._paused = paused
        self.settle()

    def bar(self, why: str) -> None:
        """Take no job for this reason, as if paused; "" ends it."""
        self._barred = why
        self.settle()

    def observe(self, server: Server, told: Mapping[bytes, Depth] | None) -> None:
        """Take note of what a server's queues hold (row 18); None: it does not say any more."""
        self._depths.take(server, told)
        self.settle()

    def abort(self, why: str = "") -> None:
        """Cut every connection and greenlet now; what is held is at the source again.

        `why` is the state until another forward takes this one's place.
        """
        self._aborted = why
        self._source.abort()
        self._target.abort()
        self._worker = self._client = None
        self._give_back()
        self._greenlets.kill(block=False)
        self.stopped.set()

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

    @property
    def held(self) -> int:
        """Jobs that are neither confirmed nor given back."""
        return len(self._window)

    def reasons(self) -> tuple[str, ...]:
        """Say in words why the forward does not run; empty where it does."""
        if self._aborted:
            return (self._aborted,)
        reasons = []
        if self._client is None and not (self.stopping and self._worker is None):
            reasons.append(f"target away: {self._target.reason}")
        if self._worker is None and not self._leaving:
            reasons.append(f"source away: {self._source.reason}")
        if self._queue.full:
            reasons.append("target full")
        if self._depths.over:
            reasons.append(self._depths.reason)
        reasons += self._rejects.reasons()
        if self._barred:
            reasons.append(f"blocked: {self._barred}")
        if self._paused:
            reasons.append("paused")
        if self.stopping:
            reasons.append("stopping")
        return tuple(reasons)

    def status(self) -> ForwardStatus:
        """Describe this moment."""
        return self._report.status(self.config, self._moment(self._clock()))

    def _moment(self, now: float) -> Moment:
        return Moment(now, self.reasons(), self.held, self._at_target, self._depths)

    # Facts that follow from others.

    @property
    def _leaving(self) -> bool:
        """We may not grab, and show it by having no worker at the source."""
        rejects = self._rejects
        blocked = rejects.closed or rejects.silent or bool(self._barred)
        return self._client is None or self._paused or blocked or self.stopping

    @property
    def _at_target(self) -> int:
        """Jobs at the target whose end we wait for, tombstones included."""
        unconfirmed = self._client.unconfirmed if self._client is not None else 0
        return unconfirmed + len(self._running)

    @property
    def _busy(self) -> int:
        """Jobs whose end we wait for, at the target or elsewhere.

        Elsewhere are dead letters on their way to the disk, and answers to late checks.
        """
        return self._at_target + self._rejects.pending + self._late.answering

    @property
    def _room(self) -> int:
        """Jobs that may be taken; on a comeback, that its batch still lacks."""
        taken = len(self._window.unsent) + self._busy
        room = self._jobs - taken
        comeback = self._rejects.comeback
        if not comeback.on:
            return room
        failed = len(comeback.failed)
        on_trial = taken - len(self._running) + failed
        return min(comeback.batch - on_trial, room - failed)

    @property
    def _give_back_at(self) -> float | None:
        """When to give back what is held without waiting any longer; None: not at all."""
        if self.stopping:
            return self._drain_deadline if self._client is not None else 0.0
        if self._client is not None:
            return None
        hold = self.config.hold if self.config.asynchronous else 0.0
        return None if hold is None else self._target_gone_at + hold

    @property
    def _may_read(self) -> bool:
        """There is room for more bytes. A small workload that waits to be sent is there twice."""
        return self._window.bytes + self._target.copied < self.config.window_bytes

    # Acting on the facts.

    def settle(self) -> None:
        """Do what the facts ask for."""
        if self.stopped.is_set():
            return
        now = self._clock()
        if self._client is not None:
            self._submit(self._client, now)
        if self._worker is not None:
            if self._rejects.comeback.on and self._has_failed(self._worker):
                self._rejects.give_up()
            self._grab(self._worker, now)
            if self._leaving and self._may_leave(self._worker, now):
                self._leave()
        self._source.want(not self._leaving)  # S7
        self._source.read(self._may_read)  # S8
        self._target.read(self._source.backlog < SOURCE_BACKLOG)  # S9
        if self.stopping and self._worker is None:  # S10
            self._target.want(False)
            self._target.end("stopped")
            self._client = None
            self.stopped.set()
        self._source.flush()
        self._target.flush()

    def _submit(self, client: Client[Held], now: float) -> None:
        """Send what is unsent: all of it (S1), or one job as a probe of a full queue (S2)."""
        if self._rejects.closed:
            return  # what comes behind a job that blocks would meet the same fate
        if self._late.possible and self._worker is not None:
            self._late.sift(self._worker, now)
        unsent = self._window.unsent
        if self._queue.full:
            if unsent and self._queue.probe(now):
                self._send(client, self._window.send(1))
            return
        if unsent:
            self._send(client, self._window.send())

    def _send(self, client: Client[Held], jobs: list[Held]) -> None:
        uniques = [held.unique for held in jobs]
        client.submit_all(jobs, self._target_queue, uniques, [held.workload for held in jobs])

    def _grab(self, worker: Worker, now: float) -> None:
        """Ask for as many jobs as there is room for (S3), or end a sleep (S4)."""
        if self._leaving or self._queue.full or self._depths.over:
            if worker.asleep:
                # A sleeping relay that will not grab eats the wake-up of one that would.
                worker.grab()
            return
        if worker.empty:
            if not worker.outstanding and not worker.asleep:
                worker.sleep()
            return
        count = min(worker.wanted, self._room) - worker.outstanding
        if count > 0:
            worker.grab(count)
            self._regrab_at = now + REGRAB_AFTER * self._rng.uniform(0.8, 1.0)

    def _has_failed(self, worker: Worker) -> bool:
        """Tell whether all jobs of a comeback have failed, or all that there are."""
        waiting = self._window.unsent or self._busy > len(self._running)
        if not self._rejects.comeback.failed or waiting:
            return False
        if not self._may_read:
            return True  # no room for more bytes
        return not worker.outstanding and (worker.empty or self._room <= 0)

    def _may_leave(self, worker: Worker, now: float) -> bool:
        """Tell whether nothing keeps us at the source (S5), or the time is up (S6)."""
        waiting = self._busy if self._client is not None else len(self._window)
        # While we do not read, no grab is answered; what it brought goes back with the rest.
        unanswered = worker.outstanding if self._may_read else 0
        if not unanswered and not waiting:
            return True
        return self._give_back_at is not None and now >= self._give_back_at

    def _leave(self) -> None:
        """Close the connection to the source, which puts what is held back on its queue."""
        given_back = self._give_back()
        self._worker = None
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
        self._worker = worker
        self.counters.source_connections += 1
        self._regrabbed = False
        worker.register(f"gevproxy->{self.config.target}".encode())
        self._log.sparse(Event.SOURCE_UP, "source answered", first=FLAPS)

    def _on_source_over(self, error: GearmanError) -> None:
        """Row 5. The FIFO is not touched: confirms of given-back jobs must meet their own."""
        self._worker = None
        given_back = self._give_back()
        self.counters.source_losses += 1
        self._log.sparse(
            Event.SOURCE_LOST, f"source lost: {error}", first=FLAPS, given_back=given_back
        )
        self.settle()

    def _on_source_events(self, events: list[object]) -> None:
        """Row 6; row 7 happens in the worker."""
        worker = self._worker
        if worker is None:
            return
        now = self._clock()
        for event in events:
            if isinstance(event, Assigned):
                self._intake.take(worker, event.jobs, now)
            elif isinstance(event, Oversized):
                self._pass_over(event, now)
            elif isinstance(event, Confirmed | Refused):
                if self._worker is worker:
                    self._on_answer(worker, event)
            elif isinstance(event, ServerError):
                self.counters.source_errors += 1
                self._log.sparse(Event.SOURCE_ERROR, f"{event.code}: {event.text}")
        if self._regrabbed and not worker.outstanding:
            self._regrabbed = False
            if events:
                self.counters.wakeups_lost += 1
                self._log.sparse(Event.WAKEUP_LOST, "a job waited while we slept")
        self.settle()

    def _holds(self, worker: Worker) -> bool:
        """Whether what this worker was given is still ours."""
        return self._worker is worker

    def _pass_over(self, oversized: Oversized, now: float) -> None:
        """Block for a job that was too large to be read; it is held without its payload."""
        self.counters.received += 1
        job = Job(Handle(oversized.handle), b"", b"", b"")
        self._rejects.pass_over(Held(job, b"", b"", now), str(oversized.error))

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
        self._client = client
        self.counters.target_connections += 1
        self._queue.full = False
        if not self.config.asynchronous:
            client.option(b"exceptions")
        self._log.sparse(Event.TARGET_UP, "target answered", first=FLAPS)

    def _on_target_over(self, error: GearmanError) -> None:
        """Rows 2 and 3."""
        self._client = None
        self._target_gone_at = self._clock()
        self.counters.target_losses += 1
        self._log.sparse(
            Event.TARGET_LOST, f"target lost: {error}", first=FLAPS, unconfirmed=self.held
        )
        if isinstance(error, PacketTooLarge):
            held = self._running.get(Handle(error.handle))
            if held is not None and held in self._window:
                self._fail(held)  # its reply would end the next connection as well
        self._running.clear()
        self.counters.retries += self._window.resend()
        if self.config.on_disconnect is OnDisconnect.FAIL and not self.config.asynchronous:
            for held in self._window:
                self._fail(held)
        self.settle()

    def _on_target_events(self, events: list[object]) -> None:
        """Rows 8 to 13."""
        client = self._client
        if client is None:
            return
        now = self._clock()
        for event in events:
            if isinstance(event, Confirmed):
                self._on_confirmed(event, now)
            elif isinstance(event, Update):
                self._on_update(event, now)
            elif isinstance(event, Refused):
                self._on_refused(event.token, event.code, event.text)
        if not client.unconfirmed:
            # A batch, or a probe, is refused: wait longer after each.
            delay = self._queue.answered(now)
            if delay is not None:
                self._spawn(self._settle_after, delay)
        self.settle()

    def _on_confirmed(self, confirmed: Confirmed[Held], now: float) -> None:
        """Rows 8 and 9."""
        self._queue.full = False
        self._rejects.passed(self._rejects.target)
        if not self.config.asynchronous:
            self._running.update(zip(confirmed.handles, confirmed.tokens, strict=True))
            return
        self.counters.coalesced += confirmed.coalesced
        ended = self._window.settle_all(confirmed.tokens)
        if self._worker is not None:
            self._worker.complete_all([held.job.handle for held in ended])
            self.counters.confirmed += len(ended)
            self._report.passed(ended, now)

    def _on_update(self, update: Update, now: float) -> None:
        """Row 10. A late reply finds nothing and is dropped."""
        held = self._running.get(update.handle)
        if held is None:
            return
        if self._worker is not None and held in self._window:
            self._worker.update(update.type, held.job.handle, *update.args)
        if update.type in _TERMINAL:
            del self._running[update.handle]
            if self._window.settle(held):
                self.counters.answered += 1
                self._report.passed([held], now)

    def _on_refused(self, held: Held, code: str, text: str) -> None:
        """Rows 11 to 13."""
        if held not in self._window:
            self._window.settle(held)
        elif code == _QUEUE_FULL:
            held.place = Place.UNSENT
            self._window.unsent.append(held)
            self.counters.retries += 1
            if self._queue.refused():
                self._log.sparse(Event.TARGET_FULL, "the target's queue is full")
        else:
            why = f"target refused: {code}: {text}"
            self._rejects.refuse(held, why, self._rejects.target)

    def _complete(self, handle: Handle) -> None:
        """Complete a job that has come to its end here."""
        if self._worker is not None:
            self._worker.complete(handle)

    def _fail(self, held: Held) -> None:
        """Answer a sync job with WORK_FAIL."""
        if self._worker is not None:
            self._worker.fail(held.job.handle)
        self._window.drop(held)
        self._rejects.comeback.failed.pop(held, None)
        self.counters.answered += 1

    def _on_failed(self, event: Event, error: GearmanError) -> None:
        self._log.sparse(event, f"no connection: {error}")

    # The tick.

    def _tick_forever(self) -> None:
        while not self.stopped.wait(TICK):
            self.tick(self._clock())

    def tick(self, now: float) -> None:
        """Row 15."""
        # Nothing here yields; only a callback can, and a tick in between is no life of its job.
        self.ticked_at = now if self._intake.staged_since is None else self._intake.staged_since
        self._source.tick(now)
        self._target.tick(now)
        self._expire(now)
        self._rejects.tick(now)
        # A synchronous forward stays at its source while a job runs.
        may_come_back = self._worker is None or self._running
        if may_come_back and self._rejects.come_back(now) and self._worker is not None:
            self._intake.try_again(self._worker)
        self._regrab(now)
        self.settle()
        self._report.tick(self._moment(now))

    def _settle_after(self, delay: float) -> None:
        """Settle earlier than the next tick; one greenlet for a probe of a full target."""
        gevent.sleep(delay)
        self.settle()

    def _expire(self, now: float) -> None:
        """Answer sync jobs whose time is up; forget what runs on for them at the target."""
        if self.config.timeout is None:
            return
        begin = now - self.config.timeout
        for held in self._window:
            if held.since <= begin:
                self._fail(held)
                self.counters.timeouts += 1
                self._log.sparse(Event.JOB_TIMEOUT, "no answer in time", handle=held.job.handle)
        for handle, held in tuple(self._running.items()):
            if held.since <= begin:
                del self._running[handle]
                self._window.settle(held)

    def _regrab(self, now: float) -> None:
        """Grab where a wake-up may have been lost."""
        worker = self._worker
        if worker is not None and worker.asleep and now >= self._regrab_at:
            worker.grab()
            self._regrabbed = True
            self._regrab_at = now + REGRAB_AFTER * self._rng.uniform(0.8, 1.0)

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

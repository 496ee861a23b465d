"""The facts about a forward, and what follows from them: whether to grab, how much, when to leave.

`forward.py` changes the facts and acts on what follows; nothing here acts or changes anything.
"""

from dataclasses import dataclass

from gevproxy.config import ForwardConfig
from gevproxy.depths import Depths
from gevproxy.gearman import Client, Link, Worker
from gevproxy.late_checks import LateChecks
from gevproxy.refusals import FullQueue
from gevproxy.rejects import Rejects
from gevproxy.replies import Replies
from gevproxy.report import Moment
from gevproxy.window import Held, Window


@dataclass(slots=True, eq=False)
class Facts:
    """One forward as it is now. `queue` is the target's."""

    config: ForwardConfig
    source: Link[Worker]
    target: Link[Client[Held]]
    window: Window
    queue: FullQueue
    depths: Depths
    rejects: Rejects
    late: LateChecks
    replies: Replies
    target_gone_at: float
    worker: Worker | None = None  # a source that has answered
    client: Client[Held] | None = None  # a target that has answered
    paused: bool = False
    barred: str = ""  # the reason in words
    aborted: str = ""  # the reason in words
    stopping: bool = False
    drain_deadline: float = 0.0

    @property
    def leaving(self) -> bool:
        """We may not grab, and show it by having no worker at the source."""
        rejects = self.rejects
        blocked = rejects.closed or rejects.silent or bool(self.barred)
        return self.client is None or self.paused or blocked or self.stopping

    @property
    def full(self) -> bool:
        """The target has enough for now."""
        return self.queue.full or self.depths.over

    @property
    def at_target(self) -> int:
        """Jobs at the target whose end we wait for, tombstones included."""
        unconfirmed = self.client.unconfirmed if self.client is not None else 0
        return unconfirmed + self.replies.expected

    @property
    def busy(self) -> int:
        """Jobs whose end we wait for, at the target or elsewhere.

        Elsewhere are dead letters on their way to the disk, and answers to late checks.
        """
        return self.at_target + self.rejects.pending + self.late.answering

    @property
    def room(self) -> int:
        """Jobs that may be taken; on a comeback, that its batch still lacks."""
        config, comeback = self.config, self.rejects.comeback
        taken = len(self.window.unsent) + self.busy
        room = (config.window if config.asynchronous else config.workers) - taken
        if not comeback.on:
            return room
        failed = len(comeback.failed)
        on_trial = taken - self.replies.expected + failed
        return min(comeback.batch - on_trial, room - failed)

    @property
    def may_read(self) -> bool:
        """There is room for more bytes. A small workload that waits to be sent is there twice."""
        return self.window.bytes + self.target.copied < self.config.window_bytes

    @property
    def may_come_back(self) -> bool:
        """A blocked forward has left; a synchronous one stays at its source while a job runs."""
        return self.worker is None or self.replies.expected > 0

    def has_failed(self, worker: Worker) -> bool:
        """Tell whether all jobs of a comeback have failed, or all that there are."""
        comeback = self.rejects.comeback
        if not comeback.on or not comeback.failed:
            return False
        if self.window.unsent or self.busy > self.replies.expected:
            return False  # some are still to come
        if not self.may_read:
            return True  # no room for more bytes
        return not worker.outstanding and (worker.empty or self.room <= 0)

    def may_leave(self, worker: Worker, now: float) -> bool:
        """Tell whether nothing keeps us at the source (S5), or the time is up (S6)."""
        waiting = self.busy if self.client is not None else len(self.window)
        # While we do not read, no grab is answered; what it brought goes back with the rest.
        unanswered = worker.outstanding if self.may_read else 0
        if not unanswered and not waiting:
            return True
        give_back_at = self.give_back_at
        return give_back_at is not None and now >= give_back_at

    @property
    def give_back_at(self) -> float | None:
        """When to give back what is held without waiting any longer; None: not at all."""
        if self.stopping:
            return self.drain_deadline if self.client is not None else 0.0
        if self.client is not None:
            return None
        hold = self.config.hold if self.config.asynchronous else 0.0
        return None if hold is None else self.target_gone_at + hold

    def reasons(self) -> tuple[str, ...]:
        """Say in words why the forward does not run; empty where it does."""
        if self.aborted:
            return (self.aborted,)
        reasons = []
        if self.client is None and not (self.stopping and self.worker is None):
            reasons.append(f"target away: {self.target.reason}")
        if self.worker is None and not self.leaving:
            reasons.append(f"source away: {self.source.reason}")
        if self.queue.full:
            reasons.append("target full")
        if self.depths.over:
            reasons.append(self.depths.reason)
        reasons += self.rejects.reasons()
        if self.barred:
            reasons.append(f"blocked: {self.barred}")
        if self.paused:
            reasons.append("paused")
        if self.stopping:
            reasons.append("stopping")
        return tuple(reasons)

    def moment(self, now: float) -> Moment:
        """Return what is told of this moment."""
        return Moment(now, self.reasons(), len(self.window), self.at_target, self.depths)

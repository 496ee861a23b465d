"""What a forward counts, and whether the counts add up.

Plain integers on purpose: several are raised for every job. Nothing here knows gevent or a peer.
"""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Counted since the daemon started; they survive a forward's restart and a reload.

    A received job is in exactly one of confirmed, dead_lettered, dropped, answered, given_back, or
    still held. The rest describes how it went.
    """

    received: int = 0
    """Jobs that the source has assigned to us."""
    confirmed: int = 0
    """Completed at the source after the target's JOB_CREATED."""
    dead_lettered: int = 0
    """Written to a dead letter file, then completed."""
    dropped: int = 0
    """Completed without being sent, because a callback said so."""
    answered: int = 0
    """Ended with a result or a failure that the submitter sees (sync forwards)."""
    given_back: int = 0
    """At the source's queue again, because a connection ended or the forward left."""

    bytes_in: int = 0
    """Workload bytes received."""
    bytes_out: int = 0
    """Workload bytes that the target has confirmed, sync: has answered."""
    retries: int = 0
    """Submissions that were sent again, after a lost target or a full queue."""
    coalesced: int = 0
    """Confirms with a handle that the target already had: a job with that unique was there."""
    refused: int = 0
    """Jobs that a stage or the target refused."""
    timeouts: int = 0
    """Sync jobs that had no answer in time."""
    source_losses: int = 0
    """Source connections that had been up and ended against our will."""
    target_losses: int = 0
    """The same at the target."""
    source_errors: int = 0
    """ERROR packets from the source."""
    wakeups_lost: int = 0
    """Jobs that the slow grab found while we slept."""
    blocks: int = 0
    """How often the forward was blocked."""
    crashes: int = 0
    """How often the forward was started anew after an unexpected error."""

    def missing(self, held: int) -> int:
        """Return how many received jobs are in no other counter; 0 unless there is a bug."""
        ended = self.confirmed + self.dead_lettered + self.dropped + self.answered
        return self.received - ended - self.given_back - held

    def as_dict(self) -> dict[str, int]:
        """Return all counters by name."""
        return asdict(self)

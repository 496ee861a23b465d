"""What the queues at both ends of a forward hold, as their servers said last.

Told and not asked: `watch.py` asks. Pure; None is what nobody knows.
"""

from collections.abc import Mapping
from typing import Final

from gevproxy.config.model import ForwardConfig
from gevproxy.gearman.admin import Depth
from gevproxy.gearman.job import Server

HELD_BACK: Final = "target queue holds more than "
"""How the reason begins of a forward that takes no jobs because its target has enough.

It names the limit and not the depth, which is shown beside it: a reason that changed with each poll
would be written to the log with each poll.
"""


class Depths:
    """The depths of one forward's queues. `over` says that the target holds more than it may."""

    __slots__ = ("_config", "over", "source_waiting", "target_waiting", "target_workers")

    def __init__(self, config: ForwardConfig) -> None:
        self._config = config
        self.source_waiting: int | None = None
        self.target_waiting: int | None = None
        self.target_workers: int | None = None
        self.over = False

    @property
    def reason(self) -> str:
        """Say why no jobs are taken; "" where they are."""
        limit = self._config.max_target_waiting
        return f"{HELD_BACK}{limit} jobs (max_target_waiting)" if self.over else ""

    def take(self, server: Server, told: Mapping[bytes, Depth] | None) -> None:
        """Note what a server's queues hold; None: it does not say any more."""
        source, target = self._config.source, self._config.target
        if server == source.server:
            depth = told.get(source.queue.encode()) if told else None
            self.source_waiting = depth.waiting if depth else None
        if server == target.server:
            depth = told.get(target.queue.encode()) if told else None
            self.target_waiting = depth.waiting if depth else None
            self.target_workers = depth.workers if depth else None
            limit = self._config.max_target_waiting
            self.over = depth is not None and limit is not None and depth.waiting > limit

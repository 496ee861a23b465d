"""The links of a forward to its two servers, and what each does about bytes that are stuck.

The ends differ: at the source hang jobs that were given to us, and nothing hangs at the target that
is not sent again. Decides nothing about a job.
"""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final

from gevproxy.config import ForwardConfig
from gevproxy.gearman import Client, Link, LinkEvents, Worker
from gevproxy.gearman.tls import Tls
from gevproxy.window import Held

SOURCE_LINGER: Final = 900.0
"""Seconds that an ended source connection waits for its end: as long as the kernel repeats a FIN.

After a black hole gearmand keeps our jobs assigned to the dead connection until it hears the FIN.
"""

TARGET_LINGER: Final = 5.0
"""Seconds that an ended target connection waits for its end: nothing at the target hangs on it."""

SOURCE_BACKLOG: Final = 8 * 1024 * 1024
"""Bytes waiting to be sent to the source from which on the target is not read (sync replies)."""

MOST_UNREAD: Final = SOURCE_BACKLOG // 2
"""The same for an asynchronous forward, whose source sends jobs only for grabs that it has read:
one that takes no completions, and so many, takes nothing at all.
"""


def make_links(
    config: ForwardConfig,
    source: LinkEvents[Worker],
    target: LinkEvents[Client[Held]],
    *,
    tls: tuple[Tls | None, Tls | None],
    max_packet: int,
    spawn: Callable[..., object],
    clock: Callable[[], float],
    rng: Random,
) -> tuple[Link[Worker], Link[Client[Held]]]:
    """Return a link to the source and one to the target; neither connects before it is wanted."""
    to_source = Link(
        config.source.server,
        partial(Worker, config.source.queue.encode(), max_packet),
        source,
        tls=tls[0],
        linger=SOURCE_LINGER,
        most_unread=MOST_UNREAD if config.asynchronous else None,
        spawn=spawn,
        clock=clock,
        rng=rng,
    )
    to_target = Link(
        config.target.server,
        partial(
            Client[Held],
            background=config.asynchronous,
            priority=config.priority,
            max_packet=max_packet,
        ),
        target,
        tls=tls[1],
        linger=TARGET_LINGER,
        discard=True,
        spawn=spawn,
        clock=clock,
        rng=rng,
    )
    return to_source, to_target

"""Accepts connections, a few at a time, and goes on where that fails.

Knows nothing of what is said on them.
"""

from collections.abc import Callable
from typing import Final

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

_ACCEPT_AGAIN: Final = 1.0
"""Seconds until we try again to accept a connection, for want of a descriptor."""


class Listener(StreamServer):  # type: ignore[misc]  # gevent says no types
    """Says that connections cannot be accepted, and tries again; gevent has only a traceback.

    `at_once` connections are served at a time; the next wait for one of them to end.
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[..., None],
        at_once: int,
        on_failed: Callable[[OSError], None],
    ) -> None:
        super().__init__(listener, serve, spawn=Pool(at_once))
        self._on_failed = on_failed

    def do_read(self) -> object:
        """Accept a connection; None where there is none."""
        try:
            return super().do_read()
        except OSError as error:
            self.stop_accepting()
            gevent.spawn_later(_ACCEPT_AGAIN, self._accept_again)
            self._on_failed(error)
            return None

    def _accept_again(self) -> None:
        if self.started:
            self.start_accepting()

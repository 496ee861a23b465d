r"""The text protocol of a job server, as far as `status` goes: jobs and workers of each queue.

    hostgroup_network_b\t120\t20\t4      queue, jobs (running ones too), running, workers
    .

A server may have thousands of queues, so the answer is read piece by piece and only those that were
asked for are kept. Sans-IO: bytes in, depths out.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from gevproxy.errors import ProtocolError

STATUS: Final = b"status\n"
"""What to send."""

MAX_LINE: Final = 4096
"""Bytes; a queue's name has 512 at most, and three numbers come after it."""

MAX_ANSWER: Final = 16 * 1024 * 1024
"""Bytes; some hundred thousand queues."""

_END: Final = b"."
_COLUMNS: Final = 4


class Depth(NamedTuple):
    """What a queue holds: jobs that wait for a worker, and workers that would take them."""

    waiting: int
    workers: int


class StatusReader:
    """Reads one answer. `depths` has every queue asked for; one that the server does not know is 0.

    `done` says that the answer is whole.
    """

    __slots__ = ("_rest", "_size", "depths", "done")

    def __init__(self, queues: Iterable[bytes]) -> None:
        self.depths = dict.fromkeys(queues, Depth(0, 0))
        self.done = False
        self._rest = b""
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take received bytes. ProtocolError for what is no answer to `status`."""
        self._size += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if self._size > MAX_ANSWER or len(self._rest) > MAX_LINE:
            raise ProtocolError("the answer to status has no end")
        for line in lines:
            if line == _END:
                self.done = True
                return
            self._read(line)

    def _read(self, line: bytes) -> None:
        columns = line.rsplit(b"\t", _COLUMNS - 1)  # a name may hold a tab
        if len(columns) != _COLUMNS:
            raise ProtocolError("no answer to status")
        if columns[0] in self.depths:
            try:
                total, running, workers = map(int, columns[1:])
            except ValueError as error:
                raise ProtocolError("no answer to status") from error
            self.depths[columns[0]] = Depth(max(0, total - running), workers)

"""A client's end of one connection, sans-IO: submissions, their confirms, the work updates.

gearmand answers submissions in their order, a refusal in the refused job's place, so one FIFO
pairs every JOB_CREATED and every ERROR with its submission. Nothing here decides what to submit.
"""

from collections import deque
from typing import Final, Generic, NamedTuple, TypeVar

from gevproxy.errors import ProtocolError
from gevproxy.gearman.job import Handle, Priority
from gevproxy.gearman.packet import HEADER, LARGE, MAX_PACKET, REQUEST, Packet, PacketType
from gevproxy.gearman.peer import MAX_NAME, Peer, in_words, long_name

Token = TypeVar("Token")

_new_tuple: Final = tuple.__new__

_BACKGROUND: Final = {
    Priority.NORMAL: PacketType.SUBMIT_JOB_BG,
    Priority.HIGH: PacketType.SUBMIT_JOB_HIGH_BG,
    Priority.LOW: PacketType.SUBMIT_JOB_LOW_BG,
}
_FOREGROUND: Final = {
    Priority.NORMAL: PacketType.SUBMIT_JOB,
    Priority.HIGH: PacketType.SUBMIT_JOB_HIGH,
    Priority.LOW: PacketType.SUBMIT_JOB_LOW,
}
_UPDATES: Final = frozenset(
    {
        PacketType.WORK_DATA,
        PacketType.WORK_WARNING,
        PacketType.WORK_STATUS,
        PacketType.WORK_COMPLETE,
        PacketType.WORK_FAIL,
        PacketType.WORK_EXCEPTION,
    }
)


class Confirmed(NamedTuple, Generic[Token]):
    """JOB_CREATED: the server has the job that `token` stands for, under `handle`.

    `coalesced` is true where the handle is older than one that this connection has seen: the
    server already held a job with that unique, and made no second one of it.
    """

    token: Token
    handle: Handle
    coalesced: bool


class Refused(NamedTuple, Generic[Token]):
    """ERROR in the place of a confirm: the server did not take the job."""

    token: Token
    code: str
    text: str


class Update(NamedTuple):
    """A WORK_* packet about a foreground job; `args` is what follows the handle."""

    type: PacketType
    handle: Handle
    args: tuple[bytes, ...]


class Client(Peer, Generic[Token]):
    """A client. Events of `receive`: Confirmed, Refused and Update.

    A token is the caller's own object for a submission; it comes back in the event.
    """

    __slots__ = ("_background", "_fifo", "_newest", "_submit")

    def __init__(
        self,
        *,
        background: bool = True,
        priority: Priority = Priority.NORMAL,
        max_packet: int = MAX_PACKET,
    ) -> None:
        super().__init__(max_packet)
        self._submit = (_BACKGROUND if background else _FOREGROUND)[priority]
        # None stands for an OPTION_REQ, whose answer comes in the same order.
        self._fifo: deque[tuple[Token] | None] = deque()
        self._newest = b""

    @property
    def unconfirmed(self) -> int:
        """How many submissions have no answer yet."""
        return len(self._fifo)

    def option(self, name: bytes) -> None:
        """Set a connection option; "exceptions" makes the server pass WORK_EXCEPTION on."""
        self.outbox.add(PacketType.OPTION_REQ, name)
        self._fifo.append(None)

    def submit(self, token: Token, function: bytes, unique: bytes, workload: bytes) -> None:
        """Submit a job. ValueError, with nothing sent, where `function` or `unique` holds a NUL."""
        if 0 not in function and 0 not in unique and len(workload) < LARGE:
            # What Outbox.add would do, at a quarter of its price: this is done for every job.
            size = len(function) + len(unique) + len(workload) + 2
            body = b"\0".join((function, unique, workload))
            self.outbox.add_bytes(HEADER.pack(REQUEST, self._submit, size) + body)
        else:
            self.outbox.add(self._submit, function, unique, workload)
        self._fifo.append((token,))

    def _handle(self, packet: Packet, events: list[object]) -> None:
        type_, args = packet
        if type_ is PacketType.JOB_CREATED:
            entry = self._answered("JOB_CREATED")
            if entry is None:
                raise ProtocolError("JOB_CREATED in the place of OPTION_RES")
            handle = Handle(args[0])
            if len(handle) > MAX_NAME:
                raise long_name("handle", handle)
            confirmed = (entry[0], handle, self._is_old(handle))
            events.append(_new_tuple(Confirmed, confirmed))  # half the price of Confirmed(...)
        elif type_ in _UPDATES:
            # A client without "exceptions" gets WORK_FAIL with a NUL after the handle.
            events.append(Update(type_, Handle(args[0].rstrip(b"\0")), args[1:]))
        elif type_ is PacketType.ERROR:
            entry = self._answered("ERROR")
            if entry is not None:
                code, text = map(in_words, args)
                events.append(Refused(entry[0], code, text))
        elif type_ is PacketType.OPTION_RES:
            if self._answered("OPTION_RES") is not None:
                raise ProtocolError("OPTION_RES in the place of JOB_CREATED")
        else:
            super()._handle(packet, events)

    def _answered(self, name: str) -> tuple[Token] | None:
        if not self._fifo:
            raise ProtocolError(f"{name} that answers no submission")
        return self._fifo.popleft()

    def _is_old(self, handle: Handle) -> bool:
        """Tell whether a handle is no newer than the newest: they end in a growing number."""
        newest = self._newest
        longer = len(handle) - len(newest)
        if longer < 0 or (longer == 0 and handle <= newest):
            return True
        self._newest = handle
        return False

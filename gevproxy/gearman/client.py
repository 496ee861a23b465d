"""A client's end of one connection, sans-IO: submissions, their confirms, the work updates.

gearmand answers submissions in their order, a refusal in the refused job's place, so one FIFO
pairs every JOB_CREATED and every ERROR with its submission. Nothing here decides what to submit.
"""

from collections import deque
from collections.abc import Sequence
from struct import Struct
from typing import Final, Generic, NamedTuple, TypeVar

from gevproxy.errors import ProtocolError
from gevproxy.gearman.job import Handle, Priority
from gevproxy.gearman.outbox import BATCH, LARGE
from gevproxy.gearman.packet import MAX_PACKET, REQUEST, PacketType
from gevproxy.gearman.peer import MAX_NAME, Peer, in_words, long_name

Token = TypeVar("Token")

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
    """JOB_CREATED in a row: the server has the jobs that `tokens` stand for, under `handles`.

    `coalesced` counts handles that are older than one that this connection has seen: the server
    already held a job with that unique, and made no second one of it.
    """

    tokens: list[Token]
    handles: list[Handle]
    coalesced: int


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

    __slots__ = ("_fifo", "_newest", "_options", "_submit")

    def __init__(
        self,
        *,
        background: bool = True,
        priority: Priority = Priority.NORMAL,
        max_packet: int = MAX_PACKET,
    ) -> None:
        super().__init__(max_packet)
        self._submit = (_BACKGROUND if background else _FOREGROUND)[priority]
        self._fifo: deque[Token] = deque()
        # How many submissions stand before each OPTION_REQ, whose answer comes in the same order.
        self._options: deque[int] = deque()
        self._newest = b""

    @property
    def unconfirmed(self) -> int:
        """How many submissions have no answer yet."""
        return len(self._fifo) + len(self._options)

    def option(self, name: bytes) -> None:
        """Set a connection option; "exceptions" makes the server pass WORK_EXCEPTION on."""
        self.outbox.add(PacketType.OPTION_REQ, name)
        self._options.append(len(self._fifo))

    def submit(self, token: Token, function: bytes, unique: bytes, workload: bytes) -> None:
        """Submit a job. ValueError, with nothing sent, where `function` or `unique` holds a NUL."""
        self.submit_all([token], function, [unique], [workload])

    def submit_all(
        self,
        tokens: Sequence[Token],
        function: bytes,
        uniques: Sequence[bytes],
        workloads: Sequence[bytes],
    ) -> None:
        """Submit jobs to one function, in their order; ValueError as `submit`.

        Every packet is joined once: encode would cost a job four times as much.
        """
        if 0 in function or 0 in b"".join(uniques):
            raise ValueError("the name of a function or a unique holds a NUL byte")
        outbox, join = self.outbox, b"".join
        fixed = len(function) + 2
        head = Struct(f">4sII{fixed - 1}s")
        kind, pack = int(self._submit), head.pack
        packets: list[bytes] = []
        waiting = 0
        for unique, workload in zip(uniques, workloads, strict=True):
            length = len(workload)
            start = pack(REQUEST, kind, fixed + len(unique) + length, function)
            if length < LARGE:
                packets.append(join((start, unique, b"\0", workload)))
                waiting += length
            else:
                packets.append(join((start, unique, b"\0")))
                waiting = BATCH
            if waiting >= BATCH:
                outbox.add_bytes(join(packets))
                packets, waiting = [], 0
            if length >= LARGE:
                outbox.add_reference(workload)
        if packets:
            outbox.add_bytes(join(packets))
        self._fifo.extend(tokens)

    def _handle(self, type_: PacketType, many: list[list[bytes]], events: list[object]) -> None:
        if type_ is PacketType.JOB_CREATED:
            self._created([Handle(handle) for (handle,) in many], events)
        elif type_ in _UPDATES:
            for handle, *args in many:
                # A client without "exceptions" gets WORK_FAIL with a NUL after the handle.
                events.append(Update(type_, Handle(handle.rstrip(b"\0")), tuple(args)))
        elif type_ is PacketType.ERROR:
            for code, text in many:
                self._refused(code, text, events)
        elif type_ is PacketType.OPTION_RES:
            for _ in many:
                if not self._option_is_next:
                    why = "in the place of JOB_CREATED" if self._fifo else "that answers nothing"
                    raise ProtocolError(f"OPTION_RES {why}")
                self._options.popleft()
        else:
            super()._handle(type_, many, events)

    @property
    def _option_is_next(self) -> bool:
        return bool(self._options) and not self._options[0]

    def _created(self, handles: list[Handle], events: list[object]) -> None:
        """Pair confirms with their submissions, as far as there are any."""
        due = self._options[0] if self._options else len(self._fifo)
        good = handles[:due]
        for handle in good:
            if len(handle) > MAX_NAME:
                raise long_name("handle", handle)
        if good:
            tokens = self._pop(len(good))
            events.append(Confirmed(tokens, good, self._count_old(good)))
        if len(good) < len(handles):
            if self._option_is_next:
                raise ProtocolError("JOB_CREATED in the place of OPTION_RES")
            raise ProtocolError("JOB_CREATED that answers no submission")

    def _refused(self, code: bytes, text: bytes, events: list[object]) -> None:
        if self._option_is_next:
            self._options.popleft()
        elif self._fifo:
            (token,) = self._pop(1)
            events.append(Refused(token, in_words(code), in_words(text)))
        else:
            raise ProtocolError("ERROR that answers no submission")

    def _pop(self, count: int) -> list[Token]:
        """Take the oldest submissions off the FIFO."""
        for number in range(len(self._options)):
            self._options[number] -= count
        popleft = self._fifo.popleft
        return [popleft() for _ in range(count)]

    def _count_old(self, handles: list[Handle]) -> int:
        """Count handles that are no newer than the newest: they end in a growing number."""
        newest, old = self._newest, 0
        for handle in handles:
            longer = len(handle) - len(newest)
            if longer < 0 or (longer == 0 and handle <= newest):
                old += 1
            else:
                newest = handle
        self._newest = newest
        return old

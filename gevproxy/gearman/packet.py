r"""The wire: packet types, a buffer that turns bytes into packets, an outbox that turns them back.

Source: gearmand's PROTOCOL file, sections "Binary Packet", "Client/Worker Requests" and so on.
Nothing here does I/O, keeps time or knows which side of a connection it serves.

    4 bytes  magic, "\0REQ" or "\0RES"
    4 bytes  type, big endian
    4 bytes  size of the body, big endian
    body     arguments, NUL between them; the last takes the rest and may hold NULs itself
"""

from collections import deque
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from gevproxy.errors import PacketTooLarge, ProtocolError

REQUEST: Final = b"\0REQ"
RESPONSE: Final = b"\0RES"
HEADER: Final = Struct(">4sII")
HEADER_SIZE: Final = HEADER.size

_unpack_kind: Final = Struct(">QI").unpack_from
"""A header as two numbers: magic and type in one, for packets of one kind come in rows."""

MAX_PACKET: Final = 64 * 1024 * 1024
"""Default bound of a body in bytes, the same as gearmand's own largest packet by default."""

_HANDLE_PEEK: Final = 128
"""How much of an oversized packet is read to name its job; gearmand's handles end at 64 bytes."""

LARGE: Final = 32 * 1024
"""From this many bytes a packet's last argument is not copied but sent from where it lies."""

BATCH: Final = 256 * 1024
"""The outbox joins small packets into pieces of about this size: one system call each."""


class PacketType(IntEnum):
    """Every packet type of the protocol, 1 to 42; 5 has never been assigned."""

    CAN_DO = 1
    CANT_DO = 2
    RESET_ABILITIES = 3
    PRE_SLEEP = 4
    NOOP = 6
    SUBMIT_JOB = 7
    JOB_CREATED = 8
    GRAB_JOB = 9
    NO_JOB = 10
    JOB_ASSIGN = 11
    WORK_STATUS = 12
    WORK_COMPLETE = 13
    WORK_FAIL = 14
    GET_STATUS = 15
    ECHO_REQ = 16
    ECHO_RES = 17
    SUBMIT_JOB_BG = 18
    ERROR = 19
    STATUS_RES = 20
    SUBMIT_JOB_HIGH = 21
    SET_CLIENT_ID = 22
    CAN_DO_TIMEOUT = 23
    ALL_YOURS = 24
    WORK_EXCEPTION = 25
    OPTION_REQ = 26
    OPTION_RES = 27
    WORK_DATA = 28
    WORK_WARNING = 29
    GRAB_JOB_UNIQ = 30
    JOB_ASSIGN_UNIQ = 31
    SUBMIT_JOB_HIGH_BG = 32
    SUBMIT_JOB_LOW = 33
    SUBMIT_JOB_LOW_BG = 34
    SUBMIT_JOB_SCHED = 35
    SUBMIT_JOB_EPOCH = 36
    SUBMIT_REDUCE_JOB = 37
    SUBMIT_REDUCE_JOB_BACKGROUND = 38
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40
    GET_STATUS_UNIQUE = 41
    STATUS_RES_UNIQUE = 42


_T = PacketType

ARGUMENTS: Final[dict[PacketType, int]] = {
    _T.CAN_DO: 1,
    _T.CANT_DO: 1,
    _T.RESET_ABILITIES: 0,
    _T.PRE_SLEEP: 0,
    _T.NOOP: 0,
    _T.SUBMIT_JOB: 3,
    _T.JOB_CREATED: 1,
    _T.GRAB_JOB: 0,
    _T.NO_JOB: 0,
    _T.JOB_ASSIGN: 3,
    _T.WORK_STATUS: 3,
    _T.WORK_COMPLETE: 2,
    _T.WORK_FAIL: 1,
    _T.GET_STATUS: 1,
    _T.ECHO_REQ: 1,
    _T.ECHO_RES: 1,
    _T.SUBMIT_JOB_BG: 3,
    _T.ERROR: 2,
    _T.STATUS_RES: 5,
    _T.SUBMIT_JOB_HIGH: 3,
    _T.SET_CLIENT_ID: 1,
    _T.CAN_DO_TIMEOUT: 2,
    _T.ALL_YOURS: 0,
    _T.WORK_EXCEPTION: 2,
    _T.OPTION_REQ: 1,
    _T.OPTION_RES: 1,
    _T.WORK_DATA: 2,
    _T.WORK_WARNING: 2,
    _T.GRAB_JOB_UNIQ: 0,
    _T.JOB_ASSIGN_UNIQ: 4,
    _T.SUBMIT_JOB_HIGH_BG: 3,
    _T.SUBMIT_JOB_LOW: 3,
    _T.SUBMIT_JOB_LOW_BG: 3,
    _T.SUBMIT_JOB_SCHED: 8,
    _T.SUBMIT_JOB_EPOCH: 4,
    _T.SUBMIT_REDUCE_JOB: 4,
    _T.SUBMIT_REDUCE_JOB_BACKGROUND: 4,
    _T.GRAB_JOB_ALL: 0,
    _T.JOB_ASSIGN_ALL: 5,
    _T.GET_STATUS_UNIQUE: 1,
    _T.STATUS_RES_UNIQUE: 6,
}

# By number: looking an IntEnum up in a dict calls Python code, indexing a tuple does not.
_COUNTS: Final = tuple(ARGUMENTS.get(code, -1) for code in range(43))  # type: ignore[call-overload]
_BY_CODE: Final = {int(type_): type_ for type_ in PacketType}

# The packets that hand a job over: where one is too large it is passed over and named, for its job
# can be given back in peace. Any other that is too large ends the connection.
_ASSIGNS: Final = frozenset({_T.JOB_ASSIGN, _T.JOB_ASSIGN_UNIQ, _T.JOB_ASSIGN_ALL})

# Packets whose first argument is a job's handle: an oversized one is read far enough to name it.
_NAMES_A_JOB: Final = frozenset(
    {
        *_ASSIGNS,
        _T.WORK_COMPLETE,
        _T.WORK_DATA,
        _T.WORK_WARNING,
        _T.WORK_EXCEPTION,
    }
)


class Packets(NamedTuple):
    """Packets of one type that came one after the other: the arguments of each.

    Not one by one, because a busy connection brings them in rows of hundreds, and what is done
    once for a row costs a job nothing.
    """

    type: PacketType
    many: list[list[bytes]]


class Oversized(NamedTuple):
    """A job over `max_packet`, in the place of its packet; its body was not kept."""

    handle: bytes
    error: PacketTooLarge


Read = list[Packets | Oversized]


def _check_args(type_: PacketType, args: tuple[bytes, ...]) -> None:
    """Raise ValueError where the packet would not come out as it went in."""
    if len(args) != _COUNTS[type_]:
        raise ValueError(f"{type_.name} takes {_COUNTS[type_]} arguments, not {len(args)}")
    for part in args[:-1]:
        if 0 in part:  # seven times as fast as b"\0" in part
            raise ValueError(f"{type_.name}: only the last argument may hold a NUL byte")


def encode(type_: PacketType, *args: bytes, magic: bytes = REQUEST) -> bytes:
    """Return the packet's bytes. ValueError for a wrong argument count or a NUL before the last."""
    _check_args(type_, args)
    body = b"\0".join(args)
    return HEADER.pack(magic, type_, len(body)) + body


class PacketBuffer:
    """Turns received bytes into packets.

    `feed` returns every whole packet, in rows; what is left waits for more. A job over
    `max_packet` comes as Oversized, and its body is passed over without being kept. A peer that
    breaks the protocol sets `fault` (a ProtocolError), after the packets before it have been
    returned: a confirm that came in time is not lost to the garbage behind it. From then on `feed`
    returns nothing.
    """

    __slots__ = ("_magic", "_max_packet", "_need", "_pending", "_skip", "fault")

    def __init__(self, magic: bytes = RESPONSE, max_packet: int = MAX_PACKET) -> None:
        self._magic = int.from_bytes(magic, "big")
        self._max_packet = max_packet
        self._pending = bytearray()  # the start of at most one packet
        self._need = HEADER_SIZE  # how long _pending must be before it can be looked at again
        self._skip = 0  # bytes of an oversized body that are still to come
        self.fault: ProtocolError | None = None

    def feed(self, data: bytes) -> Read:
        """Take received bytes, in pieces of any size; return the packets that are now whole."""
        packets: Read = []
        if self.fault is None:
            try:
                position = self._finish_pending(data, packets) if self._pending else 0
                if self._skip:
                    position = self._pass_over(data, position)
                if position < len(data):
                    self._parse(data, position, packets)
            except ProtocolError as error:
                self.fault = error
                self._pending = bytearray()
        return packets

    def _parse(self, data: bytes, position: int, packets: Read) -> None:
        """Cut whole packets out of `data`; keep the rest."""
        end, limit, last = len(data), self._max_packet, -1
        count, many = 0, list[list[bytes]]()
        need = HEADER_SIZE
        while end - position >= HEADER_SIZE:
            kind, size = _unpack_kind(data, position)
            start = position + HEADER_SIZE
            stop = start + size
            if kind != last or size > limit:
                type_, need = self._check(kind, size)
                if position + need > end:
                    break
                if size > limit:
                    last = -1
                    packets.append(self._oversized(type_, data[start : position + need], size))
                    position = self._pass_over(data, position + need)
                    need = HEADER_SIZE
                    continue
                last, count, many = kind, _COUNTS[type_], []
                args = _split(type_, data[start:stop], count)
                packets.append(Packets(type_, many))
            elif stop > end:
                need = HEADER_SIZE + size
                break
            else:
                # What _split does, without a call: this is done for every job.
                args = data[start:stop].split(b"\0", count - 1) if count else []
                if len(args) != count or (size and not count):
                    _split(type_, data[start:stop], count)  # raises
            many.append(args)
            position = stop
            need = HEADER_SIZE
        self._need = need
        if position < end:
            self._pending += memoryview(data)[position:]

    def _finish_pending(self, data: bytes, packets: Read) -> int:
        """Complete the packet that began in an earlier piece; return how much of `data` it took."""
        pending = self._pending
        position = 0
        while True:
            take = min(self._need - len(pending), len(data) - position)
            pending += memoryview(data)[position : position + take]
            position += take
            if len(pending) < self._need:
                return position
            kind, size = _unpack_kind(pending)
            type_, need = self._check(kind, size)
            if need <= len(pending):
                break
            self._need = need
        self._pending = bytearray()  # a fresh one: a large body's memory goes back at once
        self._need = HEADER_SIZE
        with memoryview(pending) as view:
            if size > self._max_packet:
                packets.append(self._oversized(type_, bytes(view[HEADER_SIZE:]), size))
            else:
                packets.append(Packets(type_, [_split_view(type_, pending, view)]))
        return position

    def _check(self, kind: int, size: int) -> tuple[PacketType, int]:
        """Return the type, and how many bytes must be there to go on."""
        magic, code = divmod(kind, 1 << 32)
        if magic != self._magic:
            raise ProtocolError(f"wrong magic {magic.to_bytes(4, 'big')!r}: no Gearman server?")
        type_ = _BY_CODE.get(code)
        if type_ is None:
            raise ProtocolError(f"unknown packet type {code}")
        if size <= self._max_packet:
            return type_, HEADER_SIZE + size
        if type_ not in _NAMES_A_JOB:
            raise PacketTooLarge(type_.name, b"", size, self._max_packet)
        return type_, HEADER_SIZE + min(size, _HANDLE_PEEK)

    def _oversized(self, type_: PacketType, start_of_body: bytes, size: int) -> Oversized:
        """Begin to pass over a job's body; raise for any other packet."""
        handle = start_of_body.partition(b"\0")[0]
        error = PacketTooLarge(type_.name, handle, size, self._max_packet)
        if type_ not in _ASSIGNS:
            raise error
        self._skip = size - len(start_of_body)
        return Oversized(handle, error)

    def _pass_over(self, data: bytes, position: int) -> int:
        """Return where in `data` the oversized body ends, as far as it is there."""
        step = min(self._skip, len(data) - position)
        self._skip -= step
        return position + step


def _miscounted(type_: PacketType, count: int, found: int) -> ProtocolError:
    return ProtocolError(f"{type_.name} takes {count} arguments, not {found}")


def _not_empty(type_: PacketType, size: int) -> ProtocolError:
    return ProtocolError(f"{type_.name} takes no arguments but has {size} bytes")


def _split(type_: PacketType, body: bytes, count: int) -> list[bytes]:
    """Cut a body into its arguments."""
    if not count and body:
        raise _not_empty(type_, len(body))
    args = body.split(b"\0", count - 1) if count else []
    if len(args) != count:
        raise _miscounted(type_, count, len(args))
    return args


def _split_view(type_: PacketType, packet: bytearray, view: memoryview) -> list[bytes]:
    """Cut a packet into its arguments with one copy of the last: it may be all of `max_packet`."""
    args: list[bytes] = []
    count = _COUNTS[type_]
    start = HEADER_SIZE
    for _ in range(count - 1):
        stop = packet.find(0, start)
        if stop < 0:
            raise _miscounted(type_, count, len(args) + 1)
        args.append(bytes(view[start:stop]))
        start = stop + 1
    if count:
        args.append(bytes(view[start:]))
    elif len(packet) > HEADER_SIZE:
        raise _not_empty(type_, len(packet) - HEADER_SIZE)
    return args


class Outbox:
    """Packets on their way out. `size` is what waits here, `total` what ever came, in bytes.

    Large workloads are kept by reference: a job that waits to be sent is in memory once.
    """

    __slots__ = ("_chunks", "_referenced", "_taken", "total")

    def __init__(self) -> None:
        self._chunks: deque[tuple[bytes, bool]] = deque()  # with whether it is a reference
        self._taken = 0
        self._referenced = 0
        self.total = 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self.total - self._taken

    @property
    def copied(self) -> int:
        """Bytes that wait and are nowhere else in memory."""
        return self.size - self._referenced

    def add(self, type_: PacketType, *args: bytes) -> None:
        """Append a request. ValueError as `encode`, with nothing appended."""
        if not args or len(args[-1]) < LARGE:
            self.add_bytes(encode(type_, *args))
            return
        _check_args(type_, args)
        head = b"".join([part + b"\0" for part in args[:-1]])
        self.add_bytes(HEADER.pack(REQUEST, type_, len(head) + len(args[-1])) + head)
        self.add_reference(args[-1])

    def add_bytes(self, packets: bytes) -> None:
        """Append what is already encoded, any number of packets."""
        self._chunks.append((packets, False))
        self.total += len(packets)

    def add_reference(self, workload: bytes) -> None:
        """Append what its owner keeps, too."""
        self._chunks.append((workload, True))
        self.total += len(workload)
        self._referenced += len(workload)

    def take(self) -> bytes:
        """Remove and return the next piece to send: packets joined, or one large workload."""
        chunks = self._chunks
        if not chunks:
            return b""
        piece, referenced = chunks.popleft()
        if referenced:
            self._referenced -= len(piece)
        elif chunks:
            parts = [piece]
            length = len(piece)
            while chunks and not chunks[0][1] and length < BATCH:
                part, _ = chunks.popleft()
                parts.append(part)
                length += len(part)
            piece = b"".join(parts)
        self._taken += len(piece)
        return piece

    def clear(self) -> None:
        """Forget what waits."""
        self._chunks.clear()
        self._taken = self.total
        self._referenced = 0

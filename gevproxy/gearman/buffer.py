"""Received bytes to packets: rows of one type, whatever the pieces that they come in.

A job comes through here twice, when it is assigned and when it is confirmed: what can be done once
for a row is not done for each packet.
"""

from struct import Struct
from typing import Final, NamedTuple

from gevproxy.errors import PacketTooLarge, ProtocolError
from gevproxy.gearman.packet import COUNTS, HEADER_SIZE, MAX_PACKET, RESPONSE, PacketType

_unpack_kind: Final = Struct(">QI").unpack_from
"""A header as two numbers: magic and type in one, for packets of one kind come in rows."""

_HANDLE_PEEK: Final = 128
"""How much of an oversized packet is read to name its job; gearmand's handles end at 64 bytes."""

_BY_CODE: Final = {int(type_): type_ for type_ in PacketType}

# The packets that hand a job over: where one is too large it is passed over and named, for its job
# can be given back in peace. Any other that is too large ends the connection.
_ASSIGNS: Final = frozenset(
    {PacketType.JOB_ASSIGN, PacketType.JOB_ASSIGN_UNIQ, PacketType.JOB_ASSIGN_ALL}
)

# Packets whose first argument is a job's handle: an oversized one is read far enough to name it.
_NAMES_A_JOB: Final = frozenset(
    {
        *_ASSIGNS,
        PacketType.WORK_COMPLETE,
        PacketType.WORK_DATA,
        PacketType.WORK_WARNING,
        PacketType.WORK_EXCEPTION,
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
                last, count, many = kind, COUNTS[type_], []
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
    count = COUNTS[type_]
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

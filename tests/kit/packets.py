"""Gearman packets for the tests, written from the PROTOCOL file and from nothing else here."""

import select
import socket
import struct
import time
from enum import IntEnum
from typing import NamedTuple, Self

REQUEST = b"\0REQ"
RESPONSE = b"\0RES"
HEADER = struct.Struct(">4sII")


class Kind(IntEnum):
    """The packet types that the tests send or see."""

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
    GRAB_JOB_ALL = 39
    JOB_ASSIGN_ALL = 40


# How many arguments a packet has where it is not one; the last takes the rest, NULs and all.
ARGUMENTS = {
    Kind.RESET_ABILITIES: 0,
    Kind.PRE_SLEEP: 0,
    Kind.NOOP: 0,
    Kind.GRAB_JOB: 0,
    Kind.NO_JOB: 0,
    Kind.ALL_YOURS: 0,
    Kind.GRAB_JOB_UNIQ: 0,
    Kind.GRAB_JOB_ALL: 0,
    Kind.WORK_COMPLETE: 2,
    Kind.ERROR: 2,
    Kind.CAN_DO_TIMEOUT: 2,
    Kind.WORK_EXCEPTION: 2,
    Kind.WORK_DATA: 2,
    Kind.WORK_WARNING: 2,
    Kind.SUBMIT_JOB: 3,
    Kind.SUBMIT_JOB_BG: 3,
    Kind.SUBMIT_JOB_HIGH: 3,
    Kind.SUBMIT_JOB_HIGH_BG: 3,
    Kind.SUBMIT_JOB_LOW: 3,
    Kind.SUBMIT_JOB_LOW_BG: 3,
    Kind.JOB_ASSIGN: 3,
    Kind.WORK_STATUS: 3,
    Kind.JOB_ASSIGN_UNIQ: 4,
    Kind.STATUS_RES: 5,
    Kind.JOB_ASSIGN_ALL: 5,
}
SUBMITS = frozenset(kind for kind in Kind if kind.name.startswith("SUBMIT_JOB"))
KINDS = {int(kind): kind for kind in Kind}


class Packet(NamedTuple):
    """One packet: its type and its arguments."""

    kind: Kind
    args: tuple[bytes, ...] = ()


def encode(kind: Kind, *args: bytes, magic: bytes = REQUEST) -> bytes:
    """Return the bytes of one packet."""
    body = b"\0".join(args)
    return HEADER.pack(magic, kind, len(body)) + body


class Decoder:
    """Cuts a stream of bytes into packets."""

    def __init__(self, magic: bytes = RESPONSE) -> None:
        self.magic = magic
        self.buffer = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Take bytes in and return the packets that are now whole."""
        self.buffer += data
        packets: list[Packet] = []
        start = 0
        while len(self.buffer) - start >= HEADER.size:
            magic, number, size = HEADER.unpack_from(self.buffer, start)
            assert magic == self.magic, f"wrong magic {magic!r}"
            end = start + HEADER.size + size
            if len(self.buffer) < end:
                break
            kind = KINDS[number]
            count = ARGUMENTS.get(kind, 1)
            body = bytes(memoryview(self.buffer)[start + HEADER.size : end])
            args = tuple(body.split(b"\0", count - 1)) if count else ()
            packets.append(Packet(kind, args))
            start = end
        del self.buffer[:start]
        return packets


class Connection:
    """A blocking connection of a worker or client to a job server, one packet at a time."""

    def __init__(self, port: int, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = Decoder()
        self.arrived: list[Packet] = []
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close at once."""
        self.socket.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def send(self, kind: Kind, *args: bytes) -> None:
        """Send one packet."""
        self.socket.sendall(encode(kind, *args))

    def send_many(self, kind: Kind, many: list[tuple[bytes, ...]]) -> None:
        """Send packets of one kind back to back, without waiting for an answer."""
        self.socket.sendall(b"".join(encode(kind, *args) for args in many))

    def receive(self, within: float | None = None) -> Packet:
        """Return the next packet; fail if none comes in time or the connection ends."""
        seconds = self.timeout if within is None else within
        packet = self._next(seconds)
        assert packet is not None, "connection ended" if self.ended else f"no packet in {seconds} s"
        return packet

    def receive_many(self, count: int) -> list[Packet]:
        """Return the next packets."""
        return [self.receive() for _ in range(count)]

    def receive_to_end(self) -> list[Packet]:
        """Return all packets up to the server's end of the stream."""
        packets = []
        while (packet := self._next(self.timeout)) is not None:
            packets.append(packet)
        assert self.ended, f"the connection did not end in {self.timeout} s"
        return packets

    def is_silent(self, seconds: float) -> bool:
        """Say whether neither a packet nor the end came for so many seconds."""
        packet = self._next(seconds)
        if packet is not None:
            self.arrived.insert(0, packet)
        return packet is None and not self.ended

    def _next(self, seconds: float) -> Packet | None:
        end = time.monotonic() + seconds
        while not self.arrived and not self.ended:
            readable, _, _ = select.select([self.socket], [], [], max(0.0, end - time.monotonic()))
            if not readable:
                return None
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            self.ended = not data
            self.arrived = self.decoder.feed(data)
        return self.arrived.pop(0) if self.arrived else None

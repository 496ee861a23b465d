r"""The wire: the types of packets, what each has for arguments, and one packet as bytes.

Source: gearmand's PROTOCOL file, sections "Binary Packet", "Client/Worker Requests" and so on.
Nothing here does I/O, keeps time or knows which side of a connection it serves.

    4 bytes  magic, "\0REQ" or "\0RES"
    4 bytes  type, big endian
    4 bytes  size of the body, big endian
    body     arguments, NUL between them; the last takes the rest and may hold NULs itself
"""

from enum import IntEnum
from struct import Struct
from typing import Final

REQUEST: Final = b"\0REQ"
RESPONSE: Final = b"\0RES"
HEADER: Final = Struct(">4sII")
HEADER_SIZE: Final = HEADER.size

MAX_PACKET: Final = 64 * 1024 * 1024
"""Default bound of a body in bytes, the same as gearmand's own largest packet by default."""


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
COUNTS: Final = tuple(ARGUMENTS.get(code, -1) for code in range(43))  # type: ignore[call-overload]


def check_args(type_: PacketType, args: tuple[bytes, ...]) -> None:
    """Raise ValueError where the packet would not come out as it went in."""
    if len(args) != COUNTS[type_]:
        raise ValueError(f"{type_.name} takes {COUNTS[type_]} arguments, not {len(args)}")
    for part in args[:-1]:
        if 0 in part:  # seven times as fast as b"\0" in part
            raise ValueError(f"{type_.name}: only the last argument may hold a NUL byte")


def encode(type_: PacketType, *args: bytes, magic: bytes = REQUEST) -> bytes:
    """Return the packet's bytes. ValueError for a wrong argument count or a NUL before the last."""
    check_args(type_, args)
    body = b"\0".join(args)
    return HEADER.pack(magic, type_, len(body)) + body

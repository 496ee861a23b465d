"""The nouns of the protocol: Handle, Job, Server, Priority.

Plain values, compared by value; nothing here does any I/O or knows a packet.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, NewType

Handle = NewType("Handle", bytes)
"""A job's name on one server, as "H:host:17". Starts again at 1 when gearmand restarts."""

DEFAULT_PORT = 4730
"""IANA's port for Gearman."""


class Priority(Enum):
    """The priority of a job at the server it is submitted to."""

    NORMAL = "normal"
    HIGH = "high"
    LOW = "low"


class Job(NamedTuple):
    """A job as JOB_ASSIGN_UNIQ hands it over, in the packet's order.

    A tuple and not a frozen dataclass: made once a job on the hot path, where the dataclass costs
    three times as much (0.45 against 0.15 us here).
    """

    handle: Handle
    function: bytes
    unique: bytes
    workload: bytes


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """A job server's address; `host` is a name or an address, IPv6 without brackets."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

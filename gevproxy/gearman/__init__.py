"""The Gearman protocol, usable on its own.

`Worker` and `Client` are sans-IO: bytes in, events out, and what they want to send waits in their
outbox. `Link` and `Connection` give them a socket; they use the standard library alone and run on
threads as well as on a loop patched by gevent. This package knows nothing of forwards.
"""

from gevproxy.gearman.buffer import Oversized, PacketBuffer, Packets
from gevproxy.gearman.client import Client, Confirmed, Refused, Update
from gevproxy.gearman.connection import Connection
from gevproxy.gearman.job import Handle, Job, Priority, Server
from gevproxy.gearman.link import Link, LinkEvents
from gevproxy.gearman.outbox import Outbox
from gevproxy.gearman.packet import PacketType, encode
from gevproxy.gearman.worker import Assigned, ServerError, Worker

__all__ = [
    "Assigned",
    "Client",
    "Confirmed",
    "Connection",
    "Handle",
    "Job",
    "Link",
    "LinkEvents",
    "Outbox",
    "Oversized",
    "PacketBuffer",
    "PacketType",
    "Packets",
    "Priority",
    "Refused",
    "Server",
    "ServerError",
    "Update",
    "Worker",
    "encode",
]

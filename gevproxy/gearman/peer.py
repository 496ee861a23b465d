"""What a worker and a client have in common: a buffer in, an outbox out, and the ping.

The ping is GET_STATUS of a handle that cannot exist. gearmand answers it at once on every kind of
connection, in PRE_SLEEP too, and so does geard, which never answers ECHO_REQ.
Sans-IO: nothing here reads a clock or a socket.
"""

from typing import Final

from gevproxy.errors import ProtocolError
from gevproxy.gearman.buffer import Oversized, PacketBuffer
from gevproxy.gearman.outbox import Outbox
from gevproxy.gearman.packet import MAX_PACKET, PacketType

PING_HANDLE: Final = b"gevproxy:ping"
"""No server makes handles of this form: gearmand's begin with "H:"."""

MAX_NAME: Final = 1024
"""Bytes of a handle or a unique, which are held with their jobs; gearmand's have 64 at most."""

_MAX_TEXT: Final = 256
"""Bytes of a server's text that are read: texts go into logs, states and dead letters."""


def long_name(what: str, name: bytes) -> ProtocolError:
    """Return what is wrong with a name over MAX_NAME."""
    return ProtocolError(f"a {what} of {len(name)} bytes")


def in_words(part: bytes) -> str:
    """Return what a server says in an ERROR packet, as much of it as anyone reads."""
    return part[:_MAX_TEXT].decode(errors="backslashreplace")


class Peer:
    """Our end of one connection; one instance per connection, so a reset is a new object."""

    __slots__ = ("_buffer", "answered", "outbox", "ping_unanswered")

    def __init__(self, max_packet: int = MAX_PACKET) -> None:
        self._buffer = PacketBuffer(max_packet=max_packet)
        self.outbox = Outbox()
        self.ping_unanswered = False
        self.answered = False  # the server has answered a ping: there is somebody

    @property
    def fault(self) -> ProtocolError | None:
        """How the server broke the protocol; the connection must be dropped then."""
        return self._buffer.fault

    def ping(self) -> None:
        """Ask for a sign of life, unless the last one is still unanswered."""
        if not self.ping_unanswered:
            self.ping_unanswered = True
            self.outbox.add(PacketType.GET_STATUS, PING_HANDLE)

    def receive(self, data: bytes) -> list[object]:
        """Take received bytes; return the events they mean. Look at `fault` afterwards."""
        events: list[object] = []
        for packets in self._buffer.feed(data):
            try:
                if isinstance(packets, Oversized):
                    self._handle_oversized(packets, events)
                else:
                    self._handle(packets.type, packets.many, events)
            except ProtocolError as error:
                self._buffer.fault = error
                break
        return events

    def _handle_oversized(self, packet: Oversized, events: list[object]) -> None:
        """Take a job over `max_packet`."""
        del events
        raise packet.error

    def _handle(self, type_: PacketType, many: list[list[bytes]], events: list[object]) -> None:
        """Take packets of a type that is no business of the subclass."""
        del events
        for args in many:
            if type_ is not PacketType.STATUS_RES or args[0] != PING_HANDLE:
                raise ProtocolError(f"unexpected {type_.name}")
            self.ping_unanswered = False
            self.answered = True

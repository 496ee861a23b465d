"""One socket for a worker or a client: connecting, reading, writing, the ping, the one way out.

Every OSError ends here, as a reason in words. This file uses the standard library alone: it runs
on threads as it is, on greenlets where the process has been patched. It decides nothing about
jobs, and nothing about the next connection.
"""

import contextlib
import fcntl
import ipaddress
import os
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from gevproxy.errors import LinkError
from gevproxy.gearman.job import Server
from gevproxy.gearman.peer import Peer
from gevproxy.gearman.tls import Tls, TlsSocket, reason_of_tls

CONNECT_DEADLINE: Final = 5.0
"""Seconds for each address of a server; the TLS handshake gets what is left of them."""

LEAST_HANDSHAKE: Final = 2.0
"""Seconds that a TLS handshake gets at least, where a dead address of a name has used up the rest.
"""

PING_AFTER: Final = 5.0
"""Seconds without a received byte until we ask for a sign of life."""

SILENT_AFTER: Final = 15.0
"""Seconds without life until a peer counts as gone."""

UNREAD_AFTER: Final = 30.0
"""Seconds in which a peer takes nothing of what waits for it, until it counts as gone, whatever it
says meanwhile. Twice the time of silence: after a hole in the network a kernel may wait so long
until it sends again.
"""

STOOD_STILL: Final = 5.0
"""Seconds between two ticks, which come once a second: from here on we did not listen ourselves."""

MOST_LAST_BYTES: Final = 256 * 1024 * 1024
"""Bytes that are read on the way out, which may take minutes: a thousand jobs that were asked for,
of 256 KiB each. A peer that has more to say is cut off: it has our last word, or never reads.
"""

_RECEIVE: Final = 256 * 1024
"""Bytes asked of one recv: some hundred jobs, and the most that one batch adds to memory."""

Clock = Callable[[], float]
P = TypeVar("P", bound=Peer)
Transport = socket.socket | TlsSocket


def reason_of(error: OSError) -> str:
    """Say in a few words what an OSError means for a connection."""
    if isinstance(error, ssl.SSLError):
        return reason_of_tls(error)
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset by peer"
    if isinstance(error, socket.gaierror):
        return "name not found"
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror or str(error)).lower()


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _open(server: Server) -> socket.socket:
    """Resolve and connect. A plain address never waits in line behind a slow name server."""
    address = (server.host, server.port)
    if "%" in server.host or not _is_numeric(server.host):
        return socket.create_connection(address, CONNECT_DEADLINE)
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_DEADLINE)
        sock.connect(address)
    except BaseException:  # OSError, or our greenlet is killed
        sock.close()
        raise
    return sock


def connect(server: Server, tls: Tls | None) -> Transport:
    """Connect to a server. LinkError with the reason where that fails.

    With `tls` the result speaks TLS with a verified peer; nothing has been sent in plain text.
    """
    begun = time.monotonic()
    try:
        sock = _open(server)
    except OSError as error:
        raise LinkError(reason_of(error)) from error
    except UnicodeError as error:  # a label that IDNA cannot encode
        raise LinkError("name not found") from error
    try:
        if sock.getsockname() == sock.getpeername():
            # A port of this host where nobody listens can be met by our own outgoing port.
            raise ConnectionRefusedError
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:  # getpeername() too, of a peer that accepts and resets at once
        sock.close()
        raise LinkError(reason_of(error)) from error
    if tls is None:
        return sock
    left = CONNECT_DEADLINE - (time.monotonic() - begun)
    return _secure(sock, tls, server.host, max(left, LEAST_HANDSHAKE))


def _secure(sock: socket.socket, tls: Tls, host: str, seconds: float) -> TlsSocket:
    """Put TLS on a connected socket, which is closed where that fails."""
    try:
        secured = TlsSocket(sock, tls, host)
        secured.handshake(seconds)
    except OSError as error:
        sock.close()
        raise LinkError(reason_of(error)) from error
    except BaseException:  # LinkError, or our greenlet is killed
        sock.close()
        raise
    return secured


class Life:
    """Decides whether a peer is alive: silence is a fault, slowness is not.

    Life is a received byte, or a backlog that has shrunk: something that was queued before the
    last tick is still not acknowledged, and acknowledgements have come since. Acknowledged bytes
    alone are no life, for a frozen peer's kernel goes on acknowledging small writes. Without the
    second, one large job on a thin link would be cut and started again for ever. Time in which we
    stood still ourselves, frozen with our host, is nobody's silence.
    Nor is it enough to talk: a peer that takes nothing of what waits for it is of no use.
    Pure; all times are seconds of one monotonic clock.
    """

    __slots__ = ("_acknowledged", "_queued", "_ticked_at", "last_byte", "last_life", "last_taken")

    def __init__(self, now: float) -> None:
        self.last_byte = now
        self.last_life = now
        self.last_taken = now
        self._ticked_at = now
        self._queued = 0
        self._acknowledged = 0

    def received(self, now: float) -> None:
        """Book a received byte."""
        self.last_byte = now
        self.last_life = now

    def tick(self, now: float, *, queued: int, acknowledged: int, reading: bool) -> None:
        """Compare with the last tick: bytes ever queued, bytes ever acknowledged by the kernel.

        While we do not read (`reading` is false) the clocks stand still.
        """
        gap = now - self._ticked_at
        self._ticked_at = now
        if gap > STOOD_STILL:
            self.last_life = min(now, self.last_life + gap)
            self.last_taken = min(now, self.last_taken + gap)
        if not reading or acknowledged > self._acknowledged or acknowledged >= queued:
            self.last_taken = now
        if not reading or self._acknowledged < acknowledged < self._queued:
            self.last_life = now
        self._queued = queued
        self._acknowledged = acknowledged

    def wants_ping(self, now: float) -> bool:
        """Tell whether it is time to ask for a sign of life."""
        return now - self.last_byte >= PING_AFTER

    def is_silent(self, now: float) -> bool:
        """Tell whether the peer counts as gone."""
        return now - self.last_life >= SILENT_AFTER

    def is_deaf(self, now: float) -> bool:
        """Tell whether the peer has long taken nothing, although something waits for it."""
        return now - self.last_taken >= UNREAD_AFTER


class Connection(Generic[P]):
    """One socket with its peer object, from the connect to the last byte.

    `run` reads until the peer or the network ends it and returns the reason; `write` runs beside
    it. `end` is the one way out: flush, shutdown(SHUT_WR), read to the end, at most `linger`
    seconds. Neither `end` nor `abort` blocks its caller.
    """

    def __init__(self, sock: Transport, peer: P, clock: Clock) -> None:
        self.peer = peer
        self._sock = sock
        self._clock = clock
        self._life = Life(clock())
        self._sent = 0  # bytes given to the kernel
        self._heard = 0  # bytes of TLS that had come by the last tick
        self._wake = threading.Event()  # the writer has something to do
        self._may_read = threading.Event()
        self._may_read.set()
        self._closed = threading.Event()
        self._ending = False
        self._last_bytes = 0  # read since then
        self._broken = ""  # how sending failed, which the reader then reports
        # On a patched loop alone a descriptor is never waited for, and nobody runs beside us.
        self._direct = isinstance(sock, socket.socket) and not os.get_blocking(sock.fileno())
        self._idle = False  # the writer has nothing to do, and `flush` may send in its place
        self._rest: bytes | memoryview = b""  # what the kernel did not take of that

    def run(self, on_data: Callable[["Connection[P]", bytes], None]) -> str:
        """Read until the end, one batch after the other; return the reason in words."""
        try:
            while not self._closed.is_set():
                if not self._may_read.is_set():
                    self._may_read.wait()
                    # Look again: what was cut meanwhile is closed with its data unread, so that
                    # the kernel resets it. Read empty, it would leave a window of 0 behind, and
                    # gearmand lingers in close() for 10 s, a quarter of its clients with it.
                    continue
                data = self._sock.recv(_RECEIVE)
                if not data:
                    break
                if not self._ending:
                    self._life.received(self._clock())
                    on_data(self, data)
                elif self._is_too_much(data):
                    break
                # A reader that always finds data would starve every timer.
                time.sleep(0)
        except OSError as error:
            # An alert of TLS says why; that we could not send any more after it does not.
            alert = self._sock.last_words() if isinstance(self._sock, TlsSocket) else ""
            return alert or self._broken or reason_of(error)
        finally:
            self.abort()
            self._sock.close()
        return self._broken or "closed by peer"

    def _is_too_much(self, data: bytes) -> bool:
        """Count what comes on the way out."""
        self._last_bytes += len(data)
        return self._last_bytes > MOST_LAST_BYTES

    def write(self) -> None:
        """Send what the outbox holds, until the end."""
        outbox = self.peer.outbox
        try:
            while not self._closed.is_set():
                piece = self._rest or outbox.take()
                self._rest = b""
                if piece:
                    self._send(piece)
                elif self._ending:
                    self._sock.shutdown(socket.SHUT_WR)
                    return
                else:
                    self._idle = self._direct
                    self._wake.wait()
                    self._wake.clear()
                    self._idle = False
        except OSError as error:
            self._broken = reason_of(error)
            self.abort()

    def _send(self, piece: bytes | memoryview) -> None:
        """Send all of `piece`, counting as the kernel takes it."""
        sent = self._sock.send(piece)
        self._sent += sent
        if sent < len(piece):
            with memoryview(piece) as view:
                while sent < len(piece):
                    count = self._sock.send(view[sent:])
                    self._sent += count
                    sent += count

    def flush(self) -> None:
        """Send what the outbox holds, or let the writer do it."""
        if self.peer.outbox.size:
            if self._idle and not self._closed.is_set():
                self._send_at_once()
            else:
                self._wake.set()

    def _send_at_once(self) -> None:
        """Send what the kernel takes without waiting; the rest is the writer's.

        A woken writer would run a turn of the loop later, just before the reader of this very
        connection, which then finds nothing and has to be woken for the first packet of an answer:
        rows stay small, and everything that is done once for a row is done for every job.
        """
        outbox = self.peer.outbox
        while piece := outbox.take():
            try:
                sent = os.write(self._sock.fileno(), piece)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._broken = reason_of(error)
                self.abort()
                return
            self._sent += sent
            if sent < len(piece):
                self._rest = memoryview(piece)[sent:]
                self._idle = False
                self._wake.set()
                return

    def read(self, allowed: bool) -> None:
        """Stop or go on reading. What the peer sends meanwhile stays in the kernel, and with it."""
        if allowed or self._ending:
            self._may_read.set()
        else:
            self._may_read.clear()

    def tick(self, now: float) -> bool:
        """Ping where it is time; return False where the peer counts as silent."""
        peer, life = self.peer, self._life
        queued, sent = peer.outbox.total, self._sent
        if isinstance(self._sock, TlsSocket):
            queued, sent = self._on_the_wire(self._sock, now)
        life.tick(
            now,
            queued=queued,
            acknowledged=sent - self._unacknowledged(),
            reading=self._may_read.is_set(),
        )
        if life.wants_ping(now):
            peer.ping()
            self.flush()
        return not life.is_silent(now)

    def is_deaf(self, now: float) -> bool:
        """Tell whether the peer reads nothing of what we send."""
        return self._life.is_deaf(now)

    def _on_the_wire(self, sock: TlsSocket, now: float) -> tuple[int, int]:
        """Return the bytes ever queued and ever sent as TLS makes them, which the kernel counts.

        On a thin link a record is under way for seconds until `recv` has something to give: its
        bytes are life as well.
        """
        if sock.received != self._heard:
            self._heard = sock.received
            self._life.received(now)
        return sock.made + self.peer.outbox.total - sock.taken, sock.sent

    def _unacknowledged(self) -> int:
        """Return the bytes in the kernel's send queue (SIOCOUTQ, tcp(7))."""
        try:
            raw = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):  # closed meanwhile
            return 0
        return int(struct.unpack("i", raw)[0])

    def end(self, *, discard: bool) -> None:
        """Begin the way out; `discard` forgets what was not sent."""
        if discard:
            self.peer.outbox.clear()
        self._ending = True
        self._may_read.set()
        self._wake.set()

    def linger(self, seconds: float) -> None:
        """Wait for the end of the way out, then cut it short. Blocks."""
        if not self._closed.wait(seconds):
            self.abort()

    def break_off(self, reason: str) -> None:
        """Cut the connection now, and let `run` return this reason."""
        self._broken = reason
        self.abort()

    def abort(self) -> None:
        """Cut the connection now. The reader wakes from it and closes the socket."""
        self._closed.set()
        self._wake.set()
        self._may_read.set()
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.shutdown(socket.SHUT_RDWR)

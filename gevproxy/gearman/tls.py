"""TLS on a connected socket: the handshake, and a stand-in for the socket afterwards.

The socket stays as it is, and TLS (OpenSSL, through two buffers in memory) stands between it and
the connection. So the kernel's send queue can still be asked for, one greenlet may read while
another writes, and neither ever waits for the other. There is no way from here to plain text:
what is not verified ends in an error, and the caller has no socket.
Standard library alone, as connection.py above it; knows no file.
"""

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from typing import Final, Self

from gevproxy.errors import LinkError
from gevproxy.gearman.certificate import read_der

_RECORD: Final = 16 * 1024
"""Bytes: the most that one TLS record carries, and so one read of OpenSSL gives."""

_PIECE: Final = 64 * 1024
"""Bytes encrypted at a time: what a blocked socket keeps in memory twice."""

_VERIFY_WORDS: Final = {
    9: "it is not valid yet: is this host's clock right?",
    10: "it, or its CA, has expired",
    18: "it is signed by itself and not the CA that we trust",
    19: "it is not signed by the CA that we trust",
    20: "it is not signed by the CA that we trust",
    62: "wrong name",
    64: "wrong name",
}
"""OpenSSL's verify codes (X509_V_ERR_*) that operators meet."""

_WRONG_NAME: Final = (62, 64)

_NO_TLS: Final = "the peer does not speak TLS"
_OLD_TLS: Final = "the peer does not speak TLS 1.2 or newer"
_NO_COMMON: Final = "no common ground with the peer (ciphers, or it wants a client certificate)"
_REFUSED: Final = "the peer refuses our certificate"

_WORDS: Final = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _OLD_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD_TLS,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": _NO_COMMON,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": _NO_COMMON,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer demands a client certificate",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer demands a client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": f"{_REFUSED}: it does not trust our CA",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_REFUSED}: expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": f"{_REFUSED}: revoked",
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": f"{_REFUSED}: of a kind that it does not take",
    "TLSV1_ALERT_ACCESS_DENIED": _REFUSED,
    "TLSV1_UNRECOGNIZED_NAME": "the peer does not know the name that we ask for",
}
"""OpenSSL's reasons that operators meet."""


def reason_of_tls(error: ssl.SSLError) -> str:
    """Say in a few words what an error of OpenSSL means for a connection."""
    if isinstance(error, ssl.SSLCertVerificationError):
        words = _VERIFY_WORDS.get(error.verify_code, error.verify_message)
        return f"certificate verify failed: {words}"
    if isinstance(error, ssl.SSLEOFError):
        return "closed by peer without the end that TLS demands"
    reason = error.reason or ""
    return _WORDS.get(reason) or f"TLS: {reason.lower().replace('_', ' ') or 'unknown error'}"


class Tls:
    """How to speak TLS with one server, and what was last seen of its certificate.

    `server_name` is the name that its certificate must carry where that is not the host's, `pins`
    are SHA-256 sums of public keys of which it must have one. `fingerprint` stands for everything
    that this was made of. Of several authorities the first `ca_expires`, and the last `ca_lasts`.
    Times count as time.time() does; None is unknown.
    """

    __slots__ = (
        "ca_expires",
        "ca_lasts",
        "context",
        "expires",
        "fingerprint",
        "peer_expires",
        "pins",
        "server_name",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_name: str | None = None,
        pins: frozenset[bytes] = frozenset(),
        fingerprint: bytes = b"",
        expires: float | None = None,
        ca_expires: float | None = None,
        ca_lasts: float | None = None,
    ) -> None:
        self.context = context
        self.server_name = server_name
        self.pins = pins
        self.fingerprint = fingerprint
        self.expires = expires
        self.ca_expires = ca_expires
        self.ca_lasts = ca_lasts
        self.peer_expires: float | None = None

    def session(self, host: str) -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
        """Return a new session with its buffers, in and out. ValueError for a name that is none."""
        # No certificate knows our interfaces, or the dot at the end of a whole name.
        name = (self.server_name or host.partition("%")[0]).removesuffix(".")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return self.context.wrap_bio(incoming, outgoing, server_hostname=name), incoming, outgoing


def client_context() -> ssl.SSLContext:
    """Return a context that trusts nobody yet: TLS 1.2 or newer, peer and name are verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Without it a write may have to wait for a read.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


class TlsSocket:
    """A connected socket with TLS on it, in the place of a plain one: for one reader, one writer.

    Takes over the socket. The bytes of the wire are counted, for they are what the kernel's send
    queue holds: `made` were encrypted out of `taken` (the handshake is of nothing), `sent` are
    with the kernel, `received` came.
    """

    def __init__(self, sock: socket.socket, tls: Tls, host: str) -> None:
        self._sock = sock
        self._tls = tls
        self._host = host
        self._session, self._incoming, self._outgoing = tls.session(host)
        # On greenlets nothing yields inside it; on threads OpenSSL needs it.
        self._lock = threading.Lock()
        self._fault: OSError | None = None  # to be raised when all before it has been read
        self._ended = False
        self.made = self.taken = self.sent = self.received = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def handshake(self, seconds: float) -> None:
        """Agree on keys and verify the peer. LinkError, within so many seconds, where that fails.

        That we may not come in (no client certificate, or one that the peer does not take) is said
        by TLS 1.3 later: the first `recv` raises it.
        """
        deadline = time.monotonic() + seconds
        try:
            while not self._shake_hands():
                self._wait_until(deadline)
        except TimeoutError as error:
            raise LinkError("no answer to the TLS handshake: does the peer speak TLS?") from error
        except ConnectionError as error:
            raise LinkError("reset by peer in the TLS handshake: does it speak TLS?") from error
        except ssl.SSLEOFError as error:
            raise LinkError("closed by peer in the TLS handshake: does it speak TLS?") from error
        except ssl.SSLCertVerificationError as error:
            name = self._session.server_hostname
            told = f": it is not for {name}" if error.verify_code in _WRONG_NAME else ""
            raise LinkError(reason_of_tls(error) + told) from error
        self._sock.settimeout(None)
        self._look_at_peer()

    def _wait_until(self, deadline: float) -> None:
        """Take in what the peer has to say next. TimeoutError when the time is up."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        self._take_in(self._sock.recv(_PIECE))

    def _shake_hands(self) -> bool:
        """Go one step; return whether it was the last."""
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        except ssl.SSLError:
            self._flush()  # the alert: its log should say why, too
            raise
        else:
            done = True
        self._flush()
        return done

    def _look_at_peer(self) -> None:
        """Remember until when the peer's certificate holds, and compare its key with the pins."""
        der = self._session.getpeercert(binary_form=True)
        if der is None:
            raise LinkError("the peer showed no certificate")
        certificate = read_der(der)
        self._tls.peer_expires = certificate.not_after
        pins = self._tls.pins
        if pins and hashlib.sha256(certificate.public_key).digest() not in pins:
            raise LinkError("the peer's public key is not one of pin_sha256")

    @property
    def version(self) -> str:
        """The version of TLS that was agreed on."""
        return self._session.version() or ""

    def recv(self, size: int) -> bytes:
        """Return what has come, whole records, more than `size` at times; b"" at the end."""
        with self._lock:
            data = self._decrypt()
        while not data and not self._ended:
            wire = self._sock.recv(size)
            with self._lock:  # a whole record is never seen by `shutdown`
                self._take_in(wire)
                data = self._decrypt()
        return data

    def _take_in(self, data: bytes) -> None:
        self.received += len(data)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypt(self) -> bytes:
        """Return all that can be decrypted.

        What OpenSSL wants to answer (a change of keys) waits for the next `send`: RFC 8446 asks
        for no more, and the reader may not write between the writer's bytes.
        """
        if self._fault is not None:
            raise self._fault
        records = []
        try:
            while not self._ended:
                record = self._session.read(_RECORD)
                if record:
                    records.append(record)
                else:
                    self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            self._fault = error
            if not records:
                raise
        return b"".join(records)

    def last_words(self) -> str:
        """Return in words why TLS has failed, or why the peer says so; "" if it has not.

        For the reader of a connection that is over. The peer's word may still be in the kernel:
        whoever could not send any more has woken the reader before it came to that.
        """
        self._sock.settimeout(0)
        try:
            while self.recv(_PIECE):
                pass
        except OSError as error:
            if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
                return reason_of_tls(error)
        return ""

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send the beginning of `data`; return how many bytes of it."""
        with memoryview(data)[:_PIECE] as piece:
            done = 0
            with self._lock:
                while done < len(piece):
                    done += self._session.write(piece[done:])
                self.taken += done
        self._flush()
        return done

    def sendall(self, data: bytes) -> None:
        """Encrypt and send all of `data`."""
        done = 0
        with memoryview(data) as view:
            while done < len(view):
                done += self.send(view[done:])

    def _flush(self) -> None:
        """Send what is encrypted. Called by the writer alone."""
        with self._lock:
            wire = self._outgoing.read()
        self.made += len(wire)
        with memoryview(wire) as view:
            done = 0
            while done < len(view):
                count = self._sock.send(view[done:])
                self.sent += count
                done += count

    def shutdown(self, how: int) -> None:
        """Close one direction, with the close_notify that TLS demands, or cut both without."""
        if how == socket.SHUT_WR:
            # Mostly "want read": the peer's own close_notify is still to come. All whole records
            # have been read by now, so that none is lost to this look for it.
            with self._lock, contextlib.suppress(ssl.SSLError):
                self._session.unwrap()
            self._flush()
        self._sock.shutdown(how)

    def settimeout(self, seconds: float | None) -> None:
        """Set the deadline of each wait for the kernel."""
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

"""The metrics over HTTP: /metrics for Prometheus, /-/healthy and /-/ready for probes.

Bounded in every way, for whoever can connect may ask: connections at once, bytes and seconds of a
request, seconds of an answer. One request a connection. What is told is the daemon's. The package
prometheus_client is imported only when metrics are asked for.
"""

import contextlib
import errno
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore

from gevproxy.config import MetricsConfig
from gevproxy.errors import ConfigError, Problem
from gevproxy.events import Event
from gevproxy.gearman.connection import reason_of
from gevproxy.listener import Listener
from gevproxy.log import EventLog

if TYPE_CHECKING:
    from gevproxy.metrics import Reading

DEADLINE: Final = 5.0
"""Seconds for a request to arrive, whole."""

ANSWER_DEADLINE: Final = 10.0
"""Seconds for an answer to be taken, whole: Prometheus waits no longer either."""

MAX_REQUEST: Final = 8192
"""Bytes of a request's head; a body is not read."""

AT_ONCE: Final = 8
"""Connections that are served at a time; the next wait for one of them to end."""

_WAITING: Final = 16
"""Connections that the kernel keeps for us."""

_UNSENT: Final = 64 * 1024
"""Bytes of an answer that the kernel keeps for a peer that does not read."""

_PAUSE: Final = 0.0005
"""Seconds for which others have their turn; 0 would not let the loop look at its sockets."""

_LINGER: Final = 1.0
"""Seconds in which what a peer still sends is thrown away, so that it gets to read our answer."""

_IP_FREEBIND: Final = 15
"""Of ip(7): listen at an address that this host has not got yet, as when it boots."""

_PAGE: Final = resource.getpagesize()

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What the daemon tells. `unhealthy` and `unready` return reasons, "" where all is well."""

    reading: Callable[[Mapping[int, int]], "Reading"]
    unhealthy: Callable[[], str]
    unready: Callable[[], str]


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    body: bytes
    kind: str = _TEXT


class _RefusedError(Exception):
    """A request that is none; the code of its answer, and words for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class MetricsServer:
    """Listens where the configuration says, and nowhere without one."""

    def __init__(self, sources: Sources, log: EventLog) -> None:
        self._sources = sources
        self._log = log
        self._config: MetricsConfig | None = None
        self._listener: Listener | None = None
        self._requests: Counter[int] = Counter({200: 0})
        self._rendering = BoundedSemaphore()

    def use(self, config: MetricsConfig | None) -> None:
        """Listen there from now on. ConfigError where that fails, and all is as it was."""
        before = self._config
        if config == before:
            return
        # The port may be the same and only the address another: then both cannot be open at once.
        same_port = config is not None and before is not None and config.port == before.port
        if same_port:
            self.stop()
        try:
            sock = None if config is None else _listen(config)
        except ConfigError:
            if same_port and before is not None:
                self._start(before, _listen(before))
            raise
        self.stop()
        if config is not None and sock is not None:
            self._start(config, sock)

    def _start(self, config: MetricsConfig, sock: socket.socket) -> None:
        import_module("gevproxy.metrics")  # now, and not while the first of them are waited for
        self._config = config
        self._listener = Listener(sock, self._serve, AT_ONCE, self._on_failed)
        self._listener.start()
        self._log.emit(Event.METRICS_UP, f"metrics are served at http://{config}/metrics")

    def stop(self) -> None:
        """Close; what is under way is cut."""
        if self._listener is not None:
            self._listener.stop(timeout=0)
        self._listener = self._config = None

    def _on_failed(self, error: OSError) -> None:
        text = f"connections cannot be accepted: {reason_of(error)}"
        self._log.sparse(Event.METRICS_ABSENT, text)

    # One connection.

    def _serve(self, sock: socket.socket, _address: object) -> None:
        """Answer one request; the listener closes the connection afterwards."""
        head = False
        try:
            method, path = _parse(_read_head(sock))
            head = method == "HEAD"
            answer = self._answer(path)
        except _RefusedError as refused:
            answer = _Answer(refused.code, f"{refused}\n".encode())
            if refused.code != 404:  # noqa: PLR2004 - a path that is not there is no fault
                self._log.sparse(Event.METRICS_REFUSED, str(refused))
        except OSError:
            return  # whoever asked has gone, or has asked nothing
        except Exception as error:  # noqa: BLE001 - it is reported, and the next one is answered
            self._log.emit(Event.METRICS_FAILED, repr(error), exc_info=error)
            answer = _Answer(500, b"gevproxy met an error that nobody expected; its log has it\n")
        self._requests[answer.code] += 1
        self._send(sock, answer, head=head)

    def _answer(self, path: str) -> _Answer:
        match path:
            case "/metrics":
                return self._metrics()
            case "/-/healthy":
                return _verdict(self._sources.unhealthy(), "healthy")
            case "/-/ready":
                return _verdict(self._sources.unready(), "ready")
            case _:
                raise _RefusedError(404, "there are /metrics, /-/healthy and /-/ready")

    def _metrics(self) -> _Answer:
        from gevproxy.metrics import CONTENT_TYPE, render  # noqa: PLC0415 - not without the option

        # One at a time: it is work for the loop that all share.
        if not self._rendering.acquire(timeout=ANSWER_DEADLINE):
            raise _RefusedError(503, "too many requests for metrics at once")
        try:
            text = render(self._sources.reading(self._requests), lambda: gevent.sleep(_PAUSE))
        finally:
            self._rendering.release()
        return _Answer(200, text, CONTENT_TYPE)

    def _send(self, sock: socket.socket, answer: _Answer, *, head: bool) -> None:
        allow = "Allow: GET, HEAD\r\n" if answer.code == 405 else ""  # noqa: PLR2004 - HTTP's
        header = (
            f"HTTP/1.1 {answer.code} {_REASONS[answer.code]}\r\n{allow}"
            f"Content-Type: {answer.kind}\r\nContent-Length: {len(answer.body)}\r\n"
            "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        try:
            with gevent.Timeout(ANSWER_DEADLINE, TimeoutError()):
                sock.sendall(header.encode() + (b"" if head else answer.body))
        except TimeoutError:
            text = f"an answer was not taken within {ANSWER_DEADLINE:g} s"
            self._log.sparse(Event.METRICS_REFUSED, text)
            return
        except OSError:
            return  # whoever asked has gone
        _see_off(sock)


def _verdict(reasons: str, word: str) -> _Answer:
    if reasons:
        return _Answer(503, f"not {word}: {reasons}\n".encode(errors="backslashreplace"))
    return _Answer(200, f"{word}\n".encode())


def _read_head(sock: socket.socket) -> bytes:
    """Return a request up to its empty line. OSError where nothing was asked."""
    head = b""
    try:
        with gevent.Timeout(DEADLINE, TimeoutError()):
            while b"\r\n\r\n" not in head and b"\n\n" not in head:
                if len(head) >= MAX_REQUEST:
                    raise _RefusedError(431, f"a request is larger than {MAX_REQUEST} bytes")
                data = sock.recv(MAX_REQUEST - len(head))
                if not data:
                    raise ConnectionResetError
                head += data
    except TimeoutError as error:
        raise _RefusedError(408, f"no whole request within {DEADLINE:g} s") from error
    return head


def _parse(head: bytes) -> tuple[str, str]:
    """Return method and path, without what follows a question mark."""
    words = head.splitlines()[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, path, version
        raise _RefusedError(400, "a request is no HTTP/1.1")
    method, path, _ = words
    if method not in ("GET", "HEAD"):
        raise _RefusedError(405, "a request has a method that is neither GET nor HEAD")
    return method, path.partition("?")[0]


def _see_off(sock: socket.socket) -> None:
    """Close our side and let the other close too: unread bytes would reset what we have sent."""
    with contextlib.suppress(OSError), gevent.Timeout(_LINGER, False):
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(MAX_REQUEST):
            pass


def _listen(config: MetricsConfig) -> socket.socket:
    """Return a listening socket. ConfigError where there can be none, with the remedy."""
    sock = None
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)  # handed on by accept()
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((config.host, config.port))
        sock.listen(_WAITING)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        text = f"metrics cannot be served at {config}: {reason_of(error)}: {_remedy(error, config)}"
        raise ConfigError((Problem(config.file, config.line, "/metrics/listen", text),)) from error
    return sock


def _remedy(error: OSError, config: MetricsConfig) -> str:
    if isinstance(error, PermissionError):
        return "a port below 1024, or one that the unit does not allow (SocketBindAllow=)?"
    if error.errno != errno.EADDRINUSE:
        return "name another address"
    return f"name a free port; `ss -ltnp sport = :{config.port}` tells who has it"


def process(started_at: float) -> dict[str, float]:
    """Return the values of the process, as Prometheus's own libraries call them."""
    found = {
        "process_cpu_seconds": time.process_time(),
        "process_start_time_seconds": started_at,
        "process_max_fds": float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    }
    with contextlib.suppress(OSError, ValueError, IndexError):  # no /proc, or no descriptor left
        found["process_open_fds"] = float(sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        found["process_resident_memory_bytes"] = float(pages * _PAGE)
    return found

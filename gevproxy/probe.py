"""Is the firewall open? Tries both ends of every forward and says what it saw.

For `check --connect`. Submits nothing, takes nothing, and leaves nothing behind but a line in a
job server's log.
"""

import contextlib
import re
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from gevproxy.config import Config, QueueAddress
from gevproxy.errors import LinkError
from gevproxy.gearman import Client, Server
from gevproxy.gearman.connection import Transport, connect, reason_of
from gevproxy.gearman.tls import Tls, TlsSocket

DEADLINE: Final = 5.0
"""Seconds for each answer of a server."""

_LONGEST_ANSWER: Final = 16 * 1024 * 1024
"""Bytes of `status` that are read: some hundred thousand queues."""

_REMEDIES: Final = {
    "refused": "nothing listens there, or a firewall rejects us",
    "no answer": "a firewall drops our packets, or the host is down",
    "name not found": "check the name and the name server",
}


_STRANGER: Final = "no Gearman server? Or does it demand TLS (servers)?"


@dataclass(frozen=True, slots=True)
class Queue:
    """A line of the admin command `status`."""

    waiting: int
    workers: int


@dataclass(slots=True)
class Finding:
    """What one server answered; `failure` is empty where all is well."""

    failure: str = ""
    version: str = ""
    round_trip: float = 0.0  # seconds
    tls: str = ""  # the version, where TLS is spoken
    queues: dict[str, Queue] = field(default_factory=dict)


def probe_server(server: Server, tls: Tls | None) -> Finding:
    """Resolve, connect, ping; then ask for version and queues. Takes at most some deadlines."""
    finding = Finding()
    try:
        with connect(server, tls) as sock:
            sock.settimeout(DEADLINE)
            if isinstance(sock, TlsSocket):
                finding.tls = sock.version
            finding.round_trip = _ping(sock)
    except LinkError as error:
        remedy = _REMEDIES.get(str(error))
        finding.failure = f"connect: {error}" + (f" ({remedy})" if remedy else "")
        return finding
    except TimeoutError:
        finding.failure = f"ping: no answer within {DEADLINE:g} s: {_STRANGER}"
        return finding
    except ssl.SSLError as error:  # TLS 1.3 says only now that we may not come in
        finding.failure = f"connect: {reason_of(error)}"
        return finding
    except OSError as error:
        finding.failure = f"ping: {reason_of(error)} before it was answered: {_STRANGER}"
        return finding
    # Not every Gearman server speaks the text protocol; what it says is welcome, no more.
    with contextlib.suppress(LinkError, OSError), connect(server, tls) as sock:
        sock.settimeout(DEADLINE)
        finding.version = _ask(sock, b"version\n", b"\n").removeprefix("OK ").strip()
        finding.queues = dict(_read_status(_ask(sock, b"status\n", b"\n.\n")))
    return finding


def _ping(sock: Transport) -> float:
    """Return the seconds until a ping was answered. LinkError where it was not by Gearman."""
    peer: Client[None] = Client()
    peer.ping()
    begun = time.monotonic()
    with contextlib.suppress(ConnectionError):  # why it hung up on us is still to be read
        sock.sendall(peer.outbox.take())
    while not peer.answered:
        data = sock.recv(65536)
        if not data:
            raise ConnectionResetError
        peer.receive(data)
        if peer.fault is not None:
            raise LinkError(str(peer.fault))
        if time.monotonic() - begun > DEADLINE:
            raise TimeoutError
    return time.monotonic() - begun


def _ask(sock: Transport, command: bytes, end: bytes) -> str:
    """Send an admin command; return the answer up to `end`, or what came of it."""
    sock.sendall(command)
    answer = b"\n"  # so that an empty listing, a single dot, ends like any other
    while not answer[1:].endswith(end) and answer != b"\n.\n" and len(answer) < _LONGEST_ANSWER:
        data = sock.recv(65536)
        if not data:
            break
        answer += data
    return answer[1:].decode(errors="backslashreplace")


def _read_status(answer: str) -> Iterator[tuple[str, Queue]]:
    """Read lines of "queue TAB total TAB running TAB workers"; total counts the running jobs."""
    lines = re.findall(r"^(\S+)\t(\d+)\t(\d+)\t(\d+)$", answer, re.MULTILINE)
    for name, total, running, workers in lines:
        yield name, Queue(waiting=int(total) - int(running), workers=int(workers))


def probe_servers(servers: Iterable[Server], tls: Mapping[Server, Tls]) -> dict[Server, Finding]:
    """Probe all servers at once: one black hole must not hold up the others."""
    findings: dict[Server, Finding] = {}

    def probe(server: Server) -> None:
        findings[server] = probe_server(server, tls.get(server))

    threads = [threading.Thread(target=probe, args=(server,)) for server in set(servers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return findings


def report(config: Config, tls: Mapping[Server, Tls]) -> tuple[list[str], bool]:
    """Probe both ends of every forward; return lines for a person and whether all is well."""
    ends = [end for forward in config.forwards for end in (forward.source, forward.target)]
    findings = probe_servers((end.server for end in ends), tls)
    lines = []
    for forward in config.forwards:
        lines.append(f"{forward.source} -> {forward.target}")
        lines.append("  source " + _describe(forward.source, findings, "relays or workers"))
        lines.append("  target " + _describe(forward.target, findings, "workers"))
    return lines, not any(finding.failure for finding in findings.values())


def _describe(end: QueueAddress, findings: dict[Server, Finding], who: str) -> str:
    finding = findings[end.server]
    if finding.failure:
        return f"FAILED  {end.server}: {finding.failure}"
    queue = finding.queues.get(end.queue)
    state = f"{queue.waiting} jobs waiting, {queue.workers} {who}" if queue else "no such queue yet"
    version = finding.version or "of unknown version"
    tls = f"{finding.tls}, " if finding.tls else ""
    return (
        f"ok      {end.server}: {tls}gearmand {version}, {finding.round_trip * 1000:.1f} ms, "
        f"{end.queue}: {state}"
    )

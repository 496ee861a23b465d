"""A scraper, a promtool, and requests that no scraper would send."""

import http.client
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.kit.means import lack

Series = tuple[str, frozenset[tuple[str, str]]]


class Response(NamedTuple):
    """An answer as it came."""

    code: int
    headers: Mapping[str, str]
    body: bytes


def get(port: int, path: str = "/metrics", method: str = "GET") -> Response:
    """Ask as Prometheus does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return Response(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def raw(port: int, request: bytes) -> bytes:
    """Send bytes and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def scrape(port: int) -> dict[Series, float]:
    """Return every series and its value."""
    answer = get(port)
    assert answer.code == 200, answer
    return dict(series(answer.body.decode()))


def series(text: str) -> Iterator[tuple[Series, float]]:
    """Read the text format."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield (sample.name, frozenset(sample.labels.items())), sample.value


def value(found: Mapping[Series, float], name: str, **labels: str) -> float | None:
    """Return the value of one series; None where there is none."""
    return found.get((name, frozenset(labels.items())))


def counters(found: Mapping[Series, float]) -> dict[Series, float]:
    """Return what may never fall."""
    ends = ("_total", "_bucket", "_count", "_sum")
    return {key: number for key, number in found.items() if key[0].endswith(ends)}


def promtool(*arguments: str | Path, text: bytes = b"") -> str:
    """Run promtool and return what it says; it must be content."""
    here = Path(sys.prefix) / "bin" / "promtool"
    program = str(here) if here.is_file() else shutil.which("promtool")
    if program is None:
        lack("promtool is not installed (Debian: prometheus; `make test` brings it)")
    done = subprocess.run(
        [program, *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()

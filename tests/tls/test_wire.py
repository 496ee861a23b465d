"""What is on the wire, and what TLS itself can do to a connection."""

import os
import socket
import ssl
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from gevproxy.config import TlsConfig
from gevproxy.errors import LinkError
from gevproxy.gearman import Server
from gevproxy.gearman.connection import connect
from gevproxy.gearman.tls import Tls, TlsSocket
from gevproxy.tls_files import read_tls
from tests.kit.eventually import eventually
from tests.kit.means import lack
from tests.kit.peers import Consumer, Job, submit
from tests.kit.ports import free_port
from tests.kit.relay import config
from tests.kit.servers import Gearmand, Stunnel
from tests.relay.forwarding import CheckedRelay
from tests.tls.ends import Papers, tls

ALL_PROTOCOLS = 3  # ETH_P_ALL
ETHERNET, IP_PORTS = 14, 4  # bytes of a header; of the two ports after the one of IP
SECRET = b"nobody may read this "
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Capture:
    """All that passes some ports of loopback, by port, as tcpdump would see it."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.seen: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        try:
            self.socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)
            )
        except PermissionError:
            lack("only root may capture")
        self.socket.bind(("lo", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join()
        self.socket.close()

    def _run(self) -> None:
        while not self.stopping.is_set():
            try:
                frame = self.socket.recv(1 << 17)
            except TimeoutError:
                continue
            begin = ETHERNET + (frame[ETHERNET] & 15) * 4
            for port in self.ports:
                if port.to_bytes(2) in (frame[begin : begin + 2], frame[begin + 2 : begin + 4]):
                    self.seen[port] += frame[begin + IP_PORTS :]


def test_a_capture_shows_no_plain_text(
    papers: Papers, gearmand_a: Gearmand, gearmand_b: Gearmand
) -> None:
    """Nor a queue's name or a packet of Gearman; the same capture of a plain forward shows all."""
    plain = [SECRET, b"queue_one", b"\0REQ", b"\0RES"]
    with (
        Stunnel(gearmand_b.port, papers.server) as end,
        Gearmand() as bare,
        Capture(end.port, bare.port) as capture,
    ):
        queues = {
            f"{gearmand_a.address}/secure": f"{end.address}/queue_one",
            f"{gearmand_a.address}/bare": f"{bare.address}/queue_one",
        }
        servers = {end.address: tls(papers.ours)}
        with (
            CheckedRelay(config(queues, servers=servers)) as relay,
            Consumer(gearmand_b.port, b"queue_one") as first,
            Consumer(bare.port, b"queue_one") as second,
        ):
            for name in (b"secure", b"bare"):
                jobs = [Job(name, b"u%d" % n, SECRET * (n + 1)) for n in range(300)]
                submit(gearmand_a.port, jobs)
            first.wait_for(300)
            second.wait_for(300)
            relay.wait_event("source_up")
        eventually(lambda: all(text in capture.seen[bare.port] for text in plain))
        assert len(capture.seen[end.port]) > 300 * len(SECRET)
        assert [text for text in plain if text in capture.seen[end.port]] == []


# Peers in Python's ssl, on threads; so is our side here.


@contextmanager
def peer(
    papers: Papers,
    act: Callable[[ssl.SSLSocket], None],
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> Iterator[TlsSocket]:
    """Give our end of a connection to a peer that acts like this."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(papers.server.cert, papers.server.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as far:
                act(far)

        thread = threading.Thread(target=serve)
        thread.start()
        with our_end(papers, listener.getsockname()[1]) as near:
            yield near
        thread.join()


def trust(papers: Papers, port: int) -> tuple[Server, Tls]:
    """Return a server and how to speak TLS with it."""
    server = Server("127.0.0.1", port)
    return server, read_tls({server: TlsConfig(ca=papers.ours.cert)})[server]


def our_end(papers: Papers, port: int) -> TlsSocket:
    """Connect with TLS."""
    near = connect(*trust(papers, port))
    assert isinstance(near, TlsSocket)
    near.settimeout(30)
    return near


def read_to_end(near: TlsSocket) -> bytes:
    """Return all that comes."""
    parts = []
    while data := near.recv(1 << 18):
        parts.append(data)
    return b"".join(parts)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_comes_after_our_close_notify_is_read(papers: Papers, version: ssl.TLSVersion) -> None:
    """Half-closed as with plain TCP: the peer handles all that we sent, answers, and closes."""
    heard, answer = bytearray(), os.urandom(1 << 20)

    def act(far: ssl.SSLSocket) -> None:
        while data := far.recv(1 << 16):
            heard.extend(data)
        far.sendall(answer)
        far.unwrap()

    question = os.urandom(1 << 20)
    with peer(papers, act, version) as near:
        near.sendall(question)
        near.shutdown(socket.SHUT_WR)
        assert read_to_end(near) == answer
    assert heard == question


@pytest.mark.parametrize("version", VERSIONS)
def test_a_close_in_the_middle_of_records_loses_none(
    papers: Papers, version: ssl.TLSVersion
) -> None:
    """Our writer ends while the reader is in the middle of what streams in."""
    stream = os.urandom(1 << 16) * 64

    def act(far: ssl.SSLSocket) -> None:
        far.sendall(stream)
        while far.recv(1 << 16):
            pass
        far.sendall(b"last")
        far.unwrap()

    for size in (1000, 16_000, 17_000, 100_000):
        with peer(papers, act, version) as near:
            begin = near.recv(size)
            near.shutdown(socket.SHUT_WR)
            assert begin + read_to_end(near) == stream + b"last"


def test_keys_are_changed_when_the_peer_asks_for_it(papers: Papers) -> None:
    """KeyUpdate of TLS 1.3, which asks for ours: the command K of openssl's server."""
    port = free_port()
    command = ["stdbuf", "-oL", "openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-tls1_3"]
    files = ["-cert", str(papers.server.cert), "-key", str(papers.server.key)]
    with subprocess.Popen(
        [*command, *files], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:

        def say(line: bytes) -> None:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()

        def wait_for(words: bytes) -> None:
            assert process.stdout is not None
            while words not in (line := process.stdout.readline()):
                assert line, "openssl has ended"

        try:
            wait_for(b"ACCEPT")
            with our_end(papers, port) as near:
                for number in range(3):
                    say(b"K\n")
                    wait_for(b"SSL_do_handshake -> 1")
                    say(b"line %d\n" % number)
                    assert near.recv(1000) == b"line %d\n" % number
                    near.sendall(b"answer %d\n" % number)
                    wait_for(b"answer %d" % number)
        finally:
            process.kill()


def test_a_handshake_that_trickles_has_an_end(papers: Papers) -> None:
    """The deadline is that of the whole, not of each byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def trickle() -> None:
            far, _ = listener.accept()
            with far:
                far.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB
                while not stop.wait(0.05):
                    far.sendall(b"\x02")

        thread = threading.Thread(target=trickle)
        thread.start()
        server, how = trust(papers, listener.getsockname()[1])
        with TlsSocket(socket.create_connection((server.host, server.port)), how, server.host) as s:
            begin = time.monotonic()
            with pytest.raises(LinkError, match="no answer to the TLS handshake"):
                s.handshake(0.5)
            assert time.monotonic() - begin >= 0.5
        stop.set()
        thread.join()


def test_an_end_without_close_notify_is_told_from_a_good_one(papers: Papers) -> None:
    """What came before it is read all the same."""

    def act(far: ssl.SSLSocket) -> None:
        far.sendall(b"half a")
        os.close(far.detach())

    with peer(papers, act) as near:
        assert near.recv(1000) == b"half a"
        with pytest.raises(ssl.SSLEOFError):
            near.recv(1000)

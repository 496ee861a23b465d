"""A connection on plain sockets and threads: how it is cut."""

import contextlib
import socket
import threading
import time

import pytest

from gevproxy.gearman import Connection, Worker
from tests.kit.eventually import eventually

SMALL = 32_768  # bytes of a receive buffer that one recv empties


def fill(server: socket.socket) -> None:
    """Send until neither side has room for more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            server.send(bytes(SMALL))


def sends_fail(server: socket.socket) -> bool:
    """Tell whether the far end knows that the connection has been reset."""
    try:
        server.send(b"x")
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("reading", [True, False])
def test_a_cut_connection_is_reset_and_leaves_no_closed_window_behind(reading: bool) -> None:
    """Or gearmand, which lingers in close() with what it could not send, stands still for 10 s."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        sock.connect(listener.getsockname())
        server, _ = listener.accept()
    with server:
        server.setblocking(False)
        connection = Connection(sock, Worker(b"q"), time.monotonic)
        connection.read(reading)
        thread = threading.Thread(target=connection.run, args=(lambda *_: None,))
        thread.start()
        if not reading:
            fill(server)
        connection.abort()
        thread.join(10.0)
        assert not thread.is_alive()
        eventually(lambda: sends_fail(server), 3.0, what="a reset at the far end")

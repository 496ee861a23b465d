"""Ports for servers that must be able to come back on the port they had."""

import random
import socket
from collections.abc import Callable

Connect = Callable[[int, float], socket.socket]
"""Connects to a port within so many seconds: here, or in another network namespace."""

# Below the kernel's ephemeral range, so that no outgoing connection takes the port of a
# server that is down for a moment.
PORTS = range(10_000, 32_000)


def loopback(port: int, timeout: float) -> socket.socket:
    """Connect to a port of 127.0.0.1."""
    return socket.create_connection(("127.0.0.1", port), timeout)


def free_port() -> int:
    """Return a port that nothing listens on now; whoever binds it may still lose a race."""
    rng = random.SystemRandom()
    while True:
        port = rng.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port

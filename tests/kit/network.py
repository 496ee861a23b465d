"""Networks of a test's own: namespaces, and wires between them that an operator would curse.

A namespace lives as long as a process that does nothing but wait for the end of the test's; it has
no name, so nothing is left behind and no two tests meet. All of this needs root and Linux.
"""

import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

PROGRAM = Path(__file__).with_name("wire_process.py")
NEEDED = ("ip", "iptables", "nsenter", "unshare")


def missing() -> str:
    """Return what this machine lacks for such a network, "" where it lacks nothing."""
    absent = [command for command in NEEDED if shutil.which(command) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: iproute2, iptables)"
    if os.geteuid() or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "network namespaces and /dev/net/tun need root"
    with Namespace() as namespace:
        try:
            namespace.run("iptables", "-w", "-L")
        except subprocess.CalledProcessError as error:
            return f"iptables does not work: {error.stderr}"
    return ""


def _enter(namespace: int) -> None:
    """Bring the calling thread, and no other, into a namespace (setns(2))."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0):
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """A network with nothing in it but a loopback."""

    def __init__(self) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        self.holder.stdin.write(b"\n")
        self.holder.stdin.flush()
        assert self.holder.stdout.read(1), "no network namespace"  # cat speaks: it is in there
        self.path = f"/proc/{self.holder.pid}/ns/net"
        self.prefix = ("nsenter", f"--net={self.path}", "--")
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.holder.communicate()

    def run(self, *command: str) -> str:
        """Run a command in there and return what it prints."""
        return subprocess.run(
            [*self.prefix, *command], check=True, capture_output=True, text=True, timeout=20
        ).stdout

    def connect(self, port: int, timeout: float) -> socket.socket:
        """Connect to a port of 127.0.0.1 in there: a socket stays where it was made."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            _enter(there)
            try:
                sock = socket.socket()
            finally:
                _enter(own)
        finally:
            os.close(own)
            os.close(there)
        try:
            sock.settimeout(timeout)
            sock.connect(("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return sock


class Wire:
    """A wire between two namespaces: 10.0.N.1 at its near end, 10.0.N.2 at its far end."""

    def __init__(self, near: Namespace, far: Namespace, number: int) -> None:
        self.near = near
        self.far = far
        self.device = f"wire{number}"
        self.far_host = f"10.0.{number}.2"
        ends = [
            (near.holder.pid, self.device, f"10.0.{number}.1/24"),
            (far.holder.pid, self.device, f"{self.far_host}/24"),
        ]
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM), json.dumps(ends)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "no wire"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=10)

    def shape(self, delay: float = 0.0, loss: float = 0.0) -> int:
        """Set the delay one way and the share of frames lost; return how many were lost so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.lock:
            self.process.stdin.write(json.dumps([delay, loss]) + "\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline())

    def unplug(self) -> None:
        """Take the near end's link down, as a pulled cable does."""
        self.near.run("ip", "link", "set", self.device, "down")

    def blackhole(self) -> None:
        """Swallow every packet, in both directions."""
        for end in (self.near, self.far):
            self._filter(end, "-j", "DROP")

    def reset(self) -> None:
        """Answer every packet to the far end with a reset, as some firewalls do."""
        self._filter(self.far, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")

    def restore(self) -> None:
        """Be a good wire again."""
        for end in (self.near, self.far):
            end.run("iptables", "-w", "-F", "INPUT")
        self.near.run("ip", "link", "set", self.device, "up")
        self.shape()

    def _filter(self, end: Namespace, *rule: str) -> None:
        end.run("iptables", "-w", "-A", "INPUT", "-i", self.device, *rule)

"""The process behind `network.Wire`: two TAP devices, and what happens to frames between them.

For kernels without netem. Started as root with one JSON argument; reads one JSON command a line
on stdin, answers each with one line, and ends with stdin: both devices then go with it. It
imports nothing but the standard library.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
TAP_WITHOUT_HEADER = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
FRAME = 65_536  # bytes; more than any frame has
BATCH = 64  # frames taken from one end before the other has its turn
DEPTH = 5_000  # frames on their way in one direction; what comes then is lost


class End:
    """One end of the wire: a TAP device in the network namespace of a process."""

    def __init__(self, namespace_of: int, device: str, address: str) -> None:
        with open(f"/proc/{namespace_of}/ns/net") as namespace:  # noqa: PTH123 - no path of a file
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"no way into the namespace of {namespace_of}")
        self.descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", device.encode(), TAP_WITHOUT_HEADER)
        fcntl.ioctl(self.descriptor, TUNSETIFF, request)
        for command in (f"addr add {address} dev {device}", f"link set {device} up"):
            subprocess.run(["ip", *command.split()], check=True)
        self.line: deque[tuple[float, bytes]] = deque()  # on their way to this end, when due

    def deliver(self, now: float) -> None:
        """Hand over the frames that have arrived."""
        while self.line and self.line[0][0] <= now:
            with contextlib.suppress(OSError):  # the device is down
                os.write(self.descriptor, self.line.popleft()[1])


class Wire:
    """Two ends, the delay one way in seconds, and the share of frames that is lost."""

    def __init__(self, ends: list[tuple[int, str, str]]) -> None:
        self.ends = [End(*end) for end in ends]
        self.delay = 0.0
        self.loss = 0.0
        self.random = random.Random(1)
        self.lost = 0

    def take(self, number: int, now: float) -> None:
        """Take the frames that one end has sent, and put them on their way to the other."""
        line = self.ends[1 - number].line
        for _ in range(BATCH):
            try:
                frame = os.read(self.ends[number].descriptor, FRAME)
            except OSError:  # no more of them
                return
            if self.random.random() < self.loss or len(line) >= DEPTH:
                self.lost += 1
            else:
                line.append((now + self.delay, frame))

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next frame arrives, None where there is none."""
        due = [end.line[0][0] for end in self.ends if end.line]
        return max(0.0, min(due) - now) if due else None


def main() -> None:
    wire = Wire(json.loads(sys.argv[1]))
    selector = selectors.DefaultSelector()
    for number, end in enumerate(wire.ends):
        selector.register(end.descriptor, selectors.EVENT_READ, number)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)  # noqa: T201 - the way to speak to the test
    while True:
        for key, _ in selector.select(wire.wait(time.monotonic())):
            if key.data is not None:
                wire.take(key.data, time.monotonic())
                continue
            line = sys.stdin.readline()
            if not line:
                return
            wire.delay, wire.loss = json.loads(line)
            print(wire.lost, flush=True)  # noqa: T201
        for end in wire.ends:
            end.deliver(time.monotonic())


if __name__ == "__main__":
    main()

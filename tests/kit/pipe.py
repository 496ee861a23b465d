"""A link between two networks: a TCP pipe that delays, thins, cuts and swallows.

It runs as a process of its own, so that its timing does not suffer from the threads of a
test; `pipe_process.py` is that process, and one JSON line each way is one command.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple, Self

from tests.kit.ports import free_port

PROGRAM = Path(__file__).with_name("pipe_process.py")
ATTEMPTS = 5  # ports tried before giving up
BUFFER = 65_536  # bytes in each socket buffer, so that a slow link feels thin and not deep


class Counters(NamedTuple):
    """What has passed a pipe: bytes each way, connections accepted, connections open now."""

    to_target: int
    to_client: int
    accepted: int
    open: int


class Pipe:
    """A pipe to a port of 127.0.0.1, itself on one port for its whole life.

    `delay` is in seconds one way, `rate` in bytes a second in each direction. A black hole
    keeps what the kernel already took, as far as its small buffers reach.
    """

    def __init__(
        self,
        target_port: int,
        delay: float = 0.0,
        rate: float | None = None,
        buffer: int = BUFFER,
    ) -> None:
        self.lock = threading.Lock()
        for _ in range(ATTEMPTS):
            self.port = free_port()
            settings = {"port": self.port, "target": target_port, "buffer": buffer}
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(PROGRAM), json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert self.process.stdout is not None
            if self.process.stdout.readline() == "ready\n":
                break
            self.close()
        else:
            raise AssertionError("no free port for a pipe")
        self.shape(delay, rate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Return host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def counters(self) -> Counters:
        """Return what has passed so far."""
        return Counters(*self._command("count"))

    def shape(self, delay: float = 0.0, rate: float | None = None) -> None:
        """Set delay and rate anew."""
        self._command("shape", delay, rate)

    def drop(self, reset: bool = True) -> None:
        """End the open connections, by RST or by FIN, and go on accepting new ones."""
        self._command("drop", reset)

    def refuse(self) -> None:
        """Close the listener: new connections are refused, open ones go on."""
        self._command("refuse")

    def cut(self, reset: bool = True) -> None:
        """End the open connections and refuse new ones until `restore`."""
        self.refuse()
        self.drop(reset)

    def blackhole(self, to_target: bool = True, to_client: bool = True) -> None:
        """Stop moving bytes, closing nothing, in one or both directions."""
        self._command("blackhole", to_target, to_client)

    def restore(self) -> None:
        """Accept and move bytes again; what a black hole held goes on its way."""
        self._command("restore")

    def close(self) -> None:
        """End the pipe and all its connections."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def _command(self, name: str, *arguments: float | bool | None) -> list[int]:
        with self.lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps([name, *arguments]) + "\n")
            self.process.stdin.flush()
            answer: list[int] = json.loads(self.process.stdout.readline())
        return answer

"""What stands in for systemd: the socket on which a service tells how it does (sd_notify(3))."""

import socket
import threading
from pathlib import Path
from typing import Self


class Manager:
    """Listens as systemd does and keeps every line that it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()

    def _listen(self) -> None:
        while message := self.socket.recv(4096):
            self.lines += message.decode().splitlines()

    def has(self, *beginnings: str) -> bool:
        """Tell whether lines with these beginnings have come, in this order."""
        lines = iter(list(self.lines))
        return all(any(line.startswith(each) for line in lines) for each in beginnings)

    def count(self, line: str) -> int:
        """Return how often a line has come."""
        return self.lines.count(line)

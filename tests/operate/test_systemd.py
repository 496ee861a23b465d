"""What systemd is told through sd_notify(3): readiness, reloads, life, the stop."""

import socket
import threading
from pathlib import Path

from tests.kit.eventually import eventually
from tests.kit.relay import Relay, config


class Manager:
    """Listens as systemd does and keeps every line that it is told."""

    def __init__(self, path: Path) -> None:
        self.lines: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while message := self.socket.recv(4096):
            self.lines += message.decode().splitlines()

    def has(self, *beginnings: str) -> bool:
        """Tell whether lines with these beginnings have come, in this order."""
        lines = iter(self.lines)
        return all(any(line.startswith(each) for line in lines) for each in beginnings)


def test_ready_reload_life_and_stop_are_told_in_order(tmp_path: Path) -> None:
    """Ready although no server is there: a relay must boot while the other site is down."""
    manager = Manager(tmp_path / "notify")
    relay = Relay(config({"127.0.0.1:1/q": "127.0.0.1:2/q"}))
    relay.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
    with relay:
        eventually(lambda: manager.has("READY=1", "WATCHDOG=1", "STATUS=0 of 1 forwards running"))
        relay.hup()
        reload = ("RELOADING=1", "MONOTONIC_USEC=", "READY=1", "WATCHDOG=1")
        eventually(lambda: manager.has("READY=1", *reload))
        relay.term()
        assert relay.wait() == 0
        assert manager.has("READY=1", *reload, "STOPPING=1")
    manager.socket.shutdown(socket.SHUT_RDWR)
    manager.socket.close()
